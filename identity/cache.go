package identity

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// cache keeps the states of users who were read lately. What get answers with is never older than the newest event that the
// cache was told of: outdate keeps a state, and one that is being read at that moment, from being answered with. A state that
// is out of date stays, for a read of the log to go on from.
type cache struct {
	read func(context.Context, uuid.UUID) (*User, error)

	mu      sync.Mutex
	users   *simplelru.LRU[uuid.UUID, known]
	bytes   int // that the users take, about
	reading map[uuid.UUID]*reading
}

// known is a user as some read found the user.
type known struct {
	user    *User
	current bool // as far as the cache was told
	bytes   int
}

// cachedBytes bounds what the states take, however large they are.
const cachedBytes = 32 << 20

// sizeOf is about what a state takes.
func sizeOf(u *User) int {
	const besidesTexts, consented = 1024, 256
	size := besidesTexts + len(u.Attributes) + len(u.document)
	for _, c := range u.consents {
		size += consented + len(c.Client)
		for _, scope := range c.Scopes {
			size += len(scope)
		}
	}
	return size
}

// reading is a read of the log that is on its way. Those who want the same user meanwhile wait for it, unless the user
// changed since it began.
type reading struct {
	done  chan struct{}
	user  *User
	err   error
	stale bool // the user changed since; guarded by the cache's mutex
}

func newCache(size int, read func(context.Context, uuid.UUID) (*User, error)) *cache {
	c := &cache{read: read, reading: map[uuid.UUID]*reading{}}
	users, err := simplelru.NewLRU(size, func(_ uuid.UUID, k known) { c.bytes -= k.bytes })
	if err != nil { // only for a size of 0
		panic(err)
	}
	c.users = users
	return c
}

// put keeps a state, in the place of another of the same user, and drops those that were not used for longest where all of them
// take too much. The mutex is held.
func (c *cache) put(id uuid.UUID, u *User, current bool) {
	if k, ok := c.users.Peek(id); ok {
		c.bytes -= k.bytes
	}
	k := known{u, current, sizeOf(u)}
	c.bytes += k.bytes
	c.users.Add(id, k)
	for c.bytes > cachedBytes {
		c.users.RemoveOldest()
	}
}

// get answers with a user's state, from memory or from the log.
func (c *cache) get(ctx context.Context, id uuid.UUID) (*User, error) {
	for {
		c.mu.Lock()
		if k, ok := c.users.Get(id); ok && k.current {
			c.mu.Unlock()
			return k.user, nil
		}
		r, shared := c.reading[id]
		if !shared || r.stale {
			r = &reading{done: make(chan struct{})}
			c.reading[id] = r
			c.mu.Unlock()
			return c.fill(ctx, id, r)
		}
		c.mu.Unlock()
		select {
		case <-r.done:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		if r.err == nil {
			return r.user, nil
		}
		// The reader failed, perhaps because its own caller went away: read for ourselves.
	}
}

func (c *cache) fill(ctx context.Context, id uuid.UUID, r *reading) (*User, error) {
	r.err = errAborted
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.reading[id] == r {
			delete(c.reading, id)
		}
		if r.err == nil && !r.stale {
			c.put(id, r.user, true)
		}
		close(r.done)
	}()
	r.user, r.err = c.read(ctx, id)
	return r.user, r.err
}

// errAborted is what is left of a read that panicked.
var errAborted = errors.New("read of a user was aborted")

// latest is the newest state of a user that is known, nil where none is.
func (c *cache) latest(id uuid.UUID) *User {
	c.mu.Lock()
	defer c.mu.Unlock()
	k, _ := c.users.Get(id)
	return k.user
}

// keep keeps a state that was read, in the place of the one that the read went on from; unless another has taken that place.
func (c *cache) keep(earlier, u *User) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if k, _ := c.users.Peek(u.ID); u != earlier && k.user == earlier {
		c.put(u.ID, u, false)
	}
}

// outdate says that a user has an event of a version. Version 0 stands for any.
func (c *cache) outdate(id uuid.UUID, version int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r, ok := c.reading[id]; ok {
		r.stale = true
	}
	if k, ok := c.users.Peek(id); ok && k.current && (version == 0 || k.user.Version < version) {
		c.put(id, k.user, false)
	}
}

// forget drops the state of a user.
func (c *cache) forget(id uuid.UUID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r, ok := c.reading[id]; ok {
		r.stale = true
	}
	c.users.Remove(id)
}

// forgetAll drops every state.
func (c *cache) forgetAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range c.reading {
		r.stale = true
	}
	c.users.Purge()
}

// trust says whether the cache may be answered from: whether the events of other processes reach it within
// milliseconds. It may while the log was read to its end lately, and while the wake-ups that tell of commits elsewhere
// have not been interrupted since that read began.
type trust struct {
	caughtUp atomic.Int64 // when the last read to the log's end began, in Unix nanoseconds; 0 for never

	mu      sync.Mutex
	cut     bool // wake-ups don't arrive
	cutting int  // how often they were cut
}

// trustFor is how long a read to the log's end is good for. Follow reads at least every pollInterval.
const trustFor = 2 * time.Second

func (t *trust) holds(now time.Time) bool {
	age := now.UnixNano() - t.caughtUp.Load()
	return age < int64(trustFor)
}

// begin notes that a read to the end of the log begins; the function that it answers with is called once the read is
// done.
func (t *trust) begin(now time.Time) (end func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	cutting := t.cutting
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if !t.cut && cutting == t.cutting {
			t.caughtUp.Store(now.UnixNano())
		}
	}
}

func (t *trust) lose() { t.caughtUp.Store(0) }

func (t *trust) setCut(cut bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cut = cut
	t.cutting++
	t.caughtUp.Store(0)
}
