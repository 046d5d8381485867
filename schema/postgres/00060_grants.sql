-- A grant is a session as well: of a client, under that of a user. Keys that sign ID tokens stand beside those of access tokens.
-- +goose Up
ALTER TABLE sessions
    ADD parent_id  uuid, -- of a grant: the session that it ends with
    ADD granted_to text, -- of a grant: the client
    ADD granted    text; -- of a grant: what for, a JSON object
CREATE INDEX sessions_parent ON sessions (parent_id) WHERE parent_id IS NOT NULL;
ALTER TABLE signing_keys ADD id_tokens boolean; -- it signs these, and never an access token; null for one from before there were such
SELECT make_apply_state();

-- +goose Down
DELETE FROM signing_keys WHERE id_tokens;
ALTER TABLE signing_keys DROP id_tokens;
DELETE FROM sessions WHERE granted_to IS NOT NULL;
DROP INDEX sessions_parent;
ALTER TABLE sessions DROP parent_id, DROP granted_to, DROP granted;
SELECT make_apply_state();
