-- The users who can act as administrators: they have the role, and are active.
-- +goose Up
CREATE TABLE admins (
    user_id uuid PRIMARY KEY
);
COMMENT ON TABLE admins IS 'state table: who can act as an administrator';

-- Nobody takes the rows of the last ones: a deployment without an administrator could be mended by nobody. It is a rule of
-- the table, because here it holds whatever is decided elsewhere at the same time: whoever appends is alone, so of two
-- administrators who revoke each other the second finds the first gone. The store answers with ErrStateRefused.
-- +goose StatementBegin
CREATE FUNCTION keep_an_admin() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    IF EXISTS (SELECT FROM gone) AND NOT EXISTS (SELECT FROM public.admins) THEN
        RAISE EXCEPTION 'the last of admins stays' USING ERRCODE = 'integrity_constraint_violation', TABLE = 'admins';
    END IF;
    RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE TRIGGER keep_an_admin AFTER DELETE ON admins REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION keep_an_admin();
SELECT make_apply_state();

-- +goose Down
DROP TABLE admins;
DROP FUNCTION keep_an_admin;
SELECT make_apply_state();
