-- What rebuilds and operators need beside the projections.
-- +goose Up

-- The event of the last exchange of generations, a JSON object of type and data, until it is in the log: the exchange is a
-- transaction of the tables, which an append can not share.
ALTER TABLE projections ADD COLUMN unrecorded jsonb;

-- Generations of a read model's tables beside the live one, at most one of each role:
--   next     is asked for, or being filled by a rebuild
--   standby  was live before, and is kept current as a way back
-- Each has a checkpoint of its own, which only moves in the transaction of the events that it moves over.
CREATE TABLE projection_generations (
    projection   text   NOT NULL,
    role         text   NOT NULL,
    generation   int    NOT NULL,
    code_version int    NOT NULL,             -- of the code that fills it
    position     bigint NOT NULL,             -- its checkpoint
    state        text   NOT NULL,
    target       bigint NOT NULL DEFAULT 0,   -- where a rebuild is to get to, as of its last batch
    rate         double precision NOT NULL DEFAULT 0, -- events a second
    error        text   NOT NULL DEFAULT '',
    actor        text   NOT NULL,             -- who asked for it
    since        timestamptz NOT NULL,        -- when it was asked for, begun, or replaced
    updated_at   timestamptz NOT NULL,
    PRIMARY KEY (projection, role)
);

-- Events that an operator gave up, and the generations that lack them. A generation that is filled tries them again, and
-- is not stopped by them.
CREATE TABLE skipped_events (
    projection text   NOT NULL,
    generation int    NOT NULL,
    position   bigint NOT NULL,
    subject    uuid   NOT NULL,
    skipped_at timestamptz NOT NULL,
    PRIMARY KEY (projection, generation, position)
);

-- +goose Down
DROP TABLE skipped_events, projection_generations;
ALTER TABLE projections DROP COLUMN unrecorded;
