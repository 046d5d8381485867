#!/usr/bin/env bash
# One would guess: names in an OpenAPI document are the author's to choose, and a generator keeps clear of its own.
# What happens: ogen gives the type of a security scheme the scheme's name, and has a type Client itself. A document with a
#   scheme "client" is generated without a word, and what comes out does not compile.
# Why it matters: OAuth's own word for who calls /introspect is client; a valid document that four other generators take is of no
#   use to those who have ogen. usher's scheme is called clientSecret for that.
set -euo pipefail
work=$(mktemp -d)
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
cd "$work"

version=v1.25.0
cat >go.mod <<'END'
module example.org/colliding

go 1.26.0
END
document() { # of one call, with a security scheme of a name
	cat <<END
openapi: 3.1.0
info: {title: t, version: '1'}
paths:
  /introspect:
    post:
      operationId: introspect
      security: [{$1: []}]
      responses: {'204': {description: Done.}}
components:
  securitySchemes:
    $1: {type: http, scheme: basic}
END
}
go get -tool "github.com/ogen-go/ogen/cmd/ogen@$version" 2>/dev/null

said=
for name in client clientSecret; do
	document $name >openapi.yaml
	go tool ogen --loglevel error --clean --target api --package api openapi.yaml
	go mod tidy 2>/dev/null
	if out=$(go build ./api 2>&1); then
		said+="$name: compiles"$'\n'
	else
		said+="$name: $(grep -om1 'Client redeclared in this block' <<<"$out")"$'\n'
	fi
done
echo "ogen $version, a security scheme named"
printf %s "$said"
[[ $said == $'client: Client redeclared in this block\nclientSecret: compiles\n' ]]
