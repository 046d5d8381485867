package projections

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"usher.example/eventstore"
	"usher.example/identity"
)

// doRebuilds does the rebuilds and rollbacks that are asked for of this version of the code, and drops what was discarded, whether
// or not this process holds the projection's lease, until ctx ends. A rebuild that was interrupted is gone on with.
func (r *Runner) doRebuilds(ctx context.Context, m model, holder string) {
	asked := false
	for ctx.Err() == nil {
		err := r.lookForRebuild(ctx, m, holder, &asked)
		switch {
		case err == nil || ctx.Err() != nil || errors.Is(err, ErrCancelled) || errors.Is(err, ErrFenced):
		case transient(err):
			m.logTo.WarnContext(ctx, "can't look for rebuilds", slog.Any("error", err))
		default:
			m.logTo.ErrorContext(ctx, "rebuild failed", slog.Any("error", err))
		}
		_ = eventstore.Pause(ctx, r.poll()/2) // ctx is looked at above
	}
}

// lookForRebuild does what there is to do. asked is set once this process has asked for a rebuild itself.
func (r *Runner) lookForRebuild(ctx context.Context, m model, holder string, asked *bool) error {
	l, err := m.readLive(ctx, r.DB)
	if errors.Is(err, ErrUnknownProjection) {
		return nil
	}
	if err != nil {
		return err
	}
	if l.code < m.projection.CodeVersion() && !*asked {
		m.logTo.InfoContext(ctx, "an older version of the code filled the read model: asking for a rebuild", "filled_by", l.code, "this_is", m.projection.CodeVersion())
		if _, err := m.request(ctx, identity.ActorSystem); err != nil {
			return err
		}
	}
	*asked = true
	if err := m.record(ctx); err != nil {
		return err
	}
	if err := m.dropDiscarded(ctx); err != nil {
		return err
	}
	if err := m.doRollback(ctx, r.ttl()); err != nil && !errors.Is(err, ErrRebuilding) { // another process may be at it
		return err
	}
	b, err := m.readBeside(ctx, r.DB, roleNext)
	switch {
	case errors.Is(err, eventstore.ErrNoRows):
		return nil
	case err != nil:
		return err
	case b.code != m.projection.CodeVersion() || b.state == RebuildFailed:
		return nil
	}
	lease := eventstore.Lease{DB: r.DB, Name: rebuildLease + m.name(), Holder: holder, TTL: r.ttl()}
	held, err := lease.Acquire(ctx)
	if err != nil || !held {
		return err
	}
	m.logTo.InfoContext(ctx, "rebuilding the projection", "generation", b.number, "from", b.position)
	_, err = m.rebuildUnder(ctx, lease, nil)
	return err
}

// awaitOwnVersion waits until the live generation is one that this version of the code filled, or there is none yet.
func (r *Runner) awaitOwnVersion(ctx context.Context, m model) error {
	for told := false; ; told = true {
		l, err := m.readLive(ctx, r.DB)
		switch {
		case errors.Is(err, ErrUnknownProjection) || err == nil && l.code == m.projection.CodeVersion():
			return nil
		case err != nil:
			return err
		}
		if !told {
			m.logTo.WarnContext(ctx, "another version of the code filled the read model: waiting", "filled_by", l.code, "this_is", m.projection.CodeVersion())
		}
		if err := m.reportOutdated(ctx, l); err != nil {
			return err
		}
		if err := eventstore.Pause(ctx, r.poll()); err != nil {
			return err
		}
	}
}

// reportOutdated lets everybody see why the read model stands still, unless a process of the version that filled it keeps
// it up to date.
func (m model) reportOutdated(ctx context.Context, l live) error {
	text := fmt.Sprintf("version %d of the code filled it, and only version %d runs: it stands still until it is rebuilt", l.code, m.projection.CodeVersion())
	if l.code > m.projection.CodeVersion() {
		text = fmt.Sprintf("version %d of the code filled it, and only version %d runs: it stands still until it is rolled back or rebuilt", l.code, m.projection.CodeVersion())
	}
	_, err := m.db.Exec(ctx, `
		UPDATE projections SET state = $3, error = $4, updated_at = $5
		 WHERE name = $1 AND code_version = $2 AND state <> 'paused' AND error <> $4
		   AND NOT EXISTS (SELECT 1 FROM leases WHERE name = '`+leasePrefix+`' || $1 AND expires_at > `+eventstore.Clock(m.db.Dialect())+`)`,
		m.name(), l.code, string(StateOutdated), text, time.Now().UTC())
	if err != nil {
		return fmt.Errorf("report the state: %w", err)
	}
	return nil
}

// keepStandby brings the standby, if there is one of this version of the code, to where the live generation is, every now
// and then and in batches of its own: what is done to the live one never waits for it, nor fails with it.
func (w *worker) keepStandby(ctx context.Context) error {
	said := ""
	for wait := w.poll(); ; {
		if err := eventstore.Pause(ctx, wait); err != nil {
			return err
		}
		wait = w.poll()
		err := w.bringUpStandby(ctx)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err == nil || errors.Is(err, ErrCancelled): // it was dropped, or became the live one
			said = ""
			continue
		case err.Error() != said:
			said = err.Error()
			w.logTo.WarnContext(ctx, "the standby generation is held up", slog.Any("error", err))
		}
		wait = max(wait, lastWait)
	}
}

func (w *worker) bringUpStandby(ctx context.Context) error {
	b, err := w.readBeside(ctx, w.db, roleStandby)
	switch {
	case errors.Is(err, eventstore.ErrNoRows) || err == nil && b.code != w.projection.CodeVersion():
		return nil
	case err != nil:
		return err
	}
	err = w.fillingOf(b).fill(ctx, w.checkpoint.Load())
	if err == nil || ctx.Err() != nil || errors.Is(err, ErrCancelled) {
		return err
	}
	_, noted := w.db.Exec(ctx, "UPDATE projection_generations SET error = $4 WHERE projection = $1 AND role = $2 AND generation = $3",
		w.name(), string(roleStandby), b.number, errorText(err.Error()))
	return errors.Join(err, noted)
}
