-- Mail: the codes that it carries, what is waiting to be sent, and the devices that users have been seen with.
-- +goose Up

-- A code is random and of one use. At most one of a user's is good for a purpose: a later one takes its place. The row
-- is written as the mail is sent, and marked by the append that the code allows; it stays for as long as the code would have
-- been good, so that whoever sends it again is told that it was done.
CREATE TABLE codes (
    user_id    uuid  NOT NULL,
    purpose    text  NOT NULL,         -- verify, reset, email
    hash       bytea NOT NULL UNIQUE,  -- HMAC of the code, under a key that is not here
    address    bytea NOT NULL,         -- HMAC of the address that it was sent to: it is good for that one only
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    used_at    timestamptz,            -- null for one that is good
    PRIMARY KEY (user_id, purpose)
);
COMMENT ON TABLE codes IS 'state table: codes that were mailed';

-- How far a reader of the JetStream stream that acts on events, and is no projection, has come.
CREATE TABLE subscriptions (
    name       text PRIMARY KEY,
    checkpoint bigint NOT NULL,
    updated_at timestamptz NOT NULL
);

-- Mails to be sent, one an event at most. What a mail says, and to whom it goes, is read from the log as it is sent.
CREATE TABLE mails (
    position bigint PRIMARY KEY,       -- of the event that it is about
    user_id  uuid   NOT NULL,
    kind     text   NOT NULL,
    due_at   timestamptz NOT NULL,
    attempts int    NOT NULL,          -- that its mailbox put off
    claimed  boolean NOT NULL          -- it is being sent
);
CREATE INDEX mails_due ON mails (due_at) WHERE NOT claimed;
CREATE INDEX mails_user ON mails (user_id);
COMMENT ON TABLE mails IS 'state table: mails to be sent; appends only erase from it';

-- What each user has logged in with: an HMAC over user, address and user agent, under a key that is not here.
CREATE TABLE devices (
    user_id  uuid  NOT NULL,
    device   bytea NOT NULL,
    first_at timestamptz NOT NULL,
    last_at  timestamptz NOT NULL,
    PRIMARY KEY (user_id, device)
);
COMMENT ON TABLE devices IS 'state table: where users logged in; appends only erase from it';

-- When mails of a kind were sent to an address of late, whoever asked for them. The key is an HMAC of both, so it gives no
-- address away.
CREATE TABLE mail_targets (
    target    bytea PRIMARY KEY,
    sent      jsonb NOT NULL,          -- times, the oldest first
    forget_at timestamptz NOT NULL
);

SELECT make_apply_state();

-- +goose Down
DROP TABLE mail_targets, devices, mails, subscriptions, codes;
SELECT make_apply_state();
