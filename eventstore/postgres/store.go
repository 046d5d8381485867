// Package postgres stores the log in Postgres 14 or later.
//
// One server-side function, append_events, is the only writer of events: one statement, one round trip and one
// transaction for a batch of appends. schema/postgres says how it keeps positions gapless and in commit order.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"usher.example/eventstore"
)

// Store is a Postgres database. It implements eventstore.Store and eventstore.DB and is safe for concurrent use.
type Store struct {
	db
	pool    *pgxpool.Pool
	commits commitConn

	partition  int64        // positions in a partition
	ensured    atomic.Int64 // the position up to which there are partitions, as far as this process knows
	eventBytes atomic.Int64 // of the events that were read last, on average; 0 at first
	unfit      atomic.Int64 // when an append last did not fit, in nanoseconds since 1970
	background sync.WaitGroup
	connected  connected
}

var (
	_ eventstore.Store = (*Store)(nil)
	_ eventstore.DB    = (*Store)(nil)
)

// Options of a Store. The zero value is good.
type Options struct {
	MaxConns      int   // for everything but commits, unless the connection string has pool_max_conns; pgx's default when 0
	PartitionSize int64 // positions in a new partition of events; 10,000,000 when 0
	// Configure is called with the configuration of the connections before the first is opened, for tracing and tests.
	Configure func(*pgxpool.Config)
}

const (
	defaultPartition = 10_000_000
	// commitTimeout is when the outcome of a commit is given up as unknown. append_events waits for its turn half as long, so that
	// the server gives up first and the outcome is known.
	commitTimeout = 30 * time.Second
)

// Open connects to a migrated database. It fails with eventstore.ErrUnavailable where the database can't be reached, which may be
// ErrUnfit.
func Open(ctx context.Context, dsn string, o Options) (*Store, error) {
	config, err := ParseConfig(dsn)
	if err != nil {
		return nil, fmt.Errorf("DATABASE_URL: %w", err)
	}
	if o.PartitionSize == 0 {
		o.PartitionSize = defaultPartition
	}
	if o.MaxConns > 0 && !poolMaxConns(dsn) {
		config.MaxConns = int32(o.MaxConns)
	}
	if o.Configure != nil {
		o.Configure(config)
	}
	s := &Store{partition: o.PartitionSize}
	config.AfterConnect = s.connected.after(config.AfterConnect)
	if s.pool, err = pgxpool.NewWithConfig(ctx, config); err != nil {
		return nil, fmt.Errorf("open the database: %w", classify(err))
	}
	s.commits.config, s.commits.connected = config.ConnConfig.Copy(), s.connected.tell
	s.db = db{s.pool}
	if err := s.checkPooler(ctx); err != nil { // before any statement is kept
		s.Close()
		return nil, fmt.Errorf("open the database: %w", classify(err))
	}
	// Whoever only reads may not make partitions, and need not: appends do, see keepAhead.
	var last int64
	if err := s.pool.QueryRow(ctx, "SELECT last_partitioned()").Scan(&last); err != nil {
		s.Close()
		return nil, fmt.Errorf("open the database: %w", classify(err))
	}
	s.ensured.Store(last)
	return s, nil
}

// Close closes every connection, after the queries that are under way.
func (s *Store) Close() {
	s.background.Wait()
	s.commits.close()
	s.pool.Close()
}

// OnConnect implements eventstore.Store.
func (s *Store) OnConnect(made func()) { s.connected.add(made) }

// Stat tells of the connections that everything but commits share.
func (s *Store) Stat() *pgxpool.Stat { return s.pool.Stat() }

func (s *Store) ensurePartitions(ctx context.Context, wanted int64) error {
	if _, err := s.pool.Exec(ctx, "SELECT ensure_partitions($1, $2)", wanted, s.partition); err != nil {
		return fmt.Errorf("make partitions up to %d: %w", wanted, classify(err))
	}
	s.ensured.Store(wanted)
	return nil
}

// keepAhead makes the next partition in the background when the log comes within half a partition of its end.
func (s *Store) keepAhead(head int64) {
	ensured := s.ensured.Load()
	if head+s.partition/2 < ensured || !s.ensured.CompareAndSwap(ensured, head+s.partition) {
		return
	}
	s.background.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), commitTimeout)
		defer cancel()
		if err := s.ensurePartitions(ctx, head+s.partition); err != nil {
			s.ensured.Store(ensured) // the next commit tries again, and one that runs out of partitions makes them itself
		}
	})
}

// Head is the position of the newest event.
func (s *Store) Head(ctx context.Context) (int64, error) {
	var head int64
	err := s.pool.QueryRow(ctx, "SELECT position FROM events ORDER BY position DESC LIMIT 1").Scan(&head)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return 0, fmt.Errorf("read the head: %w", classify(err))
	}
	return head, nil
}

// StreamVersion is the version of a stream's newest event.
func (s *Store) StreamVersion(ctx context.Context, stream uuid.UUID) (int, error) {
	var version int
	err := s.pool.QueryRow(ctx, "SELECT version FROM streams WHERE stream = $1", stream).Scan(&version)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return 0, classify(err)
	}
	return version, nil
}

// DataKeys reads the wrapped data keys of users.
func (s *Store) DataKeys(ctx context.Context, users []uuid.UUID) (map[uuid.UUID][]byte, error) {
	ids := make([][16]byte, len(users)) // pgx encodes each uuid.UUID of a slice by way of a text and an error
	for i, user := range users {
		ids[i] = user
	}
	rows, err := s.pool.Query(ctx, "SELECT user_id, wrapped FROM user_keys WHERE user_id = ANY ($1)", ids)
	if err != nil {
		return nil, classify(err)
	}
	keys := make(map[uuid.UUID][]byte, len(users))
	var user uuid.UUID
	var wrapped []byte
	_, err = pgx.ForEachRow(rows, []any{&user, &wrapped}, func() error {
		keys[user] = wrapped
		wrapped = nil
		return nil
	})
	if err != nil {
		return nil, classify(err)
	}
	return keys, nil
}

// classify maps an error of the database to those of eventstore. No other package looks at an SQLSTATE.
func classify(err error) error {
	var refused *pgconn.PgError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, pgx.ErrNoRows):
		return eventstore.ErrNoRows
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), errors.Is(err, ErrUnfit):
		return err
	case !errors.As(err, &refused):
		if unreachable(err) {
			return fmt.Errorf("%w: %w", eventstore.ErrUnavailable, err)
		}
		return err
	}
	switch refused.Code[:2] {
	case "08", // connection
		"28", "3D", // refused login, no such database: for the running service, the same as not there
		"53", // out of connections, disk or memory
		"57": // shutting down, cancelled
		return fmt.Errorf("%w: %w", eventstore.ErrUnavailable, err)
	}
	switch refused.Code {
	case "25006", // read-only: a standby
		"40P01", "55P03": // deadlock, lock not available: the whole statement was undone
		return fmt.Errorf("%w: %w", eventstore.ErrUnavailable, err)
	case "42501":
		return fmt.Errorf("%w: %w", eventstore.ErrNotPermitted, err)
	case "26000", "42P05": // a statement that was kept is not there, or another's is
		return errLost
	case "23000", // raised by the triggers of state tables alone: what Postgres itself finds has a code of its own
		"23503": // what a row refers to is not there, or something refers to it
		return fmt.Errorf("%w: %w", eventstore.ErrStateRefused, err)
	case "23514": // a check
		if strings.HasPrefix(refused.ConstraintName, eventstore.RetiredKeyGuard) {
			return fmt.Errorf("%w: %w", eventstore.ErrMasterKeyRetired, err)
		}
	}
	return err
}

// unreachable says whether an error that the server did not send means that the connection failed.
func unreachable(err error) bool {
	var network net.Error
	var connect *pgconn.ConnectError
	return errors.As(err, &network) || errors.As(err, &connect) || pgconn.SafeToRetry(err) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, pgx.ErrTxClosed)
}
