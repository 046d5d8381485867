#!/usr/bin/env bash
# Makes every secret that the files of deploy/ need, one for each role: the master key, the database's superuser and roles, and
# the users of nats.conf. What is there already stays, so it may run again, as after `usher deploy nats add-service`.
#
#   deploy/secrets.sh [FILE]                  completes FILE, .env beside compose.yaml unless another is named
#   deploy/secrets.sh --systemd DIR [FILE]    and writes DIR/usher.env and DIR/<kind>.env, which the units of deploy/systemd read
#   deploy/secrets.sh --kubernetes [FILE]     and prints the Secret that the manifests of deploy/kubernetes read
#
# POSTGRES_HOST and NATS_HOST in FILE are where the last two find the servers: localhost:5432 and localhost:4222 without them, on
# Kubernetes postgres:5432 and nats:4222. Keep a copy of MASTER_KEY: without it personal data can't be read.
set -euo pipefail
umask 077
deploy=$(cd "$(dirname "$0")" && pwd)

what=compose dir=
case ${1:-} in
--systemd) what=systemd dir=${2:?usage: $0 --systemd DIR [FILE]} && shift 2 ;;
--kubernetes) what=kubernetes && shift ;;
-*) echo "usage: $0 [--systemd DIR | --kubernetes] [FILE]" >&2 && exit 2 ;;
esac
file=${1:-$deploy/../.env}

[[ -e $file ]] || cp "$deploy/../.env.example" "$file"
chmod 600 "$file"

value() { sed -n "s/^$1=//p" "$file" | tail -n 1; }

# yaml NAME: the value of NAME, in FILE with quotes or without, as YAML has it.
yaml() {
	local text
	text=$(value "$1")
	case $text in
	\"*\") text=${text:1:-1} text=${text//\\\"/\"} text=${text//\\\\/\\} ;;
	\'*\') text=${text:1:-1} ;;
	esac
	text=${text//\\/\\\\}
	echo "\"${text//\"/\\\"}\""
}

# set NAME VALUE: in the line that is there for it and has none, else in a new one. What a program is called with can be seen by
# everybody on the machine, its environment can't.
set_value() {
	local kept
	if grep -q "^$1=$" "$file"; then
		kept=$(name="$1" value="$2" awk '
			$0 == ENVIRON["name"] "=" && !done { print $0 ENVIRON["value"]; done = 1; next }
			{ print }' "$file")
		printf '%s\n' "$kept" >"$file"
	else
		printf '%s=%s\n' "$1" "$2" >>"$file"
	fi
}

# A letter first: nats-server takes a password of digits alone for a number. No character that a URL escapes.
password() { echo "s$(od -An -N 24 -tx1 /dev/urandom | tr -d ' \n')"; }

[[ -n $(value MASTER_KEY) ]] || set_value MASTER_KEY "$(head -c 32 /dev/urandom | base64)"
roles='OWNER API WORKER MONITOR'
users=$(grep -v '^ *#' "$deploy/nats/nats.conf" | grep -o '\$NATS_[A-Z0-9_]*_PASSWORD' | tr -d '$' | sort -u)
for name in POSTGRES_PASSWORD $(printf 'POSTGRES_%s_PASSWORD ' $roles) $users GRAFANA_PASSWORD; do
	[[ -n $(value "$name") ]] || set_value "$name" "$(password)"
done

database() { echo "postgres://usher_${1,,}:$(value "POSTGRES_$1_PASSWORD")@$(value POSTGRES_HOST | grep . || echo "$postgres")/usher"; }
broker() { echo "nats://${1,,}:$(value "NATS_$1_PASSWORD")@$(value NATS_HOST | grep . || echo "$nats")"; }

case $what in
systemd)
	postgres=localhost:5432 nats=localhost:4222
	mkdir -p "$dir"
	kind() { # NAME ROLE [USER]
		echo "DATABASE_URL=$(database "$2")" >"$dir/$1.env"
		[[ -z ${3:-} ]] || echo "NATS_URL=$(broker "$3")" >>"$dir/$1.env"
	}
	[[ -e $dir/usher.env ]] || grep -E '^(PUBLIC_URL|ACCOUNT_URL|JWT_ISSUER|SMTP_URL|SMTP_TLS|MAIL_FROM|TRUSTED_PROXIES)=.' "$file" >"$dir/usher.env" || true
	grep -q '^MASTER_KEY=' "$dir/usher.env" || echo "MASTER_KEY=$(value MASTER_KEY)" >>"$dir/usher.env"
	kind migrate OWNER OPERATOR
	kind serve API API
	for name in ADMIN_EMAIL ADMIN_PASSWORD; do
		[[ -z $(value $name) ]] || echo "$name=$(value $name)" >>"$dir/serve.env"
	done
	kind publish WORKER RELAY
	kind project WORKER WORKER
	kind webhooks WORKER WORKER
	kind purge WORKER
	kind check MONITOR OPERATOR
	;;
kubernetes)
	postgres=postgres:5432 nats=nats:4222
	cat <<-YAML
		apiVersion: v1
		kind: Secret
		metadata:
		  name: usher
		  namespace: usher
		stringData:
		  MASTER_KEY: "$(value MASTER_KEY)"
		  DATABASE_URL_OWNER: "$(database OWNER)"
		  DATABASE_URL_API: "$(database API)"
		  DATABASE_URL_WORKER: "$(database WORKER)"
		  DATABASE_URL_MONITOR: "$(database MONITOR)"
		  NATS_URL_API: "$(broker API)"
		  NATS_URL_RELAY: "$(broker RELAY)"
		  NATS_URL_WORKER: "$(broker WORKER)"
		  NATS_URL_OPERATOR: "$(broker OPERATOR)"
		  SMTP_URL: $(yaml SMTP_URL)
		  SMTP_TLS: $(yaml SMTP_TLS)
		  ADMIN_EMAIL: $(yaml ADMIN_EMAIL)
		  ADMIN_PASSWORD: $(yaml ADMIN_PASSWORD)
	YAML
	;;
esac
