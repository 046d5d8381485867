-- +goose Up

-- The event at the checkpoint, null where that is not known: where the log has another one there, the tables have what did not
-- happen, and are filled anew.
ALTER TABLE projections ADD COLUMN checkpoint_event TEXT;

-- +goose Down
ALTER TABLE projections DROP COLUMN checkpoint_event;
