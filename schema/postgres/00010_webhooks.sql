-- Webhooks: endpoints that events are sent to, how far each is, and what is to be sent to it.
-- +goose Up

-- What an administrator asked for. Each column is changed by itself; status stands in a table of its own, because an
-- append changes it.
CREATE TABLE webhooks (
    id         uuid PRIMARY KEY,
    url        text  NOT NULL,
    events     jsonb NOT NULL,          -- filters: event types, prefixes such as "user.*", "*"
    secrets    bytea NOT NULL,          -- the keys that sign, the newest first, sealed under the master key
    command_id uuid UNIQUE,             -- the idempotency key that it was made with
    request    bytea NOT NULL,          -- SHA-256 of what it was made from, to tell a repeated request from another
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
);

-- The reference refuses an append that disables a webhook while it is deleted: it would put a row in the place of the one that is
-- gone.
CREATE TABLE webhook_states (
    webhook    uuid PRIMARY KEY REFERENCES webhooks,
    status     text NOT NULL,           -- active, disabled
    reason     text NOT NULL,           -- why it is disabled, empty where it is not
    changed_at timestamptz NOT NULL
);
COMMENT ON TABLE webhook_states IS 'state table: whether a webhook gets events; disabling it appends webhook.disabled';

-- How far an endpoint is. The row is the lock of the webhook's deliveries: whatever changes them updates it first, so that
-- what is counted here is exact, and no delivery is left waiting behind one that is just being finished. Nor is one left behind
-- when the webhook is deleted, although deliveries have no reference of their own, which would cost a look for each.
CREATE TABLE webhook_progress (
    webhook       uuid PRIMARY KEY REFERENCES webhooks,
    checkpoint    bigint NOT NULL,      -- every event up to here that the webhook wants has a row, or had one
    epoch         bigint NOT NULL,      -- of the lease under which a worker last took it over
    pending       int    NOT NULL DEFAULT 0,
    dead          int    NOT NULL DEFAULT 0,
    dead_in_a_row int    NOT NULL DEFAULT 0,  -- deliveries that ran out of attempts since the last success
    failing_since timestamptz,          -- the first failure since the last success
    changes       bigint NOT NULL DEFAULT 0   -- counts what was done to the deliveries beside the worker
);

-- What could not be sent yet, what never could, and for a while what was. There is no payload here: it is read from the
-- log, and so is gone with its user. Of the pending deliveries of one user only one has a time, which is what keeps the
-- others behind it. Most rows are written once, as delivered, and then meet no index but that of the primary key.
CREATE TABLE webhook_deliveries (
    webhook         uuid   NOT NULL,
    position        bigint NOT NULL,
    subject         uuid   NOT NULL,    -- the user, or the system stream
    is_user         boolean NOT NULL,
    event_id        uuid   NOT NULL,
    type            text   NOT NULL,
    status          text   NOT NULL,    -- pending, delivered, dead
    attempts        int    NOT NULL,
    next_attempt_at timestamptz,
    last_attempt_at timestamptz,
    last_status     int,                -- of HTTP, where there was an answer
    reason          text   NOT NULL,    -- why the last attempt failed
    response        bytea,              -- the beginning of the last answer, sealed as its user's data is
    created_at      timestamptz NOT NULL,
    finished_at     timestamptz,
    PRIMARY KEY (webhook, position)
);
CREATE INDEX webhook_deliveries_due ON webhook_deliveries (webhook, next_attempt_at) WHERE next_attempt_at IS NOT NULL;
CREATE INDEX webhook_deliveries_waiting ON webhook_deliveries (webhook, subject, position) WHERE status = 'pending';
CREATE INDEX webhook_deliveries_open ON webhook_deliveries (webhook, status, position) WHERE status <> 'delivered';

SELECT make_apply_state();

-- +goose Down
DROP TABLE webhook_deliveries, webhook_progress, webhook_states, webhooks;
SELECT make_apply_state();
