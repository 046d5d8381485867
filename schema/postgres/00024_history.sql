-- +goose Up

-- The history of this database: the server's identity, the database's, and the timeline, of which a standby that is promoted
-- begins another. Whoever works under a lease begins anew once it is another one. '' where the server does not tell.
-- The timeline of the next byte of WAL is the one in force; pg_control_checkpoint() has that of the last checkpoint.
-- +goose StatementBegin
CREATE FUNCTION log_history() RETURNS text LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    RETURN (SELECT system_identifier FROM pg_catalog.pg_control_system())::text
        || '/' || (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())::text
        || '/' || pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()), 1, 8);
EXCEPTION WHEN OTHERS THEN
    RETURN '';
END $$;
-- +goose StatementEnd

-- The event at the checkpoint, null where that is not known: where the log has another one there, the tables have what did not
-- happen, and are filled anew.
ALTER TABLE projections ADD COLUMN checkpoint_event uuid;

-- +goose Down
ALTER TABLE projections DROP COLUMN checkpoint_event;
DROP FUNCTION log_history();
