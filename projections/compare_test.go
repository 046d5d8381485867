package projections_test

import (
	"context"
	"strings"
	"testing"

	"usher.example/eventstore"
	"usher.example/eventstore/cloudevent"
)

// restless is a database whose projection goes on whenever it is about to be compared.
type restless struct {
	eventstore.DB
	move func()
	seen int
}

func (r *restless) QueryRow(ctx context.Context, sql string, args ...any) eventstore.Row {
	if strings.Contains(sql, "p.checkpoint = g.position") {
		r.seen++
		r.move()
	}
	return r.DB.QueryRow(ctx, sql, args...)
}

// A live generation that never stands still is held up for the comparison in the end.
func TestCompareWhatNeverStandsStill(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, s *stack) {
		start(t, s.runner())
		s.churn(t, 20)
		s.await(t)
		o := s.operator()
		db := &restless{DB: s.db, move: func() {
			s.append(t, s.users[0], renamed("Restless"))
			s.publish(t, cloudevent.Options{})
			s.await(t)
		}}
		o.DB = db
		out, err := o.Rebuild(t.Context(), "users", quiet)
		if err != nil || len(out.Differences) != 0 || db.seen < 10 {
			t.Errorf("Rebuild() = %+v, %v, after %d comparisons in vain", out, err, db.seen)
		}
		s.await(t)
		s.exact(t)
	})
}
