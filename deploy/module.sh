#!/usr/bin/env bash
# Gives the module another path, in go.mod, in every import and in the documents that name it:
#
#   deploy/module.sh git.example.org/us/usher
#
# Until it has a home, the module is called after a host that nobody can own (RFC 2606).
set -euo pipefail
cd "$(dirname "$0")/.."

to=${1:-}
[[ $to =~ ^[a-z0-9.-]+\.[a-z0-9.-]+(/[A-Za-z0-9._~-]+)*$ ]] || {
	echo "usage: $0 PATH; PATH begins with a host, as in git.example.org/us/usher" >&2
	exit 2
}
from=$(go list -m)

# Only where the path is whole: at the start of a word, and followed by a package or by the end of the path.
git grep -lzF "$from" -- '*.go' '*.mod' '*.md' |
	FROM=$from TO=$to xargs -0 perl -pi -e 's{(?<![\w./-])\Q$ENV{FROM}\E(?=[/\@=\s"`]|$)}{$ENV{TO}}g'
gofmt -w $(git ls-files '*.go')
