-- Login: what slows guessing down, and second factors.
-- +goose Up

-- Failures to show who one is, counted for an account and for a client's network. The key is an HMAC of the account's
-- address or of the network, so it gives neither away; an address that nobody has is counted like any other.
-- Its columns are in no index, so that a row is changed in place.
CREATE TABLE throttle (
    key       bytea PRIMARY KEY,
    failures  int NOT NULL,
    failed_at timestamptz NOT NULL,    -- the last of them
    forget_at timestamptz NOT NULL     -- from when on none of them counts
) WITH (fillfactor = 80);
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

SELECT make_apply_state();

-- +goose Down
DROP TABLE factors, throttle;
SELECT make_apply_state();
