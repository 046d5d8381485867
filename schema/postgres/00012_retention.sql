-- +goose Up

-- The sweep forgets commands by their age, every few minutes: without this it reads the whole table to find none.
CREATE INDEX commands_recorded ON commands (recorded_at);

-- +goose Down
DROP INDEX commands_recorded;
