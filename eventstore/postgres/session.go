package postgres

import (
	"context"
	"crypto/rand"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"usher.example/eventstore"
)

// ErrUnfit: the database, as this user meets it, can't be relied on. The message says what to change. It is an ErrUnavailable as
// well, since a connection that was refused for it may be followed by a good one.
var ErrUnfit = fmt.Errorf("%w: it is not fit for usher", eventstore.ErrUnavailable)

// startup are parameters that a connection begins with, in the place of what a role, a database or a server has for a default. They
// are those that PgBouncer keeps for each of its clients, in every mode; it refuses a connection that has others.
var startup = map[string]string{
	"client_encoding":             "UTF8",
	"datestyle":                   "ISO",
	"timezone":                    "UTC",
	"standard_conforming_strings": "on",
}

// relied are further settings that change what statements mean, and what they have to be.
var relied = []struct{ name, value string }{
	// Appends read the head of the log after they waited for their turn, and rows that others changed meanwhile are changed again.
	{"default_transaction_isolation", "read committed"},
	{"default_transaction_read_only", "off"},
	// Triggers keep an administrator, and refuse what state tables must not have.
	{"session_replication_role", "origin"},
	// Names without a schema are those of public, see inPublic.
	{"search_path", "public"},
}

// inPublic is public wherever the search path leads to its tables, and not to those of the same names in another schema.
const inPublic = `CASE WHEN to_regclass('events') IS NOT DISTINCT FROM to_regclass('public.events')
	AND to_regclass('migrations') IS NOT DISTINCT FROM to_regclass('public.migrations') THEN 'public' ELSE current_setting('search_path') END`

// readSession asks which server process answers, and for the settings that are relied on.
var readSession = func() string {
	columns := []string{"pg_backend_pid()"}
	for _, s := range relied {
		if s.name == "search_path" {
			columns = append(columns, inPublic)
			continue
		}
		columns = append(columns, "current_setting('"+s.name+"')")
	}
	return "SELECT " + strings.Join(columns, ", ")
}()

// prepareSession sees to it that a new connection has the settings that are relied on. It sets them where the connection is to the
// server itself. Where a pooler stands between, which may give each transaction another server connection, or this one's to
// somebody else, nothing is set: it fails with ErrUnfit.
func prepareSession(ctx context.Context, conn *pgx.Conn) error {
	rows, err := simple(ctx, conn, readSession)
	if err != nil {
		return err
	}
	var set, unfit []string
	for i, s := range relied {
		if is := rows[0][1+i]; is != s.value {
			set = append(set, "set_config('"+s.name+"', '"+s.value+"', false)")
			unfit = append(unfit, fmt.Sprintf("%s is %q and has to be %q", s.name, is, s.value))
		}
	}
	if set == nil {
		return nil
	}
	if rows[0][0] == strconv.FormatUint(uint64(conn.PgConn().PID()), 10) {
		if _, err = simple(ctx, conn, "SELECT "+strings.Join(set, ", ")); err == nil {
			return nil
		}
	}
	return fmt.Errorf("%w: %s; reset it by ALTER ROLE %s RESET, or where it is set for the database or the server, and have a pooler connect anew",
		ErrUnfit, strings.Join(unfit, ", "), pgx.Identifier{conn.Config().User}.Sanitize())
}

// simple runs a statement that has no parameters as one exchange that leaves nothing behind, and answers with its rows.
func simple(ctx context.Context, conn *pgx.Conn, sql string) ([][]string, error) {
	results, err := conn.PgConn().Exec(ctx, sql).ReadAll()
	if err != nil {
		return nil, err
	}
	var rows [][]string
	for _, result := range results {
		for _, values := range result.Rows {
			row := make([]string, len(values))
			for i, v := range values {
				row[i] = string(v)
			}
			rows = append(rows, row)
		}
	}
	return rows, nil
}

// checkPooler fails with ErrUnfit where a pooler between here and the server lets no transaction last, or loses statements that are kept
// by name: PgBouncer does so in transaction mode before 1.21, or with its max_prepared_statements at 0.
func (s *Store) checkPooler(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, probeTimeout, errNoServer)
	defer cancel()
	err := s.pool.AcquireFunc(ctx, func(first *pgxpool.Conn) error {
		process, err := serverProcess(ctx, first.Conn())
		if err != nil || process == first.Conn().PgConn().PID() {
			return err // the server itself
		}
		tx, err := first.Begin(ctx)
		if err != nil {
			return fmt.Errorf("%w: a pooler lets no transaction begin, as in statement mode; use transaction or session mode: %w", ErrUnfit, err)
		}
		if err := tx.Rollback(ctx); err != nil || s.commits.config.DefaultQueryExecMode != pgx.QueryExecModeCacheStatement {
			return err
		}
		return s.pool.AcquireFunc(ctx, func(second *pgxpool.Conn) error {
			for range probes {
				if decided, err := probe(ctx, first.Conn(), second.Conn()); decided || err != nil {
					return err
				}
			}
			return nil // each connection has a server connection of its own for as long as it lasts: session mode
		})
	})
	if err != nil && context.Cause(ctx) != nil {
		return fmt.Errorf("%w: %w", eventstore.ErrUnavailable, context.Cause(ctx))
	}
	return err
}

var errNoServer = fmt.Errorf("a pooler gives no second connection within %v; in session mode each process needs as many of its pool as it makes", probeTimeout)

const (
	// A pooler that gives the server connection that was used last, as PgBouncer does unless told otherwise, shows itself at once, and
	// so does one whose server connections go in turn, or are wanted by others.
	probes       = 3
	probeTimeout = 10 * time.Second
)

// probe has the first connection keep a statement, and the second take a server connection. It has decided where they turn out to share
// server connections.
func probe(ctx context.Context, first, second *pgx.Conn) (decided bool, err error) {
	name := "usher_" + rand.Text()
	before, err := serverProcess(ctx, first)
	if err != nil {
		return false, err
	}
	if _, err := first.PgConn().Prepare(ctx, name, "SELECT pg_backend_pid()", nil); err != nil {
		return false, err
	}
	defer first.PgConn().Deallocate(ctx, name) // which may meet another server connection; then the statement stays until that ends
	tx, err := second.Begin(ctx)
	if err != nil {
		return false, err
	}
	defer tx.Rollback(ctx)
	taken, err := serverProcess(ctx, second)
	if err != nil {
		return false, err
	}
	if taken == before { // the same name can be kept twice only where the pooler knows whose it is
		_, err := second.PgConn().Prepare(ctx, name, "SELECT pg_backend_pid()", nil)
		return true, classify(err)
	}
	result := first.PgConn().ExecPrepared(ctx, name, nil, nil, nil).Read()
	if result.Err != nil {
		return true, classify(result.Err)
	}
	return string(result.Rows[0][0]) != strconv.FormatUint(uint64(before), 10), nil
}

// errLost is what it means that a statement that was kept by name is not there, or that another connection's is in its place.
var errLost = fmt.Errorf("%w: a pooler in transaction mode loses prepared statements (PgBouncer before 1.21 does, and later ones with "+
	"max_prepared_statements = 0); add default_query_exec_mode=exec to DATABASE_URL, or use session mode or a later PgBouncer", ErrUnfit)

// serverProcess is the server process that a connection's next statement meets, unless a pooler gives it another one.
func serverProcess(ctx context.Context, conn *pgx.Conn) (pid uint32, err error) {
	rows, err := simple(ctx, conn, "SELECT pg_backend_pid()")
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(rows[0][0], 10, 32)
	return uint32(n), err
}
