-- Least privilege: who may do what in usher's database. Run it as a superuser, in that database, once before the first
-- `usher migrate up` and again after every one, since it also grants what new tables need:
--
--   psql "$ADMIN_URL" -v ON_ERROR_STOP=1 -f roles.sql
--   psql "$ADMIN_URL" -c "ALTER ROLE usher_owner LOGIN PASSWORD '…'" -c "ALTER ROLE usher_api LOGIN PASSWORD '…'" …
--
--   usher_owner    owns everything: `usher migrate up`, `usher outbox reset`, and nothing else
--   usher_api      `usher serve`, and the commands of operators; what changes read models a worker does for it
--   usher_worker   `usher publish`, `usher project`, `usher webhooks run`, and `usher purge`. It writes read models and how far
--                  everything is, and nothing that accounts are made of; what it appends is about no user
--   usher_monitor  reads, but for hashes, second factors, codes and keys: `usher check`, `usher … list`, `usher events tail`
--
-- Nobody changes or deletes an event, and nobody but append_events, a function of the owner's, writes one. Nobody but the
-- owner makes anything in any schema: what one role puts where another looks would run with the other's rights. Where all of
-- usher runs in one process, as `usher serve --with publisher,projections,webhooks`, log in as a role that is granted both
-- usher_api and usher_worker.
--
-- What is granted is a list. A table that is not in it can be used by nobody but the owner.
BEGIN;
SET LOCAL search_path = pg_catalog;

DO $$
DECLARE
    role text;
BEGIN
    FOREACH role IN ARRAY ARRAY['usher_owner', 'usher_api', 'usher_worker', 'usher_monitor'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role) THEN
            EXECUTE format('CREATE ROLE %I NOSUPERUSER NOCREATEDB NOCREATEROLE', role);
        END IF;
    END LOOP;
END $$;

-- Whatever they were granted before goes, and whatever they own: read models, by an earlier version of this file.
DROP OWNED BY usher_api, usher_worker, usher_monitor;

DO $$
BEGIN
    EXECUTE format('REVOKE CREATE, TEMPORARY ON DATABASE %I FROM PUBLIC', current_database());
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO usher_owner, usher_api, usher_worker, usher_monitor', current_database());
END $$;

REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT USAGE, CREATE ON SCHEMA public TO usher_owner;
GRANT USAGE ON SCHEMA public TO usher_api, usher_worker, usher_monitor;
CREATE SCHEMA IF NOT EXISTS readmodels AUTHORIZATION usher_owner;
GRANT USAGE ON SCHEMA readmodels TO usher_api, usher_worker, usher_monitor;
ALTER DEFAULT PRIVILEGES FOR ROLE usher_owner REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;

-- Each line is a role, what it may do, and with what: tables, the columns of one, or functions. What is not there yet is for a
-- migration to make, and for this file to grant after it.
DO $$
DECLARE
    api     text := 'usher_api';
    worker  text := 'usher_worker';
    monitor text := 'usher_monitor';
    g       record;
    name    text;
BEGIN
    REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA public FROM PUBLIC;
    FOR g IN SELECT * FROM (VALUES
        -- the log: read, and appended to by append_events
        (api,     'SELECT', 'events, streams, reservations, user_keys'),
        (api,     'SELECT, DELETE', 'commands'),          -- old ones are forgotten
        (worker,  'SELECT', 'events, streams, user_keys'),
        (monitor, 'SELECT', 'events, streams, commands'),
        -- the deployment: whoever starts first says which master key it has
        (api,     'SELECT, INSERT', 'master_keys'),
        (worker,  'SELECT, INSERT', 'master_keys'),
        (monitor, 'SELECT', 'master_keys, migrations'),
        (api,     'SELECT', 'migrations'),
        (worker,  'SELECT', 'migrations'),
        -- accounts
        (api,     'SELECT, INSERT, UPDATE, DELETE', 'credentials, sessions, factors, codes, admins, devices, known_devices, throttle, imported_users'),
        (api,     'SELECT, INSERT, UPDATE, DELETE', 'signing_keys, clients, client_secrets, unadopted_roles, erasures, mails, mail_targets, subscriptions'),
        (api,     'SELECT, INSERT, DELETE', 'client_assertions'),
        (api,     'SELECT, INSERT, UPDATE, DELETE', 'device_requests'),
        (worker,  'SELECT', 'erasures'),
        (worker,  'SELECT (kid, algorithm, created_at, signs_from, token_seconds, id_tokens)', 'signing_keys'),
        (monitor, 'SELECT', 'admins, throttle, erasures, subscriptions, mails'),
        (monitor, 'SELECT (session_id, user_id, counter, started_at, rotated_at, expires_at, parent_id, granted_to)', 'sessions'),
        (monitor, 'SELECT (kid, algorithm, created_at, signs_from, token_seconds, id_tokens)', 'signing_keys'),
        (monitor, 'SELECT', 'clients, unadopted_roles'),
        (monitor, 'SELECT (secret_id, client_id, kind, prefix, scopes, created_at, expires_at, used_at)', 'client_secrets'),
        -- relay, projections and webhooks
        (api,     'SELECT, INSERT, UPDATE, DELETE', 'leases'),
        (api,     'SELECT', 'relay, relay_orders'),
        (worker,  'SELECT, INSERT, UPDATE, DELETE', 'leases, relay'),
        (worker,  'SELECT, DELETE', 'relay_orders'),      -- it does them; only the owner gives them
        (monitor, 'SELECT', 'leases, relay, relay_orders'),
        (api,     'SELECT, INSERT, UPDATE, DELETE', 'projections, parked_events, projection_generations, skipped_events, discarded_generations'),
        (worker,  'SELECT, INSERT, UPDATE, DELETE', 'projections, parked_events, projection_generations, skipped_events, discarded_generations'),
        (monitor, 'SELECT', 'projections, parked_events, projection_generations, skipped_events, discarded_generations'),
        (api,     'SELECT, INSERT, UPDATE, DELETE', 'webhooks, webhook_states, webhook_progress, webhook_deliveries'),
        (worker,  'SELECT', 'webhooks, webhook_states'),
        (worker,  'SELECT, INSERT, UPDATE, DELETE', 'webhook_progress, webhook_deliveries'),
        (monitor, 'SELECT', 'webhook_states, webhook_progress, webhook_deliveries'),
        (monitor, 'SELECT (id, url, events, command_id, created_at, updated_at)', 'webhooks'),
        -- functions
        (api,     'EXECUTE', 'append_events, ensure_partitions, last_partitioned, log_history'),
        (worker,  'EXECUTE', 'append_events, ensure_partitions, last_partitioned, log_history'),
        (worker,  'EXECUTE', 'make_read_model, index_read_model, analyze_read_model, show_read_model, drop_read_model'),
        (monitor, 'EXECUTE', 'last_partitioned')
    ) AS list (role, rights, names) LOOP
        FOREACH name IN ARRAY string_to_array(g.names, ', ') LOOP
            IF to_regclass('public.' || name) IS NOT NULL THEN
                EXECUTE format('GRANT %s ON TABLE public.%I TO %I', g.rights, name, g.role);
            ELSIF to_regproc('public.' || name) IS NOT NULL THEN
                EXECUTE format('GRANT %s ON FUNCTION public.%I TO %I', g.rights, name, g.role);
            END IF;
        END LOOP;
    END LOOP;

    -- Read models: those that there are, and those that a rebuild makes.
    GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA readmodels TO usher_worker;
    GRANT SELECT ON ALL TABLES IN SCHEMA readmodels TO usher_api, usher_monitor;
    ALTER DEFAULT PRIVILEGES FOR ROLE usher_owner IN SCHEMA readmodels GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO usher_worker;
    ALTER DEFAULT PRIVILEGES FOR ROLE usher_owner IN SCHEMA readmodels GRANT SELECT ON TABLES TO usher_api, usher_monitor;
END $$;
COMMIT;
