-- What stands beside the log: identity's state tables, and the bookkeeping of relay, projections and leases.
-- +goose Up

-- The master keys that this database was ever sealed under, by an id that is derived from each. root is the deployment's own
-- secret, sealed under that key; it is the same in all rows, and null once a key is retired. The current key is the one to
-- seal with; beside it another is accepted while what it sealed is sealed anew.
CREATE TABLE master_keys (
    id         bytea PRIMARY KEY,
    root       bytea,
    state      text NOT NULL CHECK (state IN ('current', 'accepted', 'retired')),
    created_at timestamptz NOT NULL,
    CHECK ((root IS NULL) = (state = 'retired'))
);
CREATE UNIQUE INDEX master_keys_current ON master_keys (state) WHERE state = 'current';
-- Whoever starts first, of whatever role, says which key it has. Another is the owner's to add: beside one that nobody is
-- given nothing starts any more.
ALTER TABLE master_keys ENABLE ROW LEVEL SECURITY;
CREATE POLICY seen ON master_keys FOR SELECT USING (true);
CREATE POLICY first ON master_keys FOR INSERT WITH CHECK (state = 'current');

CREATE TABLE credentials (
    user_id    uuid PRIMARY KEY,
    hash       text  NOT NULL,         -- with its scheme tag
    history    jsonb,                  -- earlier hashes, the newest first; no more than PASSWORD_HISTORY asks for
    changed_at timestamptz NOT NULL    -- when the password changed, not when it was hashed anew
);
COMMENT ON TABLE credentials IS 'state table: what proves who a user is';

-- A session's refresh state. The refresh token is the id, the counter and a MAC over both under a key that is not here.
-- A session that has ended has no row.
CREATE TABLE sessions (
    session_id uuid PRIMARY KEY,
    user_id    uuid NOT NULL,
    counter    int  NOT NULL,          -- of the newest refresh token
    client     bytea,                  -- address and user agent of the last refresh, sealed with the user's own key
    started_at timestamptz NOT NULL,
    rotated_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,   -- at the latest, however often it is refreshed
    used_at    timestamptz,            -- when it was noticed that the answer of the last rotation has arrived
    late       int  NOT NULL           -- of the last rotations, the newest as the lowest bit, those that were asked for again late
) WITH (fillfactor = 80);              -- room for a rotation in place; its columns are in no index for the same reason
CREATE INDEX sessions_user ON sessions (user_id);
COMMENT ON TABLE sessions IS 'state table: the refresh state of sessions that go on';

-- Keys that sign access tokens, the private part sealed under the master key.
CREATE TABLE signing_keys (
    kid        text PRIMARY KEY,
    algorithm  text  NOT NULL,
    private    bytea NOT NULL,
    created_at timestamptz NOT NULL
);
COMMENT ON TABLE signing_keys IS 'state table: keys of access tokens';

-- One worker at a time: whoever holds the lease. epoch counts the holders, so that a late one can be told apart.
CREATE TABLE leases (
    name       text PRIMARY KEY,
    holder     text   NOT NULL,
    epoch      bigint NOT NULL,
    expires_at timestamptz NOT NULL
);

-- The relay's copy of its cursor, for monitoring and for noticing that the JetStream stream lost something, and the
-- durable consumers that have to be made again after a rebuild of the stream.
CREATE TABLE relay (
    stream     text PRIMARY KEY,
    published  bigint NOT NULL,
    state      text   NOT NULL,
    error      text   NOT NULL DEFAULT '',
    durables   jsonb,                  -- configurations and ack floors, while a rebuild is under way
    updated_at timestamptz NOT NULL
);

CREATE TABLE projections (
    name         text PRIMARY KEY,
    generation   int    NOT NULL,
    code_version int    NOT NULL,      -- of the code that filled the live generation
    checkpoint   bigint NOT NULL,
    epoch        bigint NOT NULL,      -- of the lease under which the checkpoint was last moved
    state        text   NOT NULL,
    error        text   NOT NULL DEFAULT '',
    updated_at   timestamptz NOT NULL
);

-- Events that a projection set aside: the poison event of a stream, and the later ones of the same user behind it.
CREATE TABLE parked_events (
    projection text   NOT NULL,
    position   bigint NOT NULL,
    subject    uuid   NOT NULL,
    error      text   NOT NULL,        -- empty for those that only wait behind another
    parked_at  timestamptz NOT NULL,
    PRIMARY KEY (projection, position)
);
CREATE INDEX parked_events_subject ON parked_events (projection, subject);

-- An append changes rows of state tables in its own transaction, through apply_state, which append_events calls once for
-- each table of a batch: with rows that are new, rows to put in the place of others or beside them, and rows to remove,
-- each a JSON array or null. A row names the number of its append, and nothing is done for an append that is refused.
-- New rows are a case of their own because ON CONFLICT looks every row up twice.
--
-- Its statements are static, so that their plans are kept, and all alike, so they are not written by hand:
-- make_apply_state makes it anew from the catalog, for every table whose comment begins with "state table". A migration
-- that adds or changes a state table calls it at its end. So does one that adds any other table with a column user_id: it
-- makes erase_state as well, which removes the rows of erased users from all tables that have such a column. The column has
-- to be the first of an index.
-- +goose StatementBegin
CREATE FUNCTION make_apply_state() RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog AS $make$
DECLARE
    t     record;
    cases text := '';
BEGIN
    FOR t IN
        SELECT c.relname AS name,
               string_agg(format('%I', a.attname), ', ' ORDER BY a.attnum) AS columns,
               string_agg(format('r.%I', a.attname), ', ' ORDER BY a.attnum) AS fields,
               string_agg(format('%I %s', a.attname, format_type(a.atttypid, a.atttypmod)), ', ' ORDER BY a.attnum) AS types,
               string_agg(format('%1$I = excluded.%1$I', a.attname), ', ' ORDER BY a.attnum) FILTER (WHERE NOT k.is_key) AS replaced,
               string_agg(format('%I', a.attname), ', ' ORDER BY a.attnum) FILTER (WHERE k.is_key) AS key,
               string_agg(format('r.%I', a.attname), ', ' ORDER BY a.attnum) FILTER (WHERE k.is_key) AS key_fields,
               string_agg(format('%I %s', a.attname, format_type(a.atttypid, a.atttypmod)), ', ' ORDER BY a.attnum)
                   FILTER (WHERE k.is_key) AS key_types,
               string_agg(format('t.%1$I = r.%1$I', a.attname), ' AND ' ORDER BY a.attnum) FILTER (WHERE k.is_key) AS same
          FROM pg_class c
          JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary
          JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
         CROSS JOIN LATERAL (SELECT a.attnum = ANY (i.indkey::int2[]) AS is_key) k
         WHERE c.relnamespace = 'public'::regnamespace AND obj_description(c.oid, 'pg_class') LIKE 'state table%'
         GROUP BY c.oid, c.relname
         ORDER BY c.oid -- the oldest first, which are those that most appends change
    LOOP
        cases := cases || format($case$
        WHEN %1$L THEN
            IF fresh IS NOT NULL THEN
                INSERT INTO public.%1$I (%2$s)
                SELECT %3$s FROM jsonb_to_recordset(fresh) r(append int, %4$s)
                 WHERE refused[r.append] IS NOT TRUE;
            END IF;
            IF put IS NOT NULL THEN
                INSERT INTO public.%1$I (%2$s)
                SELECT %3$s FROM jsonb_to_recordset(put) r(append int, %4$s)
                 WHERE refused[r.append] IS NOT TRUE ORDER BY %5$s
                    ON CONFLICT (%6$s) DO %7$s;
            END IF;
            IF removed IS NOT NULL THEN
                DELETE FROM public.%1$I t USING jsonb_to_recordset(removed) r(append int, %8$s)
                 WHERE refused[r.append] IS NOT TRUE AND %9$s;
            END IF;$case$,
            t.name, t.columns, t.fields, t.types, t.key_fields, t.key, coalesce('UPDATE SET ' || t.replaced, 'NOTHING'),
            t.key_types, t.same);
    END LOOP;
    EXECUTE format($function$
CREATE OR REPLACE FUNCTION public.apply_state(state_table text, fresh jsonb, put jsonb, removed jsonb, refused boolean[])
RETURNS int LANGUAGE plpgsql SET search_path = pg_catalog AS $body$
BEGIN
    CASE state_table%s
    END CASE; -- an unknown table is an error
    RETURN 0;
END $body$;
$function$, cases);
    EXECUTE format($function$
CREATE OR REPLACE FUNCTION public.erase_state(users uuid[]) RETURNS int LANGUAGE plpgsql SET search_path = pg_catalog AS $body$
BEGIN%s
    RETURN 0;
END $body$;
$function$,
        (SELECT string_agg(format(E'\n    DELETE FROM public.%I WHERE user_id = ANY (users);', c.relname), '' ORDER BY c.relname)
           FROM pg_class c
           JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'user_id' AND NOT a.attisdropped
          WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r'));
END $make$;
-- +goose StatementEnd
SELECT make_apply_state();

-- +goose Down
DROP FUNCTION apply_state, erase_state, make_apply_state;
DROP TABLE parked_events, projections, relay, leases, signing_keys, sessions, credentials, master_keys;
