#!/usr/bin/env bash
# Checks the alert rules and runs their unit tests with promtool, which it finds, fetches or builds:
#
#   deploy/prometheus/test.sh
set -euo pipefail
cd "$(dirname "$0")"
cache=${XDG_CACHE_HOME:-$HOME/.cache}/usher

has() { command -v "$1" >/dev/null; }

# Debian's package has it; unpacking leaves the system as it is.
fetched() {
	has apt-get && has dpkg-deb || return 1
	local dir
	dir=$(mktemp -d)
	(cd "$dir" && { apt-get download -qq prometheus || { apt-get update -qq && apt-get download -qq prometheus; }; }) >/dev/null 2>&1 &&
		dpkg-deb --fsys-tarfile "$dir"/prometheus_*.deb | tar -x -C "$dir" ./usr/bin/promtool &&
		mkdir -p "$cache" && mv "$dir/usr/bin/promtool" "$cache/promtool"
	local done=$?
	rm -r "$dir"
	return $done
}

if has promtool; then
	promtool=promtool
elif [[ -x $cache/promtool ]] || fetched; then
	promtool=$cache/promtool
else # a few minutes, once
	mkdir -p "$cache"
	GOBIN=$cache go install github.com/prometheus/prometheus/cmd/promtool@v0.316.0
	promtool=$cache/promtool
fi
"$promtool" check config --syntax-only prometheus.yml
"$promtool" check rules usher.rules.yml
"$promtool" test rules usher.rules.test.yml
