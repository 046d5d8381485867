-- What rebuilds and operators need beside the projections, as in postgres/00011_projections.sql.
-- +goose Up
ALTER TABLE projections ADD COLUMN unrecorded TEXT;

CREATE TABLE projection_generations (
    projection   TEXT    NOT NULL,
    role         TEXT    NOT NULL,
    generation   INTEGER NOT NULL,
    code_version INTEGER NOT NULL,
    position     INTEGER NOT NULL,
    state        TEXT    NOT NULL,
    target       INTEGER NOT NULL DEFAULT 0,
    rate         REAL    NOT NULL DEFAULT 0,
    error        TEXT    NOT NULL DEFAULT '',
    actor        TEXT    NOT NULL,
    since        TIMESTAMP NOT NULL,
    updated_at   TIMESTAMP NOT NULL,
    PRIMARY KEY (projection, role)
) WITHOUT ROWID;

CREATE TABLE skipped_events (
    projection TEXT    NOT NULL,
    generation INTEGER NOT NULL,
    position   INTEGER NOT NULL,
    subject    TEXT    NOT NULL,
    skipped_at TIMESTAMP NOT NULL,
    PRIMARY KEY (projection, generation, position)
) WITHOUT ROWID;

-- +goose Down
DROP TABLE skipped_events;
DROP TABLE projection_generations;
ALTER TABLE projections DROP COLUMN unrecorded;
