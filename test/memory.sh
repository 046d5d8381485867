#!/usr/bin/env bash
# Runs a command with its temporary files in memory, where there is room for them:
#
#   test/memory.sh go test ./...
#
# Tests make and remove tens of thousands of files of databases and brokers, which took half of their CPU on ext4. What
# they prove does not depend on it: a process that is killed leaves its files as they are either way. Benchmarks, which wait
# for the disk, must not run under it.
set -euo pipefail

memory=/dev/shm
room=$((6 << 20)) # KiB

if [[ -z ${TMPDIR:-} && -w $memory ]] && (($(df -Pk "$memory" | awk 'END {print $4}') > room)); then
	export TMPDIR=$memory/usher-test-$UID GOTMPDIR=/tmp # test binaries stay where they may be executed
	mkdir -p "$TMPDIR"
	chmod 755 "$TMPDIR" # PostgreSQL refuses root, so its server is another user
	# What killed runs left, and the databases of failed tests, once nobody looks at them any more.
	find "$TMPDIR" -mindepth 1 -maxdepth 1 -mmin +60 -exec rm -rf {} +
fi
exec "$@"
