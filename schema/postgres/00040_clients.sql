-- Clients are streams, with settings, and with as many secrets and keys as they need.
-- +goose Up

-- What is set of a client, as its stream says. One from before clients had streams has version 0, and gets one as soon as a
-- process starts.
ALTER TABLE clients
    ADD version    int   NOT NULL DEFAULT 0,
    ADD settings   jsonb NOT NULL DEFAULT '{}',
    ADD changed_at timestamptz;
UPDATE clients SET changed_at = created_at;
ALTER TABLE clients ALTER changed_at SET NOT NULL, ALTER version DROP DEFAULT, ALTER settings DROP DEFAULT;
COMMENT ON TABLE clients IS 'state table: clients of OAuth';

CREATE TABLE client_secrets (
    secret_id  uuid PRIMARY KEY,
    client_id  uuid  NOT NULL,
    kind       text  NOT NULL CHECK (kind IN ('secret', 'key')),
    hash       bytea NOT NULL UNIQUE,  -- SHA-256: both are random enough to need nothing slower
    prefix     text  NOT NULL,         -- what it begins with, to know it by
    scopes     jsonb NOT NULL,         -- of a key
    created_at timestamptz NOT NULL,
    expires_at timestamptz,            -- null for never
    used_at    timestamptz             -- to the minute; the one column that no append writes
);
CREATE INDEX client_secrets_client ON client_secrets (client_id);
COMMENT ON TABLE client_secrets IS 'state table: secrets and keys of clients';
INSERT INTO client_secrets SELECT client_id, client_id, 'secret', secret_hash, 'usher_secret_', '[]', created_at FROM clients;
ALTER TABLE clients DROP secret_hash;

SELECT make_apply_state();

-- +goose Down
ALTER TABLE clients ADD secret_hash bytea;
UPDATE clients c SET secret_hash = (SELECT s.hash FROM client_secrets s WHERE s.client_id = c.client_id AND s.kind = 'secret' ORDER BY s.created_at DESC LIMIT 1);
DELETE FROM clients WHERE secret_hash IS NULL;
ALTER TABLE clients ALTER secret_hash SET NOT NULL, DROP version, DROP settings, DROP changed_at;
COMMENT ON TABLE clients IS NULL;
DROP TABLE client_secrets;
SELECT make_apply_state();
