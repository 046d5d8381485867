#!/usr/bin/env bash
# Runs a command where the tests find a PostgreSQL:
#
#   test/postgres.sh go test ./...
#
# With TEST_DATABASE_URL the tests use that server, except for the few that kill their server and
# need local programs. Otherwise they start servers of their own from local programs, which this
# script installs if it may; failing that it runs the command in a container that has them. PgBouncer is needed as well.
set -euo pipefail

has() { command -v "$1" >/dev/null; }

# The places that internal/devstack looks in.
found() {
	local dir
	PATH=$PATH:/usr/sbin:/usr/local/sbin has pgbouncer || return
	[[ -n ${TEST_DATABASE_URL:-} ]] && return
	for dir in ${PATH//:/ } /usr/lib/postgresql/*/bin /usr/libexec/postgresql* /usr/pgsql-*/bin \
		/usr/local/pgsql/bin /opt/homebrew/opt/postgresql*/bin /usr/local/opt/postgresql*/bin; do
		[[ -x $dir/initdb && -x $dir/postgres ]] && return
	done
	return 1
}

# as_root runs a command as root, if that takes no password.
as_root() {
	if ((EUID == 0)); then
		"$@"
	else
		sudo -n "$@"
	fi
}

may_be_root() { ((EUID == 0)) || { has sudo && sudo -n true 2>/dev/null; }; }

install() {
	if [[ $OSTYPE == darwin* ]] && has brew; then
		brew install postgresql@17 pgbouncer
	elif ! may_be_root; then
		return 1
	elif has apt-get; then
		as_root apt-get update -q
		as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends postgresql pgbouncer
	elif has dnf; then
		as_root dnf install -qy postgresql-server pgbouncer
	elif has apk; then
		as_root apk add -q postgresql pgbouncer
	else
		return 1
	fi
}

if found; then
	exec "$@"
fi

echo "no PostgreSQL or PgBouncer here: installing them" >&2
if install >&2 && found; then
	exec "$@"
fi

if has docker && docker info >/dev/null 2>&1; then
	echo "cannot install PostgreSQL: using a container" >&2
	go_version=$(awk '$1 == "go" {print $2}' go.mod)
	exec docker run --rm --volume "$PWD:/src" --workdir /src --env GOFLAGS=-buildvcs=false \
		--volume usher-go:/go --volume usher-go-build:/root/.cache \
		"golang:$go_version" test/postgres.sh "$@"
fi

cat >&2 <<'END'
The tests need a PostgreSQL (14 or later) and PgBouncer, and one of them is missing. Any of these will do:
  - install them:          sudo apt-get install postgresql pgbouncer  (dnf: postgresql-server, apk and brew: postgresql)
  - use a running server:  export TEST_DATABASE_URL=postgres://user:password@host:5432/postgres, and install PgBouncer
  - start Docker
END
exit 1
