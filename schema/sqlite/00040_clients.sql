-- Clients are streams, as in postgres/00040_clients.sql.
-- +goose Up
CREATE TABLE client_secrets (
    secret_id  TEXT PRIMARY KEY,
    client_id  TEXT NOT NULL,
    kind       TEXT NOT NULL CHECK (kind IN ('secret', 'key')),
    hash       BLOB NOT NULL UNIQUE,
    prefix     TEXT NOT NULL,
    scopes     TEXT NOT NULL,
    created_at TIMESTAMP NOT NULL,
    expires_at TIMESTAMP,
    used_at    TIMESTAMP
) WITHOUT ROWID;
CREATE INDEX client_secrets_client ON client_secrets (client_id);
INSERT INTO client_secrets SELECT client_id, client_id, 'secret', secret_hash, 'usher_secret_', '[]', created_at, NULL, NULL FROM clients;

ALTER TABLE clients RENAME TO clients_before;
CREATE TABLE clients (
    client_id  TEXT PRIMARY KEY,
    name       TEXT NOT NULL UNIQUE,
    created_at TIMESTAMP NOT NULL,
    version    INTEGER NOT NULL,
    settings   TEXT NOT NULL,
    changed_at TIMESTAMP NOT NULL
) WITHOUT ROWID;
INSERT INTO clients SELECT client_id, name, created_at, 0, '{}', created_at FROM clients_before;
DROP TABLE clients_before;

-- A stream may be one of a client.
ALTER TABLE streams RENAME TO streams_before;
CREATE TABLE streams (
    stream  TEXT PRIMARY KEY,
    kind    TEXT NOT NULL CHECK (kind IN ('user', 'session', 'client', 'system')),
    version INTEGER NOT NULL,
    state   TEXT NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'archived', 'erased'))
) WITHOUT ROWID;
INSERT INTO streams SELECT * FROM streams_before;
DROP TABLE streams_before;

-- +goose Down
ALTER TABLE clients RENAME TO clients_before;
CREATE TABLE clients (
    client_id   TEXT PRIMARY KEY,
    name        TEXT NOT NULL UNIQUE,
    secret_hash BLOB NOT NULL,
    created_at  TIMESTAMP NOT NULL
) WITHOUT ROWID;
INSERT INTO clients
SELECT c.client_id, c.name, s.hash, c.created_at FROM clients_before c JOIN client_secrets s ON s.client_id = c.client_id AND s.kind = 'secret'
 WHERE NOT EXISTS (SELECT 1 FROM client_secrets n WHERE n.client_id = c.client_id AND n.kind = 'secret' AND n.created_at > s.created_at);
DROP TABLE clients_before;
DROP TABLE client_secrets;
