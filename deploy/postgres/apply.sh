#!/bin/sh
# Makes the roles of roles.sql, lets them log in with PGPASSWORD, and grants what they need. Runs before the first migration
# and after every one; it may run as often as one likes.
set -eu
psql -q -v ON_ERROR_STOP=1 -f "$(dirname "$0")/roles.sql"
for role in usher_owner usher_api usher_worker usher_monitor; do
	psql -q -v ON_ERROR_STOP=1 -v role="$role" -v password="$PGPASSWORD" <<-'SQL'
		ALTER ROLE :"role" LOGIN PASSWORD :'password';
	SQL
done
