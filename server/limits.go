package server

import (
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"github.com/labstack/echo/v5"

	"usher.example/identity"
)

// Quota is how often a network, or a user, may ask for something: so often at once, and then once in an interval. Behind one address may
// be an office or a mobile carrier, so the numbers are large.
type Quota struct {
	Burst int
	Every time.Duration
}

// What a client may do who is not logged in, and what a caller may change, by whatever surface. The numbers are in the document too.
var (
	QuotaRegister = Quota{2000, 500 * time.Millisecond}
	QuotaLogin    = Quota{5000, 50 * time.Millisecond}
	QuotaRefresh  = Quota{10000, 20 * time.Millisecond}
	QuotaCode     = Quota{120, time.Second}     // that is used
	QuotaMail     = Quota{120, 2 * time.Second} // that is asked for
	QuotaDevice   = Quota{120, time.Second}     // that asks to be let in
	QuotaChange   = Quota{300, time.Second}     // of a user
	QuotaAdmin    = Quota{20000, 10 * time.Millisecond}
)

// limits keeps any one network or user from taking up this process, which is why each process counts for itself, in memory, and at
// the cost of no query: with more processes there is more to be had. What has to be bounded for all of them together is
// bounded where it is decided and in the database: guesses at passwords (identity.ErrThrottled), and mails to a user.
//
// It remembers those who asked last. Who is forgotten may ask as often as who never did.
type limits struct {
	now func() time.Time

	mu    sync.Mutex
	spent *simplelru.LRU[spender, time.Time] // when all that was spent will have come back
}

// spender is a network or a user that asks for something.
type spender struct {
	quota *Quota
	name  string
}

// maxSpenders bounds the memory, to some ten megabytes.
const maxSpenders = 1 << 16

func newLimits(now func() time.Time) *limits {
	spent, err := simplelru.NewLRU[spender, time.Time](maxSpenders, nil)
	if err != nil { // only for a size of 0
		panic(err)
	}
	return &limits{now: now, spent: spent}
}

// spend takes one of what a network or a user may have. It fails with CodeRateLimited where there is none left, and says when there
// is again. (That is the generic cell rate algorithm, ITU-T I.371: a token bucket kept as one time.)
func (l *limits) spend(of *Quota, name string) error {
	now := l.now()
	l.mu.Lock()
	defer l.mu.Unlock()
	by := spender{of, name}
	full, _ := l.spent.Get(by)
	if full.Before(now) {
		full = now
	}
	full = full.Add(of.Every)
	if wait := full.Sub(now) - time.Duration(of.Burst)*of.Every; wait > 0 {
		return &identity.Error{Code: CodeRateLimited, Detail: "there are too many requests of this kind", RetryAfter: wait}
	}
	l.spent.Add(by, full)
	return nil
}

// spend takes one of what a network or a user may have, where there are limits, and counts who is refused. It fails with
// CodeRateLimited.
func (s *Server) spend(c *echo.Context, of *Quota, name string) error {
	if !s.RateLimits {
		return nil
	}
	err := s.limits.spend(of, name)
	if err != nil {
		s.metrics.limited.WithLabelValues(c.Path()).Inc()
	}
	return err
}
