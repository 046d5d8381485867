-- Login: what slows guessing down, and second factors.
-- +goose Up

-- Failures to show who one is, each counted apart: on an account, on a device that is known, in a session, and for a client's
-- network. The key is an HMAC of the account's address, of the network or of an id, so it gives none away; an address that
-- nobody has is counted like any other. What changes with every failure is in no index, so that a row is changed in place.
CREATE TABLE throttle (
    key       bytea PRIMARY KEY,
    scope     text NOT NULL,           -- login, device, session, network
    user_id   uuid,                    -- null for a network, and for an address that nobody has
    failures  int NOT NULL,
    since     timestamptz NOT NULL,    -- the first of them
    failed_at timestamptz NOT NULL,    -- the last of them
    forget_at timestamptz NOT NULL,    -- from when on none of them counts
    slowed    boolean NOT NULL         -- there are so many that the next attempt on an account has to wait for a while after the last
) WITH (fillfactor = 80);
CREATE INDEX throttle_user ON throttle (user_id);
-- Finds who is throttled among the many who once mistyped a password.
CREATE INDEX throttle_slowed ON throttle (user_id) WHERE slowed;
COMMENT ON TABLE throttle IS 'state table: failed attempts to show who one is';

-- What a user shows beside the password, at most one of a kind.
CREATE TABLE factors (
    user_id      uuid  NOT NULL,
    kind         text  NOT NULL,       -- totp, recovery
    secret       bytea NOT NULL,       -- totp: sealed with the user's own key; recovery: the HMACs of the codes that are good
    last_step    bigint NOT NULL,      -- totp: the time step of the last one that was used; none up to it is good
    created_at   timestamptz NOT NULL,
    confirmed_at timestamptz,          -- null until the user has shown that it works: it counts for nothing before
    version      int   NOT NULL,       -- of the user's stream, as of which its user was proven to be the one
    PRIMARY KEY (user_id, kind)
);
COMMENT ON TABLE factors IS 'state table: second factors';

-- Devices that a user was logged in on. Whoever comes from one has shown so by a MAC over both ids, under a key that is not
-- here; what fails there is counted apart.
CREATE TABLE known_devices (
    user_id         uuid NOT NULL,
    device_id       uuid NOT NULL,
    password_set_at timestamptz NOT NULL, -- credentials.changed_at of the password that it is known with; with another it is not
    created_at      timestamptz NOT NULL,
    used_at         timestamptz NOT NULL, -- to a day
    PRIMARY KEY (user_id, device_id)
);
COMMENT ON TABLE known_devices IS 'state table: devices that users were logged in on';

SELECT make_apply_state();

-- +goose Down
DROP TABLE known_devices, factors, throttle;
SELECT make_apply_state();
