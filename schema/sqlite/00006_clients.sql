-- What other services need, as in postgres/00006_clients.sql.
-- +goose Up
ALTER TABLE signing_keys RENAME TO signing_keys_before;
CREATE TABLE signing_keys (
    kid           TEXT PRIMARY KEY,
    algorithm     TEXT NOT NULL,
    private       BLOB NOT NULL,
    created_at    TIMESTAMP NOT NULL,
    signs_from    TIMESTAMP NOT NULL,
    token_seconds INTEGER NOT NULL
) WITHOUT ROWID;
INSERT INTO signing_keys SELECT kid, algorithm, private, created_at, created_at, 0 FROM signing_keys_before;
DROP TABLE signing_keys_before;

CREATE TABLE clients (
    client_id   TEXT PRIMARY KEY,
    name        TEXT NOT NULL UNIQUE,
    secret_hash BLOB NOT NULL,
    created_at  TIMESTAMP NOT NULL
) WITHOUT ROWID;

-- +goose Down
DROP TABLE clients;
ALTER TABLE signing_keys DROP COLUMN token_seconds;
ALTER TABLE signing_keys DROP COLUMN signs_from;
