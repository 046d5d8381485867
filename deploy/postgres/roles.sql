-- Least privilege: who may do what in usher's database. Run it as a superuser, in that database, once before the first
-- `usher migrate up` and again after every one, since it also grants what new tables need:
--
--   psql "$ADMIN_URL" -v ON_ERROR_STOP=1 -f roles.sql
--   psql "$ADMIN_URL" -c "ALTER ROLE usher_owner LOGIN PASSWORD '…'" -c "ALTER ROLE usher_api LOGIN PASSWORD '…'" …
--
--   usher_owner    owns the tables: `usher migrate up`, `usher outbox reset`, and nothing else
--   usher_api      `usher serve`, and the commands that change users
--   usher_worker   `usher publish`, `usher project`, `usher webhooks run`; owns the tables of read models, and so does what
--                  is asked of them: by `usher projections …`, `usher purge`, and the API, which has no right on them
--   usher_monitor  reads: `usher check`, `usher … list`, `usher events tail`
--
-- Nobody but the owner can change or delete an event: the log is append-only for the service itself.
DO $$
DECLARE
    role text;
BEGIN
    FOREACH role IN ARRAY ARRAY['usher_owner', 'usher_api', 'usher_worker', 'usher_monitor'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role) THEN
            EXECUTE format('CREATE ROLE %I NOSUPERUSER NOCREATEDB NOCREATEROLE', role);
        END IF;
        EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), role);
    END LOOP;
END $$;

REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO usher_api, usher_worker, usher_monitor;
GRANT USAGE, CREATE ON SCHEMA public TO usher_owner, usher_worker;

-- What a migration or a rebuild makes later can be read by those who query it.
ALTER DEFAULT PRIVILEGES FOR ROLE usher_owner IN SCHEMA public GRANT SELECT ON TABLES TO usher_api, usher_worker, usher_monitor;
ALTER DEFAULT PRIVILEGES FOR ROLE usher_worker IN SCHEMA public GRANT SELECT ON TABLES TO usher_api, usher_monitor;

DO $$
DECLARE
    t record;
BEGIN
    IF to_regclass('public.events') IS NULL THEN
        RETURN; -- before the first migration
    END IF;
    FOR t IN
        SELECT c.oid::regclass AS name, c.relname, c.relkind, c.relispartition, pg_get_userbyid(c.relowner) AS owner
          FROM pg_class c
         WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v')
    LOOP
        EXECUTE format('GRANT SELECT ON %s TO usher_api, usher_worker, usher_monitor', t.name);
        CONTINUE WHEN t.relispartition OR t.owner <> 'usher_owner';
        CASE t.relname
            WHEN 'events' THEN
                EXECUTE 'GRANT INSERT ON events TO usher_api, usher_worker';
            WHEN 'commands' THEN
                EXECUTE 'GRANT INSERT, DELETE ON commands TO usher_api, usher_worker'; -- old ones are forgotten
            WHEN 'relay_orders' THEN
                EXECUTE 'GRANT DELETE ON relay_orders TO usher_worker'; -- it does them; only the owner gives them
            WHEN 'migrations' THEN
                NULL;
            ELSE
                EXECUTE format('GRANT INSERT, UPDATE, DELETE ON %s TO usher_api, usher_worker', t.name);
        END CASE;
    END LOOP;
END $$;

-- Partitions are made ahead of need by whoever appends, which takes the owner's rights: the function has them, and does
-- nothing else with them.
DO $$
BEGIN
    IF to_regproc('public.ensure_partitions') IS NOT NULL THEN
        ALTER FUNCTION public.ensure_partitions(bigint, bigint) SECURITY DEFINER SET search_path = public, pg_temp;
        REVOKE ALL ON FUNCTION public.ensure_partitions(bigint, bigint) FROM PUBLIC;
        GRANT EXECUTE ON FUNCTION public.ensure_partitions(bigint, bigint) TO usher_owner, usher_api, usher_worker;
    END IF;
END $$;
