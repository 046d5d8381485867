-- +goose Up

-- Read models have a schema of their own on Postgres, where roles share a database. Here there is one user.
SELECT 1;

-- +goose Down
SELECT 1;
