-- +goose Up

-- What an operator asks of the relay of a JetStream stream: to make the stream anew from the log.
CREATE TABLE relay_orders (
    stream     TEXT PRIMARY KEY,
    ordered_at TIMESTAMP NOT NULL
) WITHOUT ROWID;

-- +goose Down
DROP TABLE relay_orders;
