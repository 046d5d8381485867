-- What other services need: the times that signing keys live by, and clients.
-- +goose Up

-- A key is announced until signs_from, signs until the next one does, and verifies until the last token that it signed
-- has expired. Then its row goes.
ALTER TABLE signing_keys
    ADD signs_from    timestamptz,
    ADD token_seconds int NOT NULL DEFAULT 0;  -- the longest lifetime of its tokens, noted by each process that signs
UPDATE signing_keys SET signs_from = created_at;
ALTER TABLE signing_keys
    ALTER signs_from SET NOT NULL,
    ALTER token_seconds DROP DEFAULT;

-- The services that may ask about tokens. They are set up by operators; no event has to do with them.
CREATE TABLE clients (
    client_id   uuid PRIMARY KEY,
    name        text  NOT NULL UNIQUE,
    secret_hash bytea NOT NULL,        -- SHA-256: the secret is random enough to need nothing slower
    created_at  timestamptz NOT NULL
);

SELECT make_apply_state();

-- +goose Down
DROP TABLE clients;
ALTER TABLE signing_keys DROP signs_from, DROP token_seconds;
SELECT make_apply_state();
