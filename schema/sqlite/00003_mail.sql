-- Mail, as in postgres/00003_mail.sql.
-- +goose Up
CREATE TABLE codes (
    user_id    TEXT NOT NULL,
    purpose    TEXT NOT NULL,
    hash       BLOB NOT NULL UNIQUE,
    address    BLOB NOT NULL,
    created_at TIMESTAMP NOT NULL,
    expires_at TIMESTAMP NOT NULL,
    used_at    TIMESTAMP,
    PRIMARY KEY (user_id, purpose)
) WITHOUT ROWID;

CREATE TABLE subscriptions (
    name       TEXT PRIMARY KEY,
    checkpoint INTEGER NOT NULL,
    updated_at TIMESTAMP NOT NULL
) WITHOUT ROWID;

CREATE TABLE mails (
    position INTEGER PRIMARY KEY,
    user_id  TEXT NOT NULL,
    kind     TEXT NOT NULL,
    due_at   TIMESTAMP NOT NULL,
    attempts INTEGER NOT NULL,
    claimed  BOOLEAN NOT NULL
);
CREATE INDEX mails_due ON mails (due_at) WHERE NOT claimed;
CREATE INDEX mails_user ON mails (user_id);

CREATE TABLE devices (
    user_id  TEXT NOT NULL,
    device   BLOB NOT NULL,
    first_at TIMESTAMP NOT NULL,
    last_at  TIMESTAMP NOT NULL,
    PRIMARY KEY (user_id, device)
) WITHOUT ROWID;

CREATE TABLE mail_targets (
    target    BLOB PRIMARY KEY,
    sent      TEXT NOT NULL,
    forget_at TIMESTAMP NOT NULL
) WITHOUT ROWID;

-- +goose Down
DROP TABLE mail_targets;
DROP TABLE devices;
DROP TABLE mails;
DROP TABLE subscriptions;
DROP TABLE codes;
