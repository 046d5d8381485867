-- +goose Up

-- What an operator asks of the relay of a JetStream stream: to make the stream anew from the log. It is a table of its own, so
-- that whoever may write the relay's cursor, which every worker has to, may not ask for that: see deploy/postgres/roles.sql.
CREATE TABLE relay_orders (
    stream     text PRIMARY KEY,
    ordered_at timestamptz NOT NULL
);

-- +goose Down
DROP TABLE relay_orders;
