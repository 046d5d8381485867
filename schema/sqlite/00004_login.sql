-- Login, as in postgres/00004_login.sql.
-- +goose Up
CREATE TABLE throttle (
    key       BLOB PRIMARY KEY,
    failures  INTEGER NOT NULL,
    failed_at TIMESTAMP NOT NULL,
    forget_at TIMESTAMP NOT NULL
) WITHOUT ROWID;

CREATE TABLE factors (
    user_id      TEXT NOT NULL,
    kind         TEXT NOT NULL,
    secret       BLOB NOT NULL,
    last_step    INTEGER NOT NULL,
    created_at   TIMESTAMP NOT NULL,
    confirmed_at TIMESTAMP,
    version      INTEGER NOT NULL,
    PRIMARY KEY (user_id, kind)
) WITHOUT ROWID;

-- +goose Down
DROP TABLE factors;
DROP TABLE throttle;
