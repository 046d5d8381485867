-- What was last imported of a user, so that another import can tell what has changed there from what was changed here.
-- +goose Up

CREATE TABLE imported_users (
    user_id    uuid PRIMARY KEY,
    hash_mac   bytea,                  -- HMAC of the password hash that was imported; null for none
    changed_at timestamptz,            -- credentials.changed_at as that import left it; null where it left no credential
    status     text NOT NULL
);
COMMENT ON TABLE imported_users IS 'state table: what was last imported of a user';

SELECT make_apply_state();

-- +goose Down
DROP TABLE imported_users;
SELECT make_apply_state();
