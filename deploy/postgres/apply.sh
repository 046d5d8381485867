#!/bin/sh
# Makes the roles of roles.sql, lets each log in with a password of its own (POSTGRES_<ROLE>_PASSWORD), and grants what they need.
# Runs before the first migration and after every one; it may run as often as one likes.
set -eu
psql -q -v ON_ERROR_STOP=1 -f "$(dirname "$0")/roles.sql"
while read -r role password; do
	# In the environment, since everybody on the machine can see what a program is called with.
	ROLE_PASSWORD="$password" psql -q -v ON_ERROR_STOP=1 -v role="$role" <<-'SQL'
		\set password `printenv ROLE_PASSWORD`
		ALTER ROLE :"role" LOGIN PASSWORD :'password';
	SQL
done <<EOL
usher_owner ${POSTGRES_OWNER_PASSWORD:?run deploy/secrets.sh}
usher_api ${POSTGRES_API_PASSWORD:?run deploy/secrets.sh}
usher_worker ${POSTGRES_WORKER_PASSWORD:?run deploy/secrets.sh}
usher_monitor ${POSTGRES_MONITOR_PASSWORD:?run deploy/secrets.sh}
EOL
