package postgres

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"usher.example/eventstore"
)

// commitConn is the one connection that commits go over, so that reads never keep a commit waiting. It is made when it
// is needed and made again when it broke.
type commitConn struct {
	config *pgx.ConnConfig
	// connected is called once a connection was made.
	connected func()
	turn      sync.Mutex // held by whoever has taken the connection
	conn      *pgx.Conn
	// statement is append_events, prepared; nil where statements are not kept by name, see ParseConfig.
	statement *pgconn.StatementDescription
	used      time.Time
	stop      func() bool // of the watch that is on
}

// idleCheck is how long the connection may be idle before it is tried: a server that went away meanwhile would leave
// the outcome of the next append unknown for no need.
const idleCheck = time.Second

// take waits for its turn and answers with a connection that is open. It fails with ErrUnavailable, or with
// what the server has against append_events.
func (c *commitConn) take(ctx context.Context) (*commitConn, error) {
	c.turn.Lock()
	if c.conn != nil && !c.conn.IsClosed() && time.Since(c.used) > idleCheck && c.conn.Ping(ctx) != nil {
		c.conn.Close(ctx)
	}
	if c.conn == nil || c.conn.IsClosed() {
		conn, err := c.connect(ctx)
		if err != nil {
			c.turn.Unlock()
			return nil, err
		}
		c.conn = conn
	}
	return c, nil
}

// connect makes the connection, ready for append_events. pgx forgets a statement that it prepared by itself when it fails,
// as append_events may; what is prepared here stays.
func (c *commitConn) connect(ctx context.Context) (*pgx.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, commitTimeout)
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, c.config)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", eventstore.ErrUnavailable, err)
	}
	if err := prepareSession(ctx, conn); err != nil {
		conn.Close(ctx)
		return nil, fmt.Errorf("%w: %w", eventstore.ErrUnavailable, err)
	}
	if c.config.DefaultQueryExecMode == pgx.QueryExecModeCacheStatement {
		if c.statement, err = conn.Prepare(ctx, appendEvents, appendEvents); err != nil {
			conn.Close(ctx)
			if err = classify(err); ctx.Err() != nil {
				err = fmt.Errorf("%w: %w", eventstore.ErrUnavailable, err)
			}
			return nil, err
		}
	}
	c.connected()
	return conn, nil
}

// appendEvents calls append_events, with a time limit, and is cut off when ctx is cancelled. A deadline on the socket does for
// both what pgx would start a goroutine a query for.
func (c *commitConn) appendEvents(ctx context.Context, careful bool, args [][]byte) ([]int64, error) {
	pg, all := c.conn.PgConn(), make([][]byte, 1, 1+len(args))
	if all[0] = []byte{0}; careful {
		all[0][0] = 1
	}
	all = append(all, args...)
	_ = pg.Conn().SetDeadline(time.Now().Add(commitTimeout)) // fails only on a closed connection, as the query then does
	c.stop = context.AfterFunc(ctx, func() { _ = pg.Conn().SetDeadline(time.Unix(1, 0)) })
	var reader *pgconn.ResultReader
	if c.statement != nil {
		reader = pg.ExecStatement(context.Background(), c.statement, all, inBinary, inBinary)
	} else {
		reader = pg.ExecParams(context.Background(), appendEvents, all, nil, inBinary, inBinary)
	}
	result := reader.Read()
	switch {
	case result.Err != nil:
		return nil, result.Err
	case len(result.Rows) != 1 || len(result.Rows[0]) != 1:
		return nil, fmt.Errorf("append_events answered with %d rows", len(result.Rows))
	}
	return int64s(result.Rows[0][0])
}

// inBinary says that all parameters are in binary format, or all columns.
var inBinary = []int16{pgx.BinaryFormatCode}

// release ends the turn. A query that was cut off has closed the connection.
func (c *commitConn) release() {
	if c.stop() {
		_ = c.conn.PgConn().Conn().SetDeadline(time.Time{})
	} else {
		c.conn.Close(context.Background()) // the deadline may still strike
	}
	c.used = time.Now()
	c.turn.Unlock()
}

func (c *commitConn) close() {
	c.turn.Lock()
	defer c.turn.Unlock()
	if c.conn != nil {
		c.conn.Close(context.Background())
	}
}
