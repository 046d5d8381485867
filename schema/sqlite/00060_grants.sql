-- See schema/postgres/00060_grants.sql.
-- +goose Up
ALTER TABLE sessions ADD COLUMN parent_id TEXT;
ALTER TABLE sessions ADD COLUMN granted_to TEXT;
ALTER TABLE sessions ADD COLUMN granted TEXT;
CREATE INDEX sessions_parent ON sessions (parent_id) WHERE parent_id IS NOT NULL;
ALTER TABLE signing_keys ADD COLUMN id_tokens BOOLEAN;

-- +goose Down
DELETE FROM signing_keys WHERE id_tokens;
ALTER TABLE signing_keys DROP COLUMN id_tokens;
DELETE FROM sessions WHERE granted_to IS NOT NULL;
DROP INDEX sessions_parent;
ALTER TABLE sessions DROP COLUMN granted;
ALTER TABLE sessions DROP COLUMN granted_to;
ALTER TABLE sessions DROP COLUMN parent_id;
