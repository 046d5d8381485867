#!/usr/bin/env bash
# One would guess that a document of OpenAPI 3.1 may say which scope each call needs, beside a bearer scheme: `security: [{bearer: [users:read]}]`.
# The specification allows that since 3.1 (Security Requirement Object): for other schemes than oauth2 and openIdConnect the list may name roles,
# which the document need not define anywhere.
#
# What happens: spectral's own ruleset reads the names as scopes, finds none listed at the scheme, which can list none, and warns at every such
# call, `oas3-operation-security-defined`; so it does for openIdConnect, whose scopes the document can't list either. Without the names the
# same document has no such warning.
#
# Why it matters: a build that fails on warnings refuses a valid document, and the standard place for what each call needs can't be used by
# whoever lints with spectral. An extension, such as x-scope, can.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
npm install --silent --no-audit --no-fund @stoplight/spectral-cli@6.15.0 >/dev/null 2>&1
echo 'extends: ["spectral:oas"]' >ruleset.yaml

document() { # of a call that needs a scheme, with some names
	cat <<END
openapi: 3.1.0
info: {title: example, version: 1.0.0, description: An example., contact: {name: example}}
servers: [{url: 'https://api.example.org'}]
tags: [{name: users, description: Users.}]
paths:
  /users:
    get:
      operationId: listUsers
      description: Users.
      tags: [users]
      security: [{$1: [$2]}]
      responses: {'200': {description: Users.}}
components:
  securitySchemes:
    bearer: {type: http, scheme: bearer}
    openid: {type: openIdConnect, openIdConnectUrl: 'https://api.example.org/.well-known/openid-configuration'}
END
}
warned() { # how often a document is warned of
	npx spectral lint --ruleset ruleset.yaml --fail-severity error --format json --quiet "$1" | grep -c '"oas3-operation-security-defined"' || true
}

for scheme in bearer openid; do
	document "$scheme" "'users:read'" >named.yaml
	document "$scheme" "" >bare.yaml
	named=$(warned named.yaml) bare=$(warned bare.yaml)
	echo "@stoplight/spectral-cli 6.15.0, $scheme: $named warning with a name, $bare without"
	[[ $named == 1 && $bare == 0 ]] || { echo "that has changed"; exit 1; }
done
