#!/usr/bin/env bash
# One would guess: a password from the environment, `password: $NATS_A_PASSWORD` in nats-server's configuration, is a text whatever it is.
# What happens: the variable's value is parsed as a value of the configuration. Digits are a number, 12k is one with a unit, true is a
#   truth value, and the server does not start: "interface conversion: interface {} is int64, not string", which names no variable.
# Why it matters: a generator of random passwords makes such a one now and then, and a deployment that ran everywhere else does not start.
#   deploy/secrets.sh begins each password with a letter, and nats.conf says so.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
GOBIN=$dir go install github.com/nats-io/nats-server/v2@v2.15.2 2>&1 | tail -n 1
./nats-server --version
echo 'authorization { users: [ {user: a, password: $NATS_A_PASSWORD} ] }' >nats.conf
for password in s123456 0f12 123456 12k true; do
	code=0
	said=$(NATS_A_PASSWORD=$password ./nats-server -c nats.conf -t 2>&1) || code=$?
	echo "$password: exit code $code: $(head -n 1 <<<"$said")"
	case $password in
	s123456 | 0f12) [[ $code = 0 ]] || exit 1 ;;
	*) [[ $code != 0 && $said == *"not string"* ]] || exit 1 ;;
	esac
done
