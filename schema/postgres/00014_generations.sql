-- +goose Up

-- The highest number that a generation was given: none is given twice, so that whoever still fills one that was discarded can
-- tell it from one that was asked for since.
ALTER TABLE projections ADD COLUMN last_generation int NOT NULL DEFAULT 0;
UPDATE projections SET last_generation =
    coalesce((SELECT max(generation) FROM discarded_generations d WHERE d.projection = projections.name), 0);

-- +goose Down
ALTER TABLE projections DROP COLUMN last_generation;
