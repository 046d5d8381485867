-- Login, as in postgres/00004_login.sql.
-- +goose Up
CREATE TABLE throttle (
    key       BLOB PRIMARY KEY,
    scope     TEXT NOT NULL,
    user_id   TEXT,
    failures  INTEGER NOT NULL,
    since     TIMESTAMP NOT NULL,
    failed_at TIMESTAMP NOT NULL,
    forget_at TIMESTAMP NOT NULL,
    slowed    BOOLEAN NOT NULL
) WITHOUT ROWID;

CREATE INDEX throttle_user ON throttle (user_id);
CREATE INDEX throttle_slowed ON throttle (user_id) WHERE slowed;

CREATE TABLE known_devices (
    user_id         TEXT NOT NULL,
    device_id       TEXT NOT NULL,
    password_set_at TIMESTAMP NOT NULL,
    created_at      TIMESTAMP NOT NULL,
    used_at         TIMESTAMP NOT NULL,
    PRIMARY KEY (user_id, device_id)
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
DROP TABLE known_devices;
DROP TABLE factors;
DROP TABLE throttle;
