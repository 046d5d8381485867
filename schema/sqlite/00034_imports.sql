-- What was last imported of a user, as in postgres/00034_imports.sql.
-- +goose Up
CREATE TABLE imported_users (
    user_id    TEXT PRIMARY KEY,
    hash_mac   BLOB,
    changed_at TIMESTAMP,
    status     TEXT NOT NULL
) WITHOUT ROWID;

-- +goose Down
DROP TABLE imported_users;
