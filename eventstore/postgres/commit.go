package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"usher/eventstore"
)

// Commit calls append_events: one statement, which is one round trip and one transaction. Only where an append does not
// fit, it is called once more, to find out which.
func (s *Store) Commit(ctx context.Context, batch []*eventstore.Prepared) ([]eventstore.Outcome, error) {
	args := arguments(batch)
	outcomes, err := s.write(ctx, batch, args)
	if err != nil && noPartition(err) {
		events := 0
		for _, p := range batch {
			events += len(p.Events)
		}
		if err = s.ensurePartitions(ctx, s.ensured.Load()+int64(events)+s.partition); err == nil {
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

// doubtFor is how long after an append that did not fit every other is looked up before it is written: where many are in
// each other's way, writing them in vain would cost more.
const doubtFor = time.Second

// write writes a batch at once where it can, and carefully where it must.
func (s *Store) write(ctx context.Context, batch []*eventstore.Prepared, args []any) ([]eventstore.Outcome, error) {
	careful := time.Since(time.Unix(0, s.unfit.Load())) < doubtFor || slices.ContainsFunc(batch, undecided)
	outcomes, err := s.call(ctx, batch, append([]any{careful}, args...))
	if careful || !unfit(err) {
		return outcomes, err
	}
	s.unfit.Store(time.Now().UnixNano())
	return s.call(ctx, batch, append([]any{true}, args...))
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

func (s *Store) call(ctx context.Context, batch []*eventstore.Prepared, args []any) ([]eventstore.Outcome, error) {
	for try := 0; ; try++ {
		conn, err := s.commits.take(ctx)
		if err != nil {
			return nil, err
		}
		outcomes, err := decide(conn.watch(ctx), batch, args)
		conn.release()
		var refused *pgconn.PgError
		switch {
		case err == nil:
			return outcomes, nil
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
	$18, $19, $20, $21, $22, $23, $24, $25, $26, $27)`

// The verdicts of append_events.
const (
	written = iota
	repeated
	conflict
	reserved
	closed
)

func decide(conn *pgx.Conn, batch []*eventstore.Prepared, args []any) ([]eventstore.Outcome, error) {
	var answers []int64
	if err := conn.QueryRow(context.Background(), appendEvents, args...).Scan(&answers); err != nil {
		return nil, err
	}
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
		default:
			return nil, fmt.Errorf("append_events answered with the verdict %d", verdict)
		}
	}
	return outcomes, nil
}

// arguments lays a batch out as append_events takes it, after careful: an array a column, nil for one without rows, and the number of
// the append (from 1) with every row that belongs to one.
func arguments(batch []*eventstore.Prepared) []any {
	n := len(batch)
	var (
		streams, subjects = make([]pgtype.UUID, n), make([]pgtype.UUID, n)
		kinds, metadata   = make([]string, n), make([]string, n)
		expected          = make([]int32, n)
		events, last      = make([]int32, n), make([]int32, n)
		keys              [][]byte
		commands          []pgtype.UUID
		erase             []bool

		eAppend   = make([]int32, 0, n)
		eID       = make([]pgtype.UUID, 0, n)
		eType     = make([]string, 0, n)
		eSchema   = make([]int16, 0, n)
		eData     = make([]string, 0, n)
		ePersonal = make([][]byte, 0, n)

		hold, let reservationRows
		state     stateRows
	)
	for i, p := range batch {
		number := int32(i + 1)
		streams[i], subjects[i] = nullable(p.Stream.ID), nullable(p.Stream.Subject)
		kinds[i], metadata[i] = string(p.Stream.Kind), string(p.Meta)
		expected[i] = int32(p.Expected)
		if p.Key != nil {
			if keys == nil {
				keys = make([][]byte, n)
			}
			keys[i] = p.Key
		}
		if p.CommandID != uuid.Nil {
			if commands == nil {
				commands = make([]pgtype.UUID, n)
			}
			commands[i] = nullable(p.CommandID)
		}
		if p.Erase {
			if erase == nil {
				erase = make([]bool, n)
			}
			erase[i] = true
		}
		for k, e := range p.Events {
			eAppend = append(eAppend, number)
			eID = append(eID, nullable(e.ID))
			eType = append(eType, e.Type)
			eSchema = append(eSchema, int16(e.SchemaVersion))
			eData = append(eData, string(e.Data))
			ePersonal = append(ePersonal, p.Sealed[k])
		}
		events[i], last[i] = int32(len(p.Events)), int32(len(eAppend))
		hold.add(number, p.Reserve, p.ReserveKeys)
		let.add(number, p.Release, p.ReleaseKeys)
		for _, c := range p.State {
			state.add(i+1, c)
		}
	}
	return []any{
		streams, subjects, kinds, expected, events, last, metadata, keys, commands, erase,
		eAppend, eID, eType, eSchema, eData, ePersonal,
		hold.number, hold.scope, hold.key,
		let.number, let.scope, let.key,
		state.tables, state.fresh.column(), state.put.column(), state.removed.column(),
	}
}

func nullable(id uuid.UUID) pgtype.UUID { return pgtype.UUID{Bytes: id, Valid: id != uuid.Nil} }

// reservationRows are the columns of values to hold or to let go.
type reservationRows struct {
	number []int32
	scope  []string
	key    [][]byte
}

func (r *reservationRows) add(number int32, rs []eventstore.Reservation, keys [][]byte) {
	for i := range rs {
		r.number = append(r.number, number)
		r.scope = append(r.scope, rs[i].Scope)
		r.key = append(r.key, keys[i])
	}
}

// stateRows are the state changes of a batch: a row a table, and for each of the three kinds of changes its rows.
type stateRows struct {
	tables              []string
	fresh, put, removed jsonArrays
}

func (s *stateRows) add(number int, c eventstore.StateChange) {
	i := slices.Index(s.tables, c.Table)
	if i < 0 {
		i = len(s.tables)
		s.tables = append(s.tables, c.Table)
		s.fresh, s.put, s.removed = append(s.fresh, nil), append(s.put, nil), append(s.removed, nil)
	}
	switch {
	case c.Delete:
		s.removed.add(i, number, c.Row)
	case c.New:
		s.fresh.add(i, number, c.Row)
	default:
		s.put.add(i, number, c.Row)
	}
}

// jsonArrays are JSON arrays of rows, each nil or lacking its last bracket.
type jsonArrays [][]byte

func (a jsonArrays) add(i, number int, row []byte) {
	mark := byte(',')
	if a[i] == nil {
		mark = '['
	}
	a[i] = append(append(a[i], mark), `{"append":`...)
	a[i] = append(strconv.AppendInt(a[i], int64(number), 10), ',')
	a[i] = append(a[i], row[1:]...) // a row has at least its primary key
}

// column closes the arrays; one without rows becomes NULL, and so does a column of such.
func (a jsonArrays) column() [][]byte {
	var column [][]byte
	for i, rows := range a {
		if rows != nil {
			if column == nil {
				column = make([][]byte, len(a))
			}
			column[i] = append(rows, ']')
		}
	}
	return column
}
