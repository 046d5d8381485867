package projections

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"usher.example/eventstore"
)

// Checkpoints tells how far the projections are, and waits for them. There is one in a process; the runners of the same
// process tell it at once, and those of other processes are seen in the database.
type Checkpoints struct {
	db eventstore.DB

	mu    sync.Mutex
	known map[string]*progress
}

// progress is what is known of one projection. A checkpoint that was once reached stays reached, unless the database gave way
// to another, see Forget.
type progress struct {
	reached int64
	moved   chan struct{} // closed when reached grows
	asked   time.Time     // when the database was last asked
	asking  bool
}

// NewCheckpoints makes a Checkpoints on a database.
func NewCheckpoints(db eventstore.DB) *Checkpoints {
	return &Checkpoints{db: db, known: map[string]*progress{}}
}

// How often the database is asked while somebody waits, however many wait.
const (
	firstAsk = 2 * time.Millisecond
	lastAsk  = 50 * time.Millisecond
)

// Await waits until a read model has reached a position, and returns at once if it has. It fails with ErrBehind if ctx
// ends first, and with ErrUnavailable if the database can't be asked. A read model that nobody has made yet is one that
// has reached nothing.
func (c *Checkpoints) Await(ctx context.Context, name string, position int64) error {
	wait := time.Duration(0)
	for {
		moved, ask := c.look(name, position, wait)
		if moved == nil {
			return nil
		}
		if ask {
			err := c.ask(ctx, name)
			switch {
			case ctx.Err() != nil:
			case err != nil:
				return fmt.Errorf("await %s at %d: %w", name, position, err)
			default:
				wait = min(max(2*wait, firstAsk), lastAsk)
				continue
			}
		}
		timer := time.NewTimer(max(wait, firstAsk))
		select {
		case <-moved:
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("await %s at %d: %w: it is at %d", name, position, ErrBehind, c.reached(name))
		}
		timer.Stop()
	}
}

// look answers with nil if the position is reached, else with what is closed at the next move; and says whether the
// caller is the one to ask the database, because nobody has within the given time.
func (c *Checkpoints) look(name string, position int64, wait time.Duration) (moved <-chan struct{}, ask bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.progress(name)
	if p.reached >= position {
		return nil, false
	}
	if !p.asking && time.Since(p.asked) >= wait {
		p.asking = true
		return p.moved, true
	}
	return p.moved, false
}

func (c *Checkpoints) progress(name string) *progress {
	p := c.known[name]
	if p == nil {
		p = &progress{reached: -1, moved: make(chan struct{})}
		c.known[name] = p
	}
	return p
}

func (c *Checkpoints) reached(name string) int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return max(c.progress(name).reached, 0)
}

func (c *Checkpoints) ask(ctx context.Context, name string) error {
	var at int64
	err := c.db.QueryRow(ctx, "SELECT checkpoint FROM projections WHERE name = $1", name).Scan(&at)
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.progress(name)
	p.asking, p.asked = false, time.Now()
	switch {
	case errors.Is(err, eventstore.ErrNoRows):
		return nil
	case err != nil:
		return err
	}
	p.move(at)
	return nil
}

// Forget drops what is known of all projections: the log is another one than it was read before.
func (c *Checkpoints) Forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.known {
		p.reached, p.asked = -1, time.Time{}
	}
}

// set is told by the runner where it begins, which may be before where it was.
func (c *Checkpoints) set(name string, at int64) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.progress(name)
	p.reached = min(p.reached, at)
	p.move(at)
}

// move is told by the runner after each commit.
func (c *Checkpoints) move(name string, to int64) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.progress(name).move(to)
}

func (p *progress) move(to int64) {
	if to > p.reached {
		p.reached = to
		close(p.moved)
		p.moved = make(chan struct{})
	}
}

// Status is what there is to know of a projection.
type Status struct {
	Name        string    `json:"name"`
	Generation  int       `json:"generation"`
	CodeVersion int       `json:"code_version"` // of the code that filled the live generation
	State       State     `json:"state"`
	Position    int64     `json:"position"` // its checkpoint
	Lag         int64     `json:"lag"`      // events from there to the head of the log
	Error       string    `json:"error,omitempty"`
	Rebuild     *Rebuild  `json:"rebuild,omitempty"`
	Standby     *Standby  `json:"standby,omitempty"`
	ParkedUsers int       `json:"parked_users,omitempty"`
	ParkedCount int       `json:"parked_events,omitempty"`
	Parked      []Parked  `json:"parked,omitempty"` // the poison events, the oldest 20
	SkipCount   int       `json:"skipped_events,omitempty"`
	Skipped     []Skipped `json:"skipped,omitempty"` // events that the live generation lacks, the newest 20
	UpdatedAt   time.Time `json:"updated_at"`
}

// Standby is the generation that a rollback makes the live one again.
type Standby struct {
	Generation  int    `json:"generation"`
	CodeVersion int    `json:"code_version"`
	Position    int64  `json:"position"`
	Error       string `json:"error,omitempty"` // why it is held up
}

// List answers with the status of every projection, in the order of their names.
func (c *Checkpoints) List(ctx context.Context) ([]Status, error) {
	list, err := c.list(ctx, "")
	if err != nil {
		return nil, fmt.Errorf("list projections: %w", err)
	}
	return list, nil
}

// Status answers with the status of one projection. It fails with ErrUnknownProjection.
func (c *Checkpoints) Status(ctx context.Context, name string) (Status, error) {
	list, err := c.list(ctx, name)
	if err == nil && len(list) == 0 {
		err = ErrUnknownProjection
	}
	if err != nil {
		return Status{}, fmt.Errorf("status of %s: %w", name, err)
	}
	return list[0], nil
}

func (c *Checkpoints) list(ctx context.Context, name string) ([]Status, error) {
	rows, err := c.db.Query(ctx, `
		SELECT p.name, p.generation, p.code_version, p.checkpoint, p.state, p.error, p.updated_at,
		       (SELECT coalesce(max(position), 0) FROM events),
		       (SELECT count(DISTINCT subject) FROM parked_events e WHERE e.projection = p.name),
		       (SELECT count(*) FROM parked_events e WHERE e.projection = p.name),
		       (SELECT count(*) FROM skipped_events e WHERE e.projection = p.name AND e.generation = p.generation),
		       EXISTS (SELECT 1 FROM leases l WHERE l.name = '`+leasePrefix+`' || p.name AND l.expires_at > `+eventstore.Clock(c.db.Dialect())+`),
		       coalesce(n.state, ''), coalesce(n.generation, 0), coalesce(n.position, 0), coalesce(n.target, 0), coalesce(n.rate, 0), coalesce(n.error, ''),
		       coalesce(s.generation, 0), coalesce(s.code_version, 0), coalesce(s.position, 0), coalesce(s.error, '')
		  FROM projections p
		  LEFT JOIN projection_generations n ON n.projection = p.name AND n.role = 'next'
		  LEFT JOIN projection_generations s ON s.projection = p.name AND s.role = 'standby'
		 WHERE $1 IN ('', p.name)
		 ORDER BY p.name`, name)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	list := []Status{}
	for rows.Next() {
		s, err := scanStatus(rows)
		if err != nil {
			return nil, err
		}
		list = append(list, s)
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	for i := range list {
		s := &list[i]
		if s.ParkedCount > 0 {
			if s.Parked, err = poisonEvents(ctx, c.db, s.Name); err != nil {
				return nil, err
			}
		}
		if s.SkipCount > 0 {
			if s.Skipped, err = skippedEvents(ctx, c.db, s.Name, s.Generation); err != nil {
				return nil, err
			}
		}
	}
	return list, nil
}

func scanStatus(row eventstore.Row) (s Status, err error) {
	var (
		state, rebuild string
		head           int64
		held           bool
		next           Rebuild
		standby        Standby
	)
	err = row.Scan(&s.Name, &s.Generation, &s.CodeVersion, &s.Position, &state, &s.Error, &s.UpdatedAt, &head,
		&s.ParkedUsers, &s.ParkedCount, &s.SkipCount, &held,
		&rebuild, &next.Generation, &next.Position, &next.Target, &next.Rate, &next.Error,
		&standby.Generation, &standby.CodeVersion, &standby.Position, &standby.Error)
	if err != nil {
		return s, err
	}
	s.State, s.Lag, s.UpdatedAt = State(state), max(head-s.Position, 0), s.UpdatedAt.UTC()
	switch s.State {
	case StatePaused, StateFailing, StateOutdated:
	default:
		if !held {
			s.State = StateStopped
		}
	}
	if next.Generation > 0 {
		next.State, next.Target = RebuildState(rebuild), max(next.Target, s.Position)
		next.estimate()
		s.Rebuild = &next
	}
	if standby.Generation > 0 {
		s.Standby = &standby
	}
	return s, nil
}
