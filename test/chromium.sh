#!/usr/bin/env bash
# Runs a command where the tests of the pages find a Chromium, and axe-core, which looks for what keeps people out:
#
#   test/chromium.sh go test ./pages/...
#
# Chromium is the one on this machine, or that CHROMIUM names, and is installed if it is missing and that takes no password.
# axe-core is fetched from npm once, in the version below, and kept in the user's cache.
set -euo pipefail

axe_version=4.14.1
axe_sum=29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c

has() { command -v "$1" >/dev/null; }

sha() { if has sha256sum; then sha256sum "$@"; else shasum -a 256 "$@"; fi; }

found() {
	local name
	for name in "${CHROMIUM:-}" chromium chromium-browser google-chrome google-chrome-stable \
		"/Applications/Google Chrome.app/Contents/MacOS/Google Chrome" /Applications/Chromium.app/Contents/MacOS/Chromium; do
		if [[ -n $name ]] && has "$name"; then
			CHROMIUM=$(command -v "$name")
			export CHROMIUM
			return
		fi
	done
	return 1
}

as_root() {
	if ((EUID == 0)); then
		"$@"
	else
		sudo -n "$@"
	fi
}

may_be_root() { ((EUID == 0)) || { has sudo && sudo -n true 2>/dev/null; }; }

# install installs what is missing, by the names that the system's package manager has for it.
install() {
	if [[ $OSTYPE == darwin* ]] && has brew; then
		case $1 in chromium) brew install --cask chromium ;; npm) brew install node ;; esac
	elif ! may_be_root; then
		return 1
	elif has apt-get; then
		as_root apt-get update -q
		as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "$1"
	elif has dnf; then
		as_root dnf install -qy "$1"
	elif has apk; then
		as_root apk add -q "$1"
	else
		return 1
	fi
}

missing() {
	cat >&2 <<END
The tests of the pages need $1, which is missing and can't be installed here. Any of these will do:
  - install it:        sudo apt-get install $2  (dnf, apk: $2; brew: $3)
  - name it:           export $4
END
	exit 1
}

if ! found; then
	echo "no Chromium here: installing it" >&2
	install chromium >&2 && found || missing Chromium chromium "--cask chromium" CHROMIUM=/path/to/chromium
fi

if [[ -z ${AXE_CORE:-} ]]; then
	cache=${XDG_CACHE_HOME:-$HOME/.cache}/usher
	AXE_CORE=$cache/axe-core-$axe_version.js
	if ! sha --check --status 2>/dev/null <<<"$axe_sum  $AXE_CORE"; then
		has npm || install npm >&2 || missing npm npm node "AXE_CORE=/path/to/axe.min.js, of axe-core $axe_version"
		temporary=$(mktemp -d)
		trap 'rm -rf "$temporary"' EXIT
		(cd "$temporary" && npm pack --silent "axe-core@$axe_version" >/dev/null && tar xzf axe-core-*.tgz package/axe.min.js)
		sha --check --status <<<"$axe_sum  $temporary/package/axe.min.js" || {
			echo "axe-core $axe_version is not what it was" >&2
			exit 1
		}
		mkdir -p "$cache"
		mv "$temporary/package/axe.min.js" "$AXE_CORE"
		rm -rf "$temporary"
		trap - EXIT
	fi
fi
export AXE_CORE
exec "$@"
