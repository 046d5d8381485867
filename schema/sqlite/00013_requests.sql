-- +goose Up
ALTER TABLE parked_events ADD COLUMN retry BOOLEAN NOT NULL DEFAULT FALSE;

CREATE TABLE discarded_generations (
    projection TEXT NOT NULL,
    generation INTEGER NOT NULL,
    PRIMARY KEY (projection, generation)
) WITHOUT ROWID;

-- +goose Down
DROP TABLE discarded_generations;
ALTER TABLE parked_events DROP COLUMN retry;
