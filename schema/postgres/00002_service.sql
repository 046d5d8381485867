-- What stands beside the log: identity's state tables, and the bookkeeping of relay, projections and leases.
-- +goose Up

-- One row: what this database belongs to. key_check is derived from the master key, so that a start with another
-- master key is noticed before anything is sealed with it.
CREATE TABLE deployment (
    id         int PRIMARY KEY CHECK (id = 1),
    key_check  bytea NOT NULL,
    created_at timestamptz NOT NULL
);

CREATE TABLE credentials (
    user_id    uuid PRIMARY KEY,
    hash       text NOT NULL,          -- with its scheme tag
    changed_at timestamptz NOT NULL
);

-- A session's refresh state. The refresh token is the id, the counter and a MAC over both under a key that is not here.
CREATE TABLE sessions (
    session_id uuid PRIMARY KEY,
    user_id    uuid NOT NULL,
    counter    int  NOT NULL,
    started_at timestamptz NOT NULL,
    rotated_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL
);
CREATE INDEX sessions_user ON sessions (user_id);

-- Keys that sign access tokens, the private part sealed under the master key.
CREATE TABLE signing_keys (
    kid        text PRIMARY KEY,
    algorithm  text  NOT NULL,
    private    bytea NOT NULL,
    created_at timestamptz NOT NULL
);

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

-- Applies the changes of one state table for append_events: rows that are new, rows to put in the place of others or
-- beside them, and rows to remove, each a JSON array or null. A row names the number of its append, and nothing is
-- done for an append that is not written. New rows are a case of their own because ON CONFLICT looks every row up twice.
-- A migration that adds a state table replaces this function with one that knows it.
-- +goose StatementBegin
CREATE FUNCTION apply_state(state_table text, fresh jsonb, put jsonb, removed jsonb, written boolean[])
RETURNS int LANGUAGE plpgsql AS $$
BEGIN
    CASE state_table
        WHEN 'user_keys' THEN
            IF fresh IS NOT NULL THEN
                INSERT INTO user_keys (user_id, wrapped)
                SELECT r.user_id, r.wrapped
                  FROM jsonb_to_recordset(fresh) r(append int, user_id uuid, wrapped bytea)
                 WHERE written[r.append];
            END IF;
            IF put IS NOT NULL THEN
                INSERT INTO user_keys (user_id, wrapped)
                SELECT r.user_id, r.wrapped
                  FROM jsonb_to_recordset(put) r(append int, user_id uuid, wrapped bytea)
                 WHERE written[r.append] ORDER BY r.user_id
                    ON CONFLICT (user_id) DO UPDATE SET wrapped = excluded.wrapped;
            END IF;
            IF removed IS NOT NULL THEN
                DELETE FROM user_keys t USING jsonb_to_recordset(removed) r(append int, user_id uuid)
                 WHERE written[r.append] AND t.user_id = r.user_id;
            END IF;
        WHEN 'credentials' THEN
            IF fresh IS NOT NULL THEN
                INSERT INTO credentials (user_id, hash, changed_at)
                SELECT r.user_id, r.hash, r.changed_at
                  FROM jsonb_to_recordset(fresh) r(append int, user_id uuid, hash text, changed_at timestamptz)
                 WHERE written[r.append];
            END IF;
            IF put IS NOT NULL THEN
                INSERT INTO credentials (user_id, hash, changed_at)
                SELECT r.user_id, r.hash, r.changed_at
                  FROM jsonb_to_recordset(put) r(append int, user_id uuid, hash text, changed_at timestamptz)
                 WHERE written[r.append] ORDER BY r.user_id
                    ON CONFLICT (user_id) DO UPDATE SET hash = excluded.hash, changed_at = excluded.changed_at;
            END IF;
            IF removed IS NOT NULL THEN
                DELETE FROM credentials t USING jsonb_to_recordset(removed) r(append int, user_id uuid)
                 WHERE written[r.append] AND t.user_id = r.user_id;
            END IF;
        WHEN 'sessions' THEN
            IF fresh IS NOT NULL THEN
                INSERT INTO sessions (session_id, user_id, counter, started_at, rotated_at, expires_at)
                SELECT r.session_id, r.user_id, r.counter, r.started_at, r.rotated_at, r.expires_at
                  FROM jsonb_to_recordset(fresh) r(append int, session_id uuid, user_id uuid, counter int, started_at timestamptz, rotated_at timestamptz, expires_at timestamptz)
                 WHERE written[r.append];
            END IF;
            IF put IS NOT NULL THEN
                INSERT INTO sessions (session_id, user_id, counter, started_at, rotated_at, expires_at)
                SELECT r.session_id, r.user_id, r.counter, r.started_at, r.rotated_at, r.expires_at
                  FROM jsonb_to_recordset(put) r(append int, session_id uuid, user_id uuid, counter int, started_at timestamptz, rotated_at timestamptz, expires_at timestamptz)
                 WHERE written[r.append] ORDER BY r.session_id
                    ON CONFLICT (session_id) DO UPDATE SET counter = excluded.counter, rotated_at = excluded.rotated_at, expires_at = excluded.expires_at;
            END IF;
            IF removed IS NOT NULL THEN
                DELETE FROM sessions t USING jsonb_to_recordset(removed) r(append int, session_id uuid)
                 WHERE written[r.append] AND t.session_id = r.session_id;
            END IF;
        WHEN 'signing_keys' THEN
            IF fresh IS NOT NULL THEN
                INSERT INTO signing_keys (kid, algorithm, private, created_at)
                SELECT r.kid, r.algorithm, r.private, r.created_at
                  FROM jsonb_to_recordset(fresh) r(append int, kid text, algorithm text, private bytea, created_at timestamptz)
                 WHERE written[r.append];
            END IF;
            IF put IS NOT NULL THEN
                INSERT INTO signing_keys (kid, algorithm, private, created_at)
                SELECT r.kid, r.algorithm, r.private, r.created_at
                  FROM jsonb_to_recordset(put) r(append int, kid text, algorithm text, private bytea, created_at timestamptz)
                 WHERE written[r.append] ORDER BY r.kid
                    ON CONFLICT (kid) DO UPDATE SET algorithm = excluded.algorithm, private = excluded.private, created_at = excluded.created_at;
            END IF;
            IF removed IS NOT NULL THEN
                DELETE FROM signing_keys t USING jsonb_to_recordset(removed) r(append int, kid text)
                 WHERE written[r.append] AND t.kid = r.kid;
            END IF;
    END CASE; -- an unknown table is an error
    RETURN 0;
END $$;
-- +goose StatementEnd

-- +goose Down
DROP FUNCTION apply_state;
DROP TABLE parked_events, projections, relay, leases, signing_keys, sessions, credentials, deployment;
