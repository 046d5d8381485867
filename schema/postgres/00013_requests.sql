-- What is asked of the processes that run projections, by processes that have no right on the tables of read models.
-- +goose Up

-- The event, the first of its user, is to be applied again, with those behind it.
ALTER TABLE parked_events ADD COLUMN retry boolean NOT NULL DEFAULT FALSE;

-- Generations that have no role any more and whose tables are to be dropped, if they were made.
CREATE TABLE discarded_generations (
    projection text NOT NULL,
    generation int  NOT NULL,
    PRIMARY KEY (projection, generation)
);

-- +goose Down
DROP TABLE discarded_generations;
ALTER TABLE parked_events DROP COLUMN retry;
