package client

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// known keeps the clients that were asked for lately, and whose each key is. What a client is it says only as long as nothing has
// changed; whose a key was it may say for ever, as a key never changes hands.
type known struct {
	mu      sync.Mutex
	clients *simplelru.LRU[uuid.UUID, Client]
	holders *simplelru.LRU[digest, uuid.UUID]
	changes int // that were noticed
	origins origins
}

// maxKnown bounds either.
const maxKnown = 4096

func newKnown() *known {
	clients, err := simplelru.NewLRU[uuid.UUID, Client](maxKnown, nil)
	if err != nil { // only for a size of 0
		panic(err)
	}
	holders, err := simplelru.NewLRU[digest, uuid.UUID](maxKnown, nil)
	if err != nil {
		panic(err)
	}
	return &known{clients: clients, holders: holders}
}

// get answers with what is kept, or else with what is read, which is kept unless any client changed meanwhile.
func (k *known) get(id uuid.UUID, read func() (Client, error)) (Client, error) {
	k.mu.Lock()
	c, ok := k.clients.Get(id)
	before := k.changes
	k.mu.Unlock()
	if ok {
		return c, nil
	}
	c, err := read()
	if err != nil {
		return c, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.changes == before {
		k.clients.Add(id, c)
	}
	return c, nil
}

func (k *known) drop(id uuid.UUID) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.changes++
	if id == uuid.Nil {
		k.clients.Purge()
		return
	}
	k.clients.Remove(id)
}

func (k *known) holder(of digest) (id uuid.UUID, ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.holders.Get(of)
}

func (k *known) hold(of digest, id uuid.UUID) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.holders.Add(of, id)
}

// uses is when each secret and key was noted as used last.
type uses struct {
	mu    sync.Mutex
	noted map[uuid.UUID]time.Time
}

// usedEvery is how exactly it is noted when something was used.
const usedEvery = time.Minute

// due says whether a use is to be noted, which the caller does then.
func (u *uses) due(id uuid.UUID, now time.Time) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if now.Sub(u.noted[id]) < usedEvery {
		return false
	}
	if u.noted == nil || len(u.noted) >= maxKnown {
		u.noted = map[uuid.UUID]time.Time{}
	}
	u.noted[id] = now
	return true
}

// used notes that a secret or a key was used, to the minute. Whether that can be noted is nothing to whoever uses it.
func (r *Registry) used(ctx context.Context, c Credential) {
	now := r.config.Now().UTC()
	if !r.uses.due(c.ID, now) {
		return
	}
	_, err := r.config.DB.Exec(ctx, `UPDATE client_secrets SET used_at = $2 WHERE secret_id = $1 AND (used_at IS NULL OR used_at < $2)`, c.ID, now)
	if err != nil {
		r.config.Logger.WarnContext(ctx, "the use of a client's credential was not noted", slog.Any("error", err))
	}
}
