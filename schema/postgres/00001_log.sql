-- The log: events, the streams they belong to, and everything that one append changes in one transaction.
-- +goose Up

-- Events are only ever inserted, only by append_events below, and in the order of their positions. There is no default
-- partition: a position without a partition is an error (ensure_partitions makes them ahead of need), because rows in
-- a default partition would have to be scanned each time a partition is attached.
CREATE TABLE events (
    position       bigint      NOT NULL,
    stream         uuid        NOT NULL,
    kind           text        NOT NULL,
    subject        uuid,                  -- the user; null in system streams
    version        int         NOT NULL,
    event_id       uuid        NOT NULL,
    type           text        NOT NULL,
    schema_version smallint    NOT NULL,
    data           jsonb       NOT NULL,  -- the fields that are not personal
    personal       bytea,                 -- the personal ones, sealed with their user's own key
    metadata       jsonb       NOT NULL,
    recorded_at    timestamptz NOT NULL,  -- never before that of an earlier position
    PRIMARY KEY (position)
) PARTITION BY RANGE (position);

CREATE TABLE streams (
    stream  uuid PRIMARY KEY,
    kind    text NOT NULL,                 -- user, session, client, system
    version int  NOT NULL,
    state   text NOT NULL DEFAULT 'open'   -- open, archived, erased
) WITH (fillfactor = 80); -- room for the version to change in place

-- A unique value that a stream holds. The key is an HMAC of the value, so it gives no address away.
CREATE TABLE reservations (
    scope  text  NOT NULL,
    key    bytea NOT NULL,
    stream uuid  NOT NULL,
    PRIMARY KEY (scope, key)
);
CREATE INDEX reservations_stream ON reservations (stream);

-- What an append with a command id answered, so that it can answer the same again.
CREATE TABLE commands (
    command_id  uuid PRIMARY KEY,
    position    bigint NOT NULL,
    version     int    NOT NULL,
    recorded_at timestamptz NOT NULL
);

-- The user's data key, wrapped by the master key. Destroying the row makes the user's sealed fields unreadable.
CREATE TABLE user_keys (
    user_id uuid PRIMARY KEY,
    wrapped bytea NOT NULL
);
COMMENT ON TABLE user_keys IS 'state table: removed by the append that erases its user';

-- The last position that has a partition; 0 where there are none.
-- +goose StatementBegin
CREATE FUNCTION last_partitioned() RETURNS bigint LANGUAGE sql STABLE SET search_path = pg_catalog AS $$
    SELECT coalesce(max((regexp_match(pg_get_expr(c.relpartbound, c.oid), 'TO [(]''([0-9]+)''[)]'))[1]::bigint), 1) - 1
      FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
     WHERE i.inhparent = 'public.events'::regclass
$$;
-- +goose StatementEnd

-- Makes partitions until there is one for every position up to wanted. A table is made alone and then attached, which
-- does not stop readers or writers; the lock makes two callers take turns.
-- (stream, version) is unique in each partition; across them the row in streams guards it.
--
-- Tables without end would fill the catalogue, and every append looks through it. So only the owner may have them of any size
-- and number; everybody else makes those of the usual size, and no further than two of them ahead of the head.
-- +goose StatementBegin
CREATE FUNCTION ensure_partitions(wanted bigint, size bigint DEFAULT 10000000) RETURNS int
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE
    made  int := 0;
    start bigint;
    name  text;
BEGIN
    IF NOT pg_has_role(session_user, current_user, 'MEMBER') AND
       (size IS DISTINCT FROM 10000000 OR wanted > 20000000 + coalesce((SELECT e.position FROM public.events e ORDER BY e.position DESC LIMIT 1), 0)) THEN
        RAISE insufficient_privilege USING MESSAGE = format('%I may make partitions of 10000000 positions, for two of them ahead of the head', session_user);
    END IF;
    PERFORM pg_advisory_xact_lock(7236002);
    start := public.last_partitioned() + 1;
    WHILE start <= wanted LOOP
        name := 'events_' || lpad(start::text, 12, '0');
        EXECUTE format('CREATE TABLE public.%I (LIKE public.events INCLUDING DEFAULTS)', name);
        EXECUTE format('ALTER TABLE public.%I ADD PRIMARY KEY (position)', name);
        EXECUTE format('CREATE UNIQUE INDEX ON public.%I (stream, version)', name);
        EXECUTE format('CREATE INDEX ON public.%I (subject, position) WHERE subject IS NOT NULL', name);
        EXECUTE format('ALTER TABLE public.events ATTACH PARTITION public.%I FOR VALUES FROM (%s) TO (%s)', name, start, start + size);
        start := start + size;
        made := made + 1;
    END LOOP;
    RETURN made;
END $$;
-- +goose StatementEnd
SELECT ensure_partitions(20000000);

-- append_events is the only writer of events, and has the rights of its owner, so that nobody else needs any on what it writes.
-- Whoever may not write credentials, as the processes beside the API may not, appends what is about no user: what became of
-- projections, of webhooks and of the log. It decides on a batch of appends and writes those that may be written,
-- in the transaction of the one statement that calls it; nothing else may run in that transaction.
--
-- Order is what it is for. Whoever holds the lock is alone, and commits before letting go of it, so positions are given
-- in commit order, without gaps, and every snapshot of events is a prefix of the log. The head must be read by a
-- statement that begins after the lock was taken: each statement of a volatile function has a snapshot of its own, while
-- the calling statement's was taken before it waited.
--
-- Most batches have no append that must be refused, and what is written shows that: a stream that is new or has the
-- expected version, a value that nobody holds, a command that was not there. So it writes at once, and fails with
-- unique_violation or serialization_failure where something does not fit. Its caller then calls it again with careful, and
-- it looks everything up before it writes what may be written. What it can't decide without looking needs careful at once:
-- an append to any version, or one that erases.
--
-- The batch comes as columns: a_ of appends, e_ of events, h_ of values to hold, l_ of values to let go, g_ of streams that
-- appends are given, s_ of state changes, one row a table. What belongs to an append names it by its number from 1, and comes
-- in the order of those; a_events is how many events an append has, which stand together, and a_last the number of the last
-- one. Columns without rows are null, which costs nothing to send. A batch has at most one append to a stream, for a
-- reservation, and for a command id: callers see to it.
--
-- What an append is given are other streams that it was decided on: it is refused where one of them is not at its g_version
-- any more, and where that is null only if the stream's user is erased. An append of the same batch counts for those behind it.
--
-- It answers with the head of the log before the batch, and where it was careful with three numbers more for each append:
-- the verdict, its last position, its last version. Verdicts are 0 written, 1 repeated, 2 conflict (version: the actual
-- one), 3 reserved (version: which value, from 1), 4 closed, 5 stale (version: which of the given streams, from 1).
--
-- An append with a_erase forgets its subject: the stream is erased, what it held is let go of, and so are the rows that
-- state tables have of the user (erase_state), whoever wrote them and when. They are found here, under the lock, because
-- whoever wishes for the erasure can't know of those that are written meanwhile. An erased user's sessions have streams of
-- their own, so an append to one of those is always given the user's.
--
-- The callers of a batch wait for every statement in here, and the next batch for all of them. A statement costs some
-- 20 us before it touches a row, an expression half a us, anew in each transaction; so there are few, and those with
-- nothing to do are left out. Rows come from one generate_series and subscripts, which cost nothing on a function's
-- arguments; unnest fills a tuplestore a column.
--
-- It brings the settings that it needs, since a pooler gives each transaction any connection. It waits half as long for its turn as
-- its caller waits for it, so that the outcome is known where it gives up. Batches are of every size, over tables that
-- grow: one plan for all of them is as good as any, since every row is looked up by its key; planning anew would cost more
-- than running, and a plan made while the tables are small must not scan them once they are large.
-- +goose StatementBegin
CREATE FUNCTION append_events(
    careful boolean,
    a_stream uuid[], a_subject uuid[], a_kind text[], a_expected int[], a_events int[], a_last int[], a_metadata jsonb[],
    a_key bytea[], a_command uuid[], a_erase boolean[],
    e_append int[], e_id uuid[], e_type text[], e_schema smallint[], e_data jsonb[], e_personal bytea[],
    h_append int[], h_scope text[], h_key bytea[],
    l_append int[], l_scope text[], l_key bytea[],
    g_append int[], g_stream uuid[], g_version int[],
    s_table text[], s_new jsonb[], s_put jsonb[], s_removed jsonb[]
) RETURNS bigint[] LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog SET lock_timeout = '15s' SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
DECLARE
    locked    boolean := pg_advisory_xact_lock(7236001) IS NULL; -- which costs a tenth of a PERFORM
    head      bigint;
    moment    timestamptz;
    versions  int[] := a_expected; -- that the streams have
    answers   bigint[];
    refused   boolean[];           -- true for an append that is not written; null where none is
    dropped   int[];               -- events of the appends before it that are not; null where there are none
    holders   uuid[];              -- of values to hold; null is nobody
    gone      uuid[];              -- users whom this batch erases
    found     int[];               -- versions of the given streams; -1 where a user is erased
    given     int := 1;            -- the next of them
    stale     int;                 -- which of an append's, from 1; null for none
    void      boolean;             -- one of an append's is of an erased user
    other     int;                 -- the append to one of them
    reserved  int[];
    positions bigint[];
    verdict   int;
    lost      int;
    done      int;
    first     record;
BEGIN
    IF NOT has_table_privilege(session_user, 'public.credentials', 'INSERT') THEN
        IF 'system' <> ANY (a_kind) OR array_remove(a_subject, NULL) <> '{}'
           OR h_append IS NOT NULL OR l_append IS NOT NULL OR a_key IS NOT NULL OR true = ANY (a_erase) OR 'webhook_states' <> ANY (s_table)
           OR EXISTS (SELECT FROM unnest(e_type) t WHERE t !~ '^(projection|webhook|log)[.][a-z_]+$')
           OR EXISTS (SELECT FROM public.streams t WHERE t.stream = ANY (a_stream) AND t.kind <> 'system') THEN
            RAISE insufficient_privilege USING MESSAGE = format('%I may append nothing about users', session_user);
        END IF;
    END IF;

    SELECT e.position, greatest(e.recorded_at, clock_timestamp()) INTO head, moment FROM public.events e ORDER BY e.position DESC LIMIT 1;
    IF head IS NULL THEN
        head := 0;
        moment := clock_timestamp();
    END IF;

    IF careful THEN
        answers := ARRAY[head];
        -- The version of a stream that is not open is given as negative.
        SELECT ARRAY(SELECT coalesce((SELECT CASE t.state WHEN 'open' THEN t.version ELSE -t.version END
                                        FROM public.streams t WHERE t.stream = a_stream[i]), 0)
                       FROM generate_series(1, cardinality(a_stream)) i),
               ARRAY(SELECT (SELECT t.stream FROM public.reservations t WHERE t.scope = h_scope[k] AND t.key = h_key[k])
                       FROM generate_series(1, coalesce(cardinality(h_append), 0)) k),
               ARRAY(SELECT coalesce((SELECT CASE t.state WHEN 'erased' THEN -1 ELSE t.version END
                                        FROM public.streams t WHERE t.stream = g_stream[k]), 0)
                       FROM generate_series(1, coalesce(cardinality(g_append), 0)) k)
          INTO versions, holders, found;
        FOR k IN REVERSE coalesce(cardinality(h_append), 0) .. 1 LOOP
            IF holders[k] <> a_stream[h_append[k]] THEN
                reserved[h_append[k]] := k - array_position(h_append, h_append[k]) + 1;
            END IF;
        END LOOP;
        IF a_command IS NOT NULL THEN
            FOR first IN
                SELECT i, c.position, c.version
                  FROM generate_series(1, cardinality(a_command)) i
                  JOIN LATERAL (SELECT * FROM public.commands t WHERE t.command_id = a_command[i] LIMIT 1) c ON true
            LOOP
                positions[first.i] := first.position;
                versions[first.i] := first.version;
            END LOOP;
        END IF;
        lost := 0;
        FOR i IN 1 .. cardinality(a_stream) LOOP
            stale := NULL;
            void := false;
            done := given - 1;
            WHILE g_append[given] = i LOOP
                other := array_position(a_stream, g_stream[given]);
                IF other < i AND refused[other] IS NOT TRUE THEN -- it is written already, as it were
                    found[given] := versions[other] + a_events[other];
                END IF;
                void := void OR found[given] < 0 OR g_stream[given] = ANY (coalesce(gone, '{}'));
                IF found[given] <> g_version[given] THEN
                    stale := coalesce(stale, given - done);
                END IF;
                given := given + 1;
            END LOOP;
            -- A repeated command answers as the first time, whatever else it asks for.
            verdict := CASE WHEN positions[i] IS NOT NULL THEN 1
                            WHEN versions[i] < 0 OR void THEN 4
                            WHEN a_expected[i] >= 0 AND a_expected[i] <> versions[i] THEN 2
                            WHEN stale IS NOT NULL THEN 5
                            WHEN reserved[i] IS NOT NULL THEN 3
                            ELSE 0 END;
            dropped[i] := lost;
            IF verdict = 0 THEN
                answers := answers || ARRAY[0, head + a_last[i] - lost, versions[i] + a_events[i]];
                IF a_erase[i] THEN gone := gone || a_stream[i]; END IF;
            ELSE
                lost := lost + a_events[i];
                refused[i] := true;
                answers := answers || ARRAY[verdict, coalesce(positions[i], 0),
                                           CASE verdict WHEN 3 THEN reserved[i] WHEN 5 THEN stale ELSE versions[i] END];
            END IF;
        END LOOP;
        IF lost = a_last[cardinality(a_last)] THEN
            RETURN answers;
        END IF;
    END IF;

    -- ON CONFLICT would look every row up a second time.
    IF 0 = ANY (versions) THEN
        INSERT INTO public.streams (stream, kind, version)
        SELECT a_stream[i], a_kind[i], a_events[i] FROM generate_series(1, cardinality(a_stream)) i
         WHERE versions[i] = 0 AND refused[i] IS NOT TRUE;
    END IF;
    IF 0 < ANY (versions) THEN
        UPDATE public.streams t SET version = versions[i] + a_events[i] FROM generate_series(1, cardinality(a_stream)) i
         WHERE versions[i] > 0 AND refused[i] IS NOT TRUE AND t.stream = a_stream[i] AND t.version = versions[i] AND t.state = 'open';
        GET DIAGNOSTICS done = ROW_COUNT;
        IF NOT careful AND done < cardinality(array_remove(versions, 0)) THEN
            RAISE serialization_failure USING MESSAGE = 'a stream is closed, or has not the version that an append expects';
        END IF;
    END IF;
    IF NOT careful AND g_append IS NOT NULL THEN -- nested: an expression with a query in it is a statement
        IF EXISTS (SELECT FROM generate_series(1, cardinality(g_append)) k LEFT JOIN public.streams t ON t.stream = g_stream[k]
                    WHERE t.state = 'erased' OR coalesce(t.version, 0) <> g_version[k]) THEN
            RAISE serialization_failure USING MESSAGE = 'a given stream is not at its version any more, or its user is erased';
        END IF;
    END IF;

    INSERT INTO public.events (position, stream, kind, subject, version, event_id, type, schema_version, data, personal,
                        metadata, recorded_at)
    SELECT head + k - coalesce(dropped[e_append[k]], 0), a_stream[e_append[k]], a_kind[e_append[k]], a_subject[e_append[k]],
           versions[e_append[k]] + a_events[e_append[k]] - a_last[e_append[k]] + k, e_id[k], e_type[k], e_schema[k], e_data[k],
           e_personal[k], a_metadata[e_append[k]], moment
      FROM generate_series(1, cardinality(e_append)) k
     WHERE refused[e_append[k]] IS NOT TRUE;

    IF l_append IS NOT NULL THEN
        DELETE FROM public.reservations t USING generate_series(1, cardinality(l_append)) k
         WHERE refused[l_append[k]] IS NOT TRUE AND t.scope = l_scope[k] AND t.key = l_key[k] AND t.stream = a_stream[l_append[k]]
           AND NOT EXISTS (SELECT FROM generate_series(1, cardinality(h_append)) h -- held again by the same append
                            WHERE h_append[h] = l_append[k] AND h_scope[h] = l_scope[k] AND h_key[h] = l_key[k]);
    END IF;
    IF h_append IS NOT NULL THEN
        INSERT INTO public.reservations (scope, key, stream)
        SELECT h_scope[k], h_key[k], a_stream[h_append[k]] FROM generate_series(1, cardinality(h_append)) k
         WHERE refused[h_append[k]] IS NOT TRUE AND holders[k] IS NULL;
    END IF;
    IF a_key IS NOT NULL THEN
        INSERT INTO public.user_keys (user_id, wrapped)
        SELECT a_subject[i], a_key[i] FROM generate_series(1, cardinality(a_key)) i
         WHERE refused[i] IS NOT TRUE AND a_key[i] IS NOT NULL;
    END IF;
    FOR k IN 1 .. coalesce(cardinality(s_table), 0) LOOP
        done := public.apply_state(s_table[k], s_new[k], s_put[k], s_removed[k], refused);
    END LOOP;
    IF gone IS NOT NULL THEN -- after what the same batch wrote of the same user
        UPDATE public.streams t SET state = 'erased' WHERE t.stream = ANY (gone);
        DELETE FROM public.reservations t WHERE t.stream = ANY (gone)
           AND NOT EXISTS (SELECT FROM generate_series(1, coalesce(cardinality(h_append), 0)) h
                            WHERE a_stream[h_append[h]] = t.stream AND h_scope[h] = t.scope AND h_key[h] = t.key);
        done := public.erase_state(gone);
    END IF;
    IF a_command IS NOT NULL THEN
        INSERT INTO public.commands (command_id, position, version, recorded_at)
        SELECT a_command[i], head + a_last[i] - coalesce(dropped[i], 0), versions[i] + a_events[i], moment
          FROM generate_series(1, cardinality(a_command)) i
         WHERE a_command[i] IS NOT NULL AND refused[i] IS NOT TRUE;
    END IF;
    RETURN coalesce(answers, ARRAY[head]);
END $$;
-- +goose StatementEnd

-- +goose Down
DROP FUNCTION append_events, ensure_partitions, last_partitioned;
DROP TABLE user_keys, commands, reservations, streams, events;
