-- What devices without a browser ask for, and what somebody answered in a browser of theirs (RFC 8628).
-- +goose Up
CREATE TABLE device_requests (
    device_hash bytea PRIMARY KEY,    -- HMAC of the code that the device asks with, under a key that is in no database
    user_hash   bytea NOT NULL UNIQUE, -- of the code that it shows
    client_id   text NOT NULL,
    scopes      text NOT NULL,        -- a JSON array
    address     text NOT NULL,        -- that it asked from, for whoever answers; '' from then on
    created_at  timestamptz NOT NULL,
    expires_at  timestamptz NOT NULL, -- swept a while later, so that a device which asks too late is told why
    polls       int NOT NULL,         -- how often it asked whether there is an answer, each noted once however many processes are asked
    poll_from   timestamptz NOT NULL, -- when it may ask again
    pace        int NOT NULL,         -- seconds between
    user_id     uuid,                 -- who answered; null while nobody has
    grant_id    uuid,                 -- that may begin: its stream begins once; null where the answer was no
    granted     text                  -- what else that begins with, a JSON object
);
CREATE INDEX device_requests_user ON device_requests (user_id);
CREATE INDEX device_requests_client ON device_requests (client_id, expires_at);
CREATE INDEX device_requests_expired ON device_requests (expires_at);
SELECT make_apply_state(); -- an erasure reaches it

-- +goose Down
DROP TABLE device_requests;
SELECT make_apply_state();
