-- The roles auditor and operator mean something from now on. Whoever was given one of these names before is listed here, until an
-- operator has said whether that is what was meant: usher does not start before.
-- +goose Up
CREATE TABLE unadopted_roles (
    user_id uuid NOT NULL,
    role    text NOT NULL,
    PRIMARY KEY (user_id, role)
);
INSERT INTO unadopted_roles
SELECT DISTINCT e.subject, r.role
  FROM events e
  JOIN streams s ON s.stream = e.subject AND s.state = 'open'
 CROSS JOIN LATERAL (
       SELECT e.data->>'role' WHERE e.type = 'user.role_granted'
        UNION ALL
       SELECT * FROM jsonb_array_elements_text(CASE WHEN e.type = 'user.imported' THEN coalesce(e.data->'roles', '[]') ELSE '[]' END)) r(role)
 WHERE e.type IN ('user.role_granted', 'user.imported') AND r.role IN ('auditor', 'operator');

SELECT make_apply_state();

-- +goose Down
DROP TABLE unadopted_roles;
SELECT make_apply_state();
