package identity

import (
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// doubts are about sessions that the log may not have: their access tokens were given out, and then the database was restored or
// gave way to a standby that lacked its newest commits. Nothing tells of them, as nothing of them happened. So while such tokens
// may be good, which is an access token's lifetime after the log was found to be another one, and after a start, since it may
// have become another one before, a session is looked up in the log once before memory is believed.
type doubts struct {
	lifetime time.Duration

	mu      sync.Mutex
	until   time.Time
	settled *simplelru.LRU[uuid.UUID, struct{}] // sessions that were found since
	round   int
}

// maxSettled bounds the sessions that need not be looked up again.
const maxSettled = 1 << 16

func newDoubts(lifetime time.Duration, now time.Time) *doubts {
	settled, err := simplelru.NewLRU[uuid.UUID, struct{}](maxSettled, nil)
	if err != nil { // only for a size of 0
		panic(err)
	}
	d := &doubts{lifetime: lifetime, settled: settled}
	d.begin(now)
	return d
}

// begin doubts every session.
func (d *doubts) begin(now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.until = now.Add(d.lifetime + keyMargin)
	d.round++
	d.settled.Purge()
}

// about says whether a session is doubted. If so, settle is to be called once it was found in the log; it counts for nothing if
// there is a doubt that is newer.
func (d *doubts) about(session uuid.UUID, now time.Time) (settle func(), doubted bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !now.Before(d.until) || d.settled.Contains(session) {
		return nil, false
	}
	round := d.round
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if round == d.round {
			d.settled.Add(session, struct{}{})
		}
	}, true
}
