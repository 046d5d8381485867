#!/usr/bin/env bash
# One would guess that a JWT signed with an Ed25519 key by a current library is verified by another current one: both call the algorithm
# EdDSA, as RFC 8037 does, and as most documents of keys and metadata say.
#
# What happens: oauth4webapi signs client assertions with an Ed25519 key under the newer name of RFC 9864, alg "Ed25519", whatever
# name the key's JWK has. golang-jwt knows the older name alone: "signing method (alg) is unavailable", and says nothing of the key. The two
# signatures are of one algorithm: with a method of the newer name registered beside it, the token is good.
#
# Why it matters: a server that lists EdDSA in token_endpoint_auth_signing_alg_values_supported refuses such clients with what looks like a bad
# signature. It has to take both names, list both, and not hold a key's `alg` of one name against a token of the other.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
npm install --silent --no-audit --no-fund oauth4webapi@3.8.8 >/dev/null

cat >sign.mjs <<'END'
import * as oauth from 'oauth4webapi'

const pair = await crypto.subtle.generateKey('Ed25519', true, ['sign', 'verify'])
const body = new URLSearchParams()
await oauth.PrivateKeyJwt(pair.privateKey)({ issuer: 'https://server.example' }, { client_id: 'a' }, body, new Headers())
console.log(body.get('client_assertion'), (await crypto.subtle.exportKey('jwk', pair.publicKey)).x)
END
mkdir verify && cd verify
cat >main.go <<'END'
package main

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"os"

	"github.com/golang-jwt/jwt/v5"
)

type newer struct{ *jwt.SigningMethodEd25519 }

func (newer) Alg() string { return "Ed25519" }

func main() {
	x, _ := base64.RawURLEncoding.DecodeString(os.Args[2])
	verify := func() error {
		t, err := jwt.Parse(os.Args[1], func(*jwt.Token) (any, error) { return ed25519.PublicKey(x), nil })
		fmt.Printf("alg %v: %v\n", t.Header["alg"], err)
		return err
	}
	if err := verify(); !errors.Is(err, jwt.ErrTokenUnverifiable) {
		os.Exit(1)
	}
	jwt.RegisterSigningMethod("Ed25519", func() jwt.SigningMethod { return newer{jwt.SigningMethodEdDSA} })
	if err := verify(); err != nil {
		os.Exit(1)
	}
}
END
go mod init example.org/verify >/dev/null 2>&1
go get github.com/golang-jwt/jwt/v5@v5.3.1 >/dev/null 2>&1
echo "oauth4webapi 3.8.8, node $(node --version); golang-jwt 5.3.1, $(go version | cut -d' ' -f3)"
read -r token x < <(node ../sign.mjs)
go run . "$token" "$x"
echo "as described"
