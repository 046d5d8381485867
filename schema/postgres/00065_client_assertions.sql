-- What clients have proved with a signed assertion that it is they (RFC 7523): each assertion is good once, in whichever process.
-- +goose Up
CREATE TABLE client_assertions (
    client_id  uuid  NOT NULL,
    jti        bytea NOT NULL,       -- SHA-256 of it, which is as long as the client likes
    expires_at timestamptz NOT NULL, -- when no process takes it any more; swept then
    PRIMARY KEY (client_id, jti)
);
CREATE INDEX client_assertions_expired ON client_assertions (expires_at);

-- +goose Down
DROP TABLE client_assertions;
