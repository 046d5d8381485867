-- Webhooks, as in postgres/00010_webhooks.sql.
-- +goose Up
CREATE TABLE webhooks (
    id         TEXT PRIMARY KEY,
    url        TEXT NOT NULL,
    events     TEXT NOT NULL CHECK (json_valid(events)),
    secrets    BLOB NOT NULL,
    command_id TEXT UNIQUE,
    request    BLOB NOT NULL,
    created_at TIMESTAMP NOT NULL,
    updated_at TIMESTAMP NOT NULL
) WITHOUT ROWID;

CREATE TABLE webhook_states (
    webhook    TEXT PRIMARY KEY REFERENCES webhooks,
    status     TEXT NOT NULL,
    reason     TEXT NOT NULL,
    changed_at TIMESTAMP NOT NULL
) WITHOUT ROWID;

CREATE TABLE webhook_progress (
    webhook       TEXT PRIMARY KEY REFERENCES webhooks,
    checkpoint    INTEGER NOT NULL,
    epoch         INTEGER NOT NULL,
    pending       INTEGER NOT NULL DEFAULT 0,
    dead          INTEGER NOT NULL DEFAULT 0,
    dead_in_a_row INTEGER NOT NULL DEFAULT 0,
    failing_since TIMESTAMP,
    changes       INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;

CREATE TABLE webhook_deliveries (
    webhook         TEXT    NOT NULL,
    position        INTEGER NOT NULL,
    subject         TEXT    NOT NULL,
    is_user         INTEGER NOT NULL,
    event_id        TEXT    NOT NULL,
    type            TEXT    NOT NULL,
    status          TEXT    NOT NULL,
    attempts        INTEGER NOT NULL,
    next_attempt_at TIMESTAMP,
    last_attempt_at TIMESTAMP,
    last_status     INTEGER,
    reason          TEXT    NOT NULL,
    response        BLOB,
    created_at      TIMESTAMP NOT NULL,
    finished_at     TIMESTAMP,
    PRIMARY KEY (webhook, position)
) WITHOUT ROWID;
CREATE INDEX webhook_deliveries_due ON webhook_deliveries (webhook, next_attempt_at) WHERE next_attempt_at IS NOT NULL;
CREATE INDEX webhook_deliveries_waiting ON webhook_deliveries (webhook, subject, position) WHERE status = 'pending';
CREATE INDEX webhook_deliveries_open ON webhook_deliveries (webhook, status, position) WHERE status <> 'delivered';

-- +goose Down
DROP TABLE webhook_deliveries;
DROP TABLE webhook_progress;
DROP TABLE webhook_states;
DROP TABLE webhooks;
