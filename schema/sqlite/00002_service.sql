-- What stands beside the log, as in postgres/00002_service.sql.
-- +goose Up
CREATE TABLE master_keys (
    id         BLOB PRIMARY KEY,
    root       BLOB,
    state      TEXT NOT NULL CHECK (state IN ('current', 'accepted', 'retired')),
    created_at TIMESTAMP NOT NULL,
    CHECK ((root IS NULL) = (state = 'retired'))
) WITHOUT ROWID;
CREATE UNIQUE INDEX master_keys_current ON master_keys (state) WHERE state = 'current';

CREATE TABLE credentials (
    user_id    TEXT PRIMARY KEY,
    hash       TEXT NOT NULL,
    history    TEXT,
    changed_at TIMESTAMP NOT NULL
) WITHOUT ROWID;

CREATE TABLE sessions (
    session_id TEXT PRIMARY KEY,
    user_id    TEXT NOT NULL,
    counter    INTEGER NOT NULL,
    client     BLOB,
    started_at TIMESTAMP NOT NULL,
    rotated_at TIMESTAMP NOT NULL,
    expires_at TIMESTAMP NOT NULL,
    used_at    TIMESTAMP,
    late       INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX sessions_user ON sessions (user_id);

CREATE TABLE signing_keys (
    kid        TEXT PRIMARY KEY,
    algorithm  TEXT NOT NULL,
    private    BLOB NOT NULL,
    created_at TIMESTAMP NOT NULL
) WITHOUT ROWID;

CREATE TABLE leases (
    name       TEXT PRIMARY KEY,
    holder     TEXT NOT NULL,
    epoch      INTEGER NOT NULL,
    expires_at TIMESTAMP NOT NULL
) WITHOUT ROWID;

CREATE TABLE relay (
    stream     TEXT PRIMARY KEY,
    published  INTEGER NOT NULL,
    state      TEXT NOT NULL,
    error      TEXT NOT NULL DEFAULT '',
    durables   TEXT,
    updated_at TIMESTAMP NOT NULL
) WITHOUT ROWID;

CREATE TABLE projections (
    name         TEXT PRIMARY KEY,
    generation   INTEGER NOT NULL,
    code_version INTEGER NOT NULL,
    checkpoint   INTEGER NOT NULL,
    epoch        INTEGER NOT NULL,
    state        TEXT NOT NULL,
    error        TEXT NOT NULL DEFAULT '',
    updated_at   TIMESTAMP NOT NULL
) WITHOUT ROWID;

CREATE TABLE parked_events (
    projection TEXT NOT NULL,
    position   INTEGER NOT NULL,
    subject    TEXT NOT NULL,
    error      TEXT NOT NULL,
    parked_at  TIMESTAMP NOT NULL,
    PRIMARY KEY (projection, position)
) WITHOUT ROWID;
CREATE INDEX parked_events_subject ON parked_events (projection, subject);

-- +goose Down
DROP TABLE parked_events;
DROP TABLE projections;
DROP TABLE relay;
DROP TABLE leases;
DROP TABLE signing_keys;
DROP TABLE sessions;
DROP TABLE credentials;
DROP TABLE master_keys;
