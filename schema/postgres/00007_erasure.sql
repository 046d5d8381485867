-- Erasures that were asked for. A row is there before anything is done, so that one which is cut short is finished at the
-- next start. Its column is not called user_id, because what is called so goes with the user.
-- +goose Up
CREATE TABLE erasures (
    subject      uuid PRIMARY KEY,      -- the user
    actor        text NOT NULL,         -- who asked for it
    proven       int,                   -- version of the user's stream, as of which that was proven; null where nothing had to be
    requested_at timestamptz NOT NULL,
    done_at      timestamptz            -- null until the user is erased, and that is in the ledger if there is one
);
CREATE INDEX erasures_pending ON erasures (requested_at) WHERE done_at IS NULL;

SELECT make_apply_state();

-- +goose Down
DROP TABLE erasures;
