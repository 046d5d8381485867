-- What other services need: the times that signing keys live by.
-- +goose Up

-- A key is announced until signs_from, signs until the next one does, and verifies until the last token that it signed
-- has expired. Then its row goes.
ALTER TABLE signing_keys
    ADD signs_from    timestamptz,
    ADD token_seconds int NOT NULL DEFAULT 0;  -- the longest lifetime of its tokens, noted by each process that signs
UPDATE signing_keys SET signs_from = created_at;
ALTER TABLE signing_keys
    ALTER signs_from SET NOT NULL,
    ALTER token_seconds DROP DEFAULT;

SELECT make_apply_state();

-- +goose Down
ALTER TABLE signing_keys DROP signs_from, DROP token_seconds;
SELECT make_apply_state();
