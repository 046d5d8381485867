-- The users who can act as administrators, as in postgres/00005_admin.sql.
-- +goose Up
CREATE TABLE admins (
    user_id TEXT PRIMARY KEY
) WITHOUT ROWID;
-- +goose StatementBegin
CREATE TRIGGER keep_an_admin AFTER DELETE ON admins WHEN NOT EXISTS (SELECT 1 FROM admins)
BEGIN
    SELECT RAISE(ABORT, 'the last of admins stays');
END;
-- +goose StatementEnd

-- +goose Down
DROP TABLE admins;
