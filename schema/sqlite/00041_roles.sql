-- The roles auditor and operator mean something from now on, as in postgres/00041_roles.sql.
-- +goose Up
CREATE TABLE unadopted_roles (
    user_id TEXT NOT NULL,
    role    TEXT NOT NULL,
    PRIMARY KEY (user_id, role)
) WITHOUT ROWID;
INSERT INTO unadopted_roles
SELECT DISTINCT e.subject, r.value
  FROM events e
  JOIN streams s ON s.stream = e.subject AND s.state = 'open'
  JOIN json_each(CASE e.type WHEN 'user.imported' THEN coalesce(json_extract(e.data, '$.roles'), '[]') ELSE json_array(json_extract(e.data, '$.role')) END) r
 WHERE e.type IN ('user.role_granted', 'user.imported') AND r.value IN ('auditor', 'operator');

-- +goose Down
DROP TABLE unadopted_roles;
