package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"usher.example/eventstore"
)

// Commit calls append_events: one statement, which is one round trip and one transaction. Only where an append does not
// fit, it is called once more, to find out which.
func (s *Store) Commit(ctx context.Context, batch []*eventstore.Prepared) ([]eventstore.Outcome, error) {
	args := arguments(batch)
	outcomes, err := s.write(ctx, batch, args)
	if err != nil && noPartition(err) {
		if err = s.makeRoom(ctx, batch); err == nil {
			outcomes, err = s.write(ctx, batch, args)
		}
	}
	if err != nil {
		return nil, err
	}
	var head int64
	for _, o := range outcomes {
		head = max(head, o.Position)
	}
	s.keepAhead(head)
	return outcomes, nil
}

// makeRoom makes the partitions that a batch needs. It looks where the head is: the database may be another's copy, or an earlier
// one, than that whose partitions were counted.
func (s *Store) makeRoom(ctx context.Context, batch []*eventstore.Prepared) error {
	wanted, err := s.Head(ctx)
	if err != nil {
		return err
	}
	for _, p := range batch {
		wanted += int64(len(p.Events))
	}
	return s.ensurePartitions(ctx, wanted+s.partition)
}

// doubtFor is how long after an append that did not fit every other is looked up before it is written: where many are in
// each other's way, writing them in vain would cost more.
const doubtFor = time.Second

// write writes a batch at once where it can, and carefully where it must.
func (s *Store) write(ctx context.Context, batch []*eventstore.Prepared, args [][]byte) ([]eventstore.Outcome, error) {
	careful := time.Since(time.Unix(0, s.unfit.Load())) < doubtFor || slices.ContainsFunc(batch, undecided)
	answers, err := s.call(ctx, careful, args)
	if !careful && unfit(err) {
		s.unfit.Store(time.Now().UnixNano())
		answers, err = s.call(ctx, true, args)
	}
	if err != nil {
		return nil, err
	}
	return decide(batch, answers)
}

// undecided says whether an append can't be written without looking first: see append_events.
func undecided(p *eventstore.Prepared) bool { return p.Expected == eventstore.AnyVersion || p.Erase }

// unfit says whether append_events found that something of a batch does not fit.
func unfit(err error) bool {
	var refused *pgconn.PgError
	return errors.As(err, &refused) && (refused.Code == "23505" || refused.Code == "40001")
}

// reconnects bounds how often a commit is sent again over a new connection, when nothing of it went out over the old.
const reconnects = 2

func (s *Store) call(ctx context.Context, careful bool, args [][]byte) ([]int64, error) {
	for try := 0; ; try++ {
		conn, err := s.commits.take(ctx)
		if err != nil {
			return nil, err
		}
		answers, err := conn.appendEvents(ctx, careful, args)
		conn.release()
		var refused *pgconn.PgError
		switch {
		case err == nil:
			return answers, nil
		case errors.As(err, &refused):
			return nil, classify(err)
		case ctx.Err() != nil:
			return nil, fmt.Errorf("%w: %w", eventstore.ErrOutcomeUnknown, context.Cause(ctx))
		case !pgconn.SafeToRetry(err):
			return nil, fmt.Errorf("%w: %w", eventstore.ErrOutcomeUnknown, err)
		case try == reconnects:
			return nil, fmt.Errorf("%w: %w", eventstore.ErrUnavailable, err)
		}
	}
}

func noPartition(err error) bool {
	var refused *pgconn.PgError
	return errors.As(err, &refused) && refused.Code == "23514" && refused.ConstraintName == "" && refused.TableName == "events"
}

const appendEvents = `SELECT append_events($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17,
	$18, $19, $20, $21, $22, $23, $24, $25, $26, $27, $28, $29, $30)`

// The verdicts of append_events.
const (
	written = iota
	repeated
	conflict
	reserved
	closed
	stale
)

// decide reads the answer to a batch.
func decide(batch []*eventstore.Prepared, answers []int64) ([]eventstore.Outcome, error) {
	outcomes := make([]eventstore.Outcome, len(batch))
	switch len(answers) {
	case 1: // all of them are written
		position := answers[0]
		for i, p := range batch {
			position += int64(len(p.Events))
			outcomes[i].Result = eventstore.Result{Position: position, Version: int(p.Expected) + len(p.Events)}
		}
		return outcomes, nil
	case 1 + 3*len(batch):
		answers = answers[1:]
	default:
		return nil, fmt.Errorf("append_events answered with %d numbers for %d appends", len(answers), len(batch))
	}
	for i, p := range batch {
		verdict, position, version := answers[3*i], answers[3*i+1], int(answers[3*i+2])
		switch o := &outcomes[i]; verdict {
		case written, repeated:
			o.Result = eventstore.Result{Position: position, Version: version, Repeated: verdict == repeated}
		case conflict:
			o.Err = &eventstore.VersionError{Stream: p.Stream, Expected: p.Expected, Actual: version}
		case reserved:
			o.Err = &eventstore.ReservationError{Scope: p.Reserve[version-1].Scope}
		case closed:
			o.Err = eventstore.ErrStreamClosed
		case stale:
			o.Err = &eventstore.StaleError{Given: p.Given[version-1]}
		default:
			return nil, fmt.Errorf("append_events answered with the verdict %d", verdict)
		}
	}
	return outcomes, nil
}
