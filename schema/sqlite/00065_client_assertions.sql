-- What clients have proved with a signed assertion that it is they, as in postgres/00065_client_assertions.sql.
-- +goose Up
CREATE TABLE client_assertions (
    client_id  TEXT NOT NULL,
    jti        BLOB NOT NULL,
    expires_at TIMESTAMP NOT NULL,
    PRIMARY KEY (client_id, jti)
) WITHOUT ROWID;
CREATE INDEX client_assertions_expired ON client_assertions (expires_at);

-- +goose Down
DROP TABLE client_assertions;
