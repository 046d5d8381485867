-- The log, as in postgres/00001_log.sql; the store's own code does what append_events does there, under BEGIN IMMEDIATE.
-- UUIDs are text, times are text in UTC (their order is the order of time), JSON is text.
-- +goose Up
CREATE TABLE events (
    position       INTEGER PRIMARY KEY,
    stream         TEXT    NOT NULL,
    kind           TEXT    NOT NULL,
    subject        TEXT,
    version        INTEGER NOT NULL,
    event_id       TEXT    NOT NULL,
    type           TEXT    NOT NULL,
    schema_version INTEGER NOT NULL,
    data           TEXT    NOT NULL CHECK (json_valid(data)),
    personal       BLOB,
    metadata       TEXT    NOT NULL CHECK (json_valid(metadata)),
    recorded_at    TIMESTAMP NOT NULL
);
CREATE UNIQUE INDEX events_stream ON events (stream, version);
CREATE INDEX events_subject ON events (subject, position) WHERE subject IS NOT NULL;

CREATE TABLE streams (
    stream  TEXT PRIMARY KEY,
    kind    TEXT NOT NULL CHECK (kind IN ('user', 'session', 'system')),
    version INTEGER NOT NULL,
    state   TEXT NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'archived', 'erased'))
) WITHOUT ROWID;

CREATE TABLE reservations (
    scope  TEXT NOT NULL,
    key    BLOB NOT NULL,
    stream TEXT NOT NULL,
    PRIMARY KEY (scope, key)
) WITHOUT ROWID;
CREATE INDEX reservations_stream ON reservations (stream);

CREATE TABLE commands (
    command_id  TEXT PRIMARY KEY,
    position    INTEGER NOT NULL,
    version     INTEGER NOT NULL,
    recorded_at TIMESTAMP NOT NULL
) WITHOUT ROWID;

CREATE TABLE user_keys (
    user_id TEXT PRIMARY KEY,
    wrapped BLOB NOT NULL
) WITHOUT ROWID;

-- +goose Down
DROP TABLE user_keys;
DROP TABLE commands;
DROP TABLE reservations;
DROP TABLE streams;
DROP TABLE events;
