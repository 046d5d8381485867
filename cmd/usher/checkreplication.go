package main

import (
	"context"

	"usher.example/eventstore"
)

// checkReplication warns where a failover, or a crash, would take back what was answered already. Only where there are standbys
// is there anything to say of them.
func checkReplication(ctx context.Context, d *deployment, r *report) {
	if d.store.Dialect() != eventstore.Postgres {
		return
	}
	// Whoever may not monitor sees that there are senders of WAL, and not what each is for.
	var senders, logical, slots int
	var names, commit string
	err := d.store.QueryRow(ctx, `
		SELECT (SELECT count(*) FROM pg_stat_replication),
		       (SELECT count(*) FROM pg_replication_slots WHERE slot_type = 'logical' AND active),
		       (SELECT count(*) FROM pg_replication_slots WHERE slot_type = 'physical'),
		       current_setting('synchronous_standby_names'), current_setting('synchronous_commit')`).
		Scan(&senders, &logical, &slots, &names, &commit)
	if err != nil {
		r.fail("replication", err.Error(), nil)
		return
	}
	standbys := max(senders-logical, slots)
	figures := map[string]any{"standbys": standbys, "synchronous_standby_names": names, "synchronous_commit": commit}
	switch {
	case commit == "off":
		r.warn("replication", "synchronous_commit is off: a crash of the database takes back what was answered already; set it to on, or to remote_apply where there are standbys", figures)
	case standbys > 0 && names == "":
		r.warn("replication", "none of the standbys is synchronous: a failover takes back what was answered, and published, already; set synchronous_standby_names, "+
			"and synchronous_commit to remote_apply, see deploy/backup.md", figures)
	case standbys > 0 && commit == "local":
		r.warn("replication", "synchronous_commit is local, so no commit waits for a standby: a failover takes back what was answered, and published, already; set it to remote_apply, see deploy/backup.md", figures)
	default:
		r.ok("replication", figures)
	}
}
