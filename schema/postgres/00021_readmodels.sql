-- Read models in a schema of their own, whose tables belong to the owner of all others.
-- +goose Up

-- It is in nobody's search path. Nobody but the owner makes anything in it: whoever runs projections calls the functions
-- below, which take a table as a list of columns. A view or a policy of theirs would run what they like with the rights of
-- whoever queries it; a list of columns can't.
-- deploy/postgres/roles.sql makes it first, so that the owner needs no right to make schemas.
-- +goose StatementBegin
DO $$
BEGIN
    IF pg_catalog.to_regnamespace('readmodels') IS NULL THEN
        CREATE SCHEMA readmodels;
    END IF;
END $$;
-- +goose StatementEnd

-- The name of a table of a generation, or of the view of the live one where number is null.
-- +goose StatementBegin
CREATE FUNCTION read_model(name text, number int) RETURNS text LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog AS $$
BEGIN
    IF name !~ '^[a-z][a-z0-9_]{0,39}$' OR number <= 0 THEN
        RAISE invalid_parameter_value USING MESSAGE = format('%L is no name of a table of a read model', name);
    END IF;
    RETURN concat('readmodels.', name, '_', coalesce(number::text, 'live'));
END $$;
-- +goose StatementEnd

-- Makes a table: {"columns": [{"name", "type", "null"?, "bytewise"?, "unsampled"?}], "key": [names], "fill": percent}. Types
-- are those of Postgres itself: the input of another could run what its owner wrote.
-- +goose StatementBegin
CREATE FUNCTION make_read_model(name text, number int, definition jsonb) RETURNS int
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE
    made    text := public.read_model(name, number);
    c       record;
    columns text := '';
BEGIN
    FOR c IN
        SELECT d.name, d.type, t.oid, coalesce(d."null", false) AS nullable, coalesce(d.bytewise, false) AS bytewise
          FROM jsonb_to_recordset(definition -> 'columns') AS d(name text, type text, "null" boolean, bytewise boolean)
          LEFT JOIN pg_type t ON t.oid = to_regtype(d.type) AND t.typnamespace = 'pg_catalog'::regnamespace
    LOOP
        IF c.oid IS NULL THEN
            RAISE invalid_parameter_value USING MESSAGE = format('the type %L of %L is none of Postgres itself', c.type, c.name);
        END IF;
        columns := columns || format('%I %s%s%s, ', c.name, format_type(c.oid, NULL),
            CASE WHEN c.bytewise THEN ' COLLATE pg_catalog."C"' ELSE '' END, CASE WHEN c.nullable THEN '' ELSE ' NOT NULL' END);
    END LOOP;
    EXECUTE format('CREATE TABLE %s (%sPRIMARY KEY (%s)) WITH (fillfactor = %s)', made, columns,
        (SELECT string_agg(quote_ident(k), ', ' ORDER BY i)
           FROM jsonb_array_elements_text(definition -> 'key') WITH ORDINALITY AS e(k, i)),
        (definition ->> 'fill')::int);
    FOR c IN
        SELECT d.name FROM jsonb_to_recordset(definition -> 'columns') AS d(name text, unsampled boolean) WHERE d.unsampled
    LOOP
        EXECUTE format('ALTER TABLE %s ALTER COLUMN %I SET STATISTICS 0', made, c.name);
    END LOOP;
    RETURN 0;
END $$;
-- +goose StatementEnd

-- Makes an index of a table, unless it is there: {"name": what follows the table's, "columns": [names], "terms"?}. One of terms
-- is of what is in the lists that the column has; what is new waits in a list that every search reads through, so that is short.
-- +goose StatementBegin
CREATE FUNCTION index_read_model(name text, number int, definition jsonb) RETURNS int
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
    EXECUTE format(CASE WHEN (definition ->> 'terms')::boolean
            THEN 'CREATE INDEX IF NOT EXISTS %I ON %s USING gin (%s) WITH (gin_pending_list_limit = 256)'
            ELSE 'CREATE INDEX IF NOT EXISTS %I ON %s USING btree (%s)' END,
        concat(name, '_', number, '_', definition ->> 'name'), public.read_model(name, number),
        (SELECT string_agg(quote_ident(k), ', ' ORDER BY i)
           FROM jsonb_array_elements_text(definition -> 'columns') WITH ORDINALITY AS e(k, i)));
    RETURN 0;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE FUNCTION analyze_read_model(name text, number int) RETURNS int
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
    EXECUTE 'ANALYZE ' || public.read_model(name, number);
    RETURN 0;
END $$;
-- +goose StatementEnd

-- Lets the view of a table show a generation, or none.
-- +goose StatementBegin
CREATE FUNCTION show_read_model(name text, number int, given boolean) RETURNS int
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
    EXECUTE 'DROP VIEW IF EXISTS ' || public.read_model(name, NULL);
    IF given THEN
        EXECUTE format('CREATE VIEW %s AS SELECT * FROM %s', public.read_model(name, NULL), public.read_model(name, number));
    END IF;
    RETURN 0;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE FUNCTION drop_read_model(name text, number int) RETURNS int
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
    EXECUTE 'DROP TABLE IF EXISTS ' || public.read_model(name, number);
    RETURN 0;
END $$;
-- +goose StatementEnd

REVOKE ALL ON FUNCTION make_read_model, index_read_model, analyze_read_model, show_read_model, drop_read_model FROM PUBLIC;

-- Tables that are there move, if whoever migrates owns them. Those of another role (usher_worker, by an earlier
-- deploy/postgres/roles.sql) could have anything attached to them: roles.sql drops them, and the read models are filled anew
-- from the log when `usher project` starts.
-- +goose StatementBegin
DO $$
DECLARE
    path text := pg_catalog.current_setting('search_path');
    t    record;
BEGIN
    PERFORM pg_catalog.set_config('search_path', 'pg_catalog', true); -- what others may have put into public runs for nobody
    FOR t IN
        SELECT c.oid::regclass AS name, c.relkind FROM pg_class c
         WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'v') AND pg_get_userbyid(c.relowner) = current_user
           AND c.relname ~ '^(users|sessions|activity|stats|stats_active)_([0-9]+|live)$'
    LOOP
        EXECUTE format('ALTER %s %s SET SCHEMA readmodels', CASE t.relkind WHEN 'v' THEN 'VIEW' ELSE 'TABLE' END, t.name);
    END LOOP;
    IF EXISTS (SELECT FROM public.projections p WHERE to_regclass(format('readmodels.%I', p.name || '_' || p.generation)) IS NULL) THEN
        DELETE FROM public.projections;
        DELETE FROM public.projection_generations;
        DELETE FROM public.discarded_generations;
        DELETE FROM public.skipped_events;
        DELETE FROM public.parked_events;
    END IF;
    PERFORM set_config('search_path', path, true);
END $$;
-- +goose StatementEnd

-- +goose Down
DROP FUNCTION drop_read_model, show_read_model, analyze_read_model, index_read_model, make_read_model, read_model;
DROP SCHEMA readmodels CASCADE;
DELETE FROM public.projections;
DELETE FROM public.projection_generations;
