-- What devices without a browser ask for, as in postgres/00070_device_requests.sql.
-- +goose Up
CREATE TABLE device_requests (
    device_hash BLOB PRIMARY KEY,
    user_hash   BLOB NOT NULL UNIQUE,
    client_id   TEXT NOT NULL,
    scopes      TEXT NOT NULL,
    address     TEXT NOT NULL,
    created_at  TIMESTAMP NOT NULL,
    expires_at  TIMESTAMP NOT NULL,
    polls       INTEGER NOT NULL,
    poll_from   TIMESTAMP NOT NULL,
    pace        INTEGER NOT NULL,
    user_id     TEXT,
    grant_id    TEXT,
    granted     TEXT
) WITHOUT ROWID;
CREATE INDEX device_requests_user ON device_requests (user_id);
CREATE INDEX device_requests_client ON device_requests (client_id, expires_at);
CREATE INDEX device_requests_expired ON device_requests (expires_at);

-- +goose Down
DROP TABLE device_requests;
