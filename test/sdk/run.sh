#!/usr/bin/env bash
# Lints the API document with redocly and spectral, makes clients of it with the generators that people use, compiles them, and has
# them call a server; and has strict verifiers look at its access tokens:
#
#   test/sdk/run.sh
#
# Everything that node needs is fetched into a temporary folder, in the versions of typescript/package-lock.json.
set -euo pipefail
cd "$(dirname "$0")"
document=$PWD/../../schema/openapi.yaml

has() { command -v "$1" >/dev/null; }

node_is_there() {
	has npm && node -e 'const [major, minor] = process.versions.node.split("."); process.exit(major > 20 || major == 20 && minor >= 19 ? 0 : 1)'
}

install_node() {
	has apt-get || return 1
	local root=()
	if ((EUID != 0)); then
		{ has sudo && sudo -n true 2>/dev/null; } || return 1
		root=(sudo -n)
	fi
	"${root[@]}" apt-get update -q
	"${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends nodejs npm
}

if ! node_is_there; then
	echo "no node 20.19 or later here: installing it" >&2
	if ! install_node >&2 || ! node_is_there; then
		echo "The generators need node 20.19 or later with npm: see https://nodejs.org/en/download" >&2
		exit 1
	fi
fi

work=$(mktemp -d)
trap 'rm -r "$work"' EXIT
cp typescript/* "$document" "$work"

(
	cd "$work"
	npm ci --ignore-scripts --no-audit --no-fund --loglevel error
	export REDOCLY_TELEMETRY=off REDOCLY_SUPPRESS_UPDATE_NOTICE=true PATH=$work/node_modules/.bin:$PATH
	echo 'extends: ["spectral:oas"]' >spectral.yaml
	redocly lint --extends recommended --format stylish openapi.yaml 2>&1 | tee linted
	if grep -qE '^ +[0-9]+:[0-9]+ +(warning|error) ' linted; then # redocly lets warnings pass
		exit 1
	fi
	spectral lint --ruleset spectral.yaml --fail-severity hint openapi.yaml

	openapi-typescript openapi.yaml -o generated/schema.d.ts
	openapi-ts -i openapi.yaml -o generated/heyapi -c @hey-api/client-fetch
	orval
	tsc
	for program in openapi_typescript hey_api orval verifiers services; do
		esbuild $program.ts --bundle --packages=external --platform=node --format=esm --log-level=warning --outfile=programs/$program.mjs
	done
)

rm -rf generated
mkdir -p generated/oapi generated/ogen
go tool oapi-codegen -generate types,client -package oapi -o generated/oapi/client.go "$document"
go tool ogen --loglevel error --target generated/ogen --package ogen "$document"
go vet ./...
SDK_PROGRAMS=$work/programs go test -count=1 .
