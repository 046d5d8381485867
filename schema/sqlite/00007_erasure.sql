-- Erasures, as in postgres/00007_erasure.sql.
-- +goose Up
CREATE TABLE erasures (
    subject      TEXT PRIMARY KEY,
    actor        TEXT NOT NULL,
    proven       INTEGER,
    requested_at TIMESTAMP NOT NULL,
    done_at      TIMESTAMP
) WITHOUT ROWID;
CREATE INDEX erasures_pending ON erasures (requested_at) WHERE done_at IS NULL;

-- +goose Down
DROP TABLE erasures;
