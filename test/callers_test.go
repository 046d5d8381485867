package test

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// frontend calls the API as clients behind a load balancer do: any of its processes, another one where that does not
// answer, and again later when it is told to come back.
type frontend struct {
	t    *testing.T
	apis [2]atomic.Pointer[client]

	answered atomic.Int64
	mu       sync.Mutex
	phase    string // of the test, for the figures
	took     map[string][]time.Duration
	busy     int // answers 429 and 503
	broken   int // requests that were not answered
}

// enter begins a phase of the test.
func (f *frontend) enter(phase string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.phase = phase
}

// figures are the percentiles of how long the requests of a kind took in a phase, retries included.
func (f *frontend) figures(phase, kind string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	took := slices.Clone(f.took[phase+" "+kind])
	if len(took) == 0 {
		return "no requests"
	}
	slices.Sort(took)
	at := func(share float64) time.Duration {
		return took[int(share*float64(len(took)-1))].Round(100 * time.Microsecond)
	}
	return fmt.Sprintf("%5d requests, p50 %v, p99 %v, longest %v", len(took), at(0.5), at(0.99), at(1))
}

// The kinds of requests: those that read models answer wait for a worker to take over.
const (
	ofAccounts   = "accounts"
	ofReadModels = "read models"
)

// request is a request that is made until it is answered.
type request struct {
	kind, method, path string
	body               any
	headers            []string
	want               []int // statuses
}

// reply is the answer to a request. It was repeated where an earlier try may have been carried out.
type reply struct {
	answer
	repeated bool
}

// ask makes a request until it is answered with one of the statuses that are wanted.
func (f *frontend) ask(r request) (reply, error) {
	repeated := false
	at := rand.IntN(len(f.apis))
	for begin := time.Now(); ; at++ {
		a, err := f.apis[at%len(f.apis)].Load().call(r.method, r.path, r.body, r.headers...)
		wait := 10 * time.Millisecond
		switch {
		case err != nil:
			// Whom nobody listened to has done nothing yet.
			repeated = repeated || !errors.Is(err, syscall.ECONNREFUSED)
			f.count(func() { f.broken++ })
		case slices.Contains(r.want, a.status):
			took := time.Since(begin)
			f.answered.Add(1)
			f.count(func() { f.took[f.phase+" "+r.kind] = append(f.took[f.phase+" "+r.kind], took) })
			return reply{a, repeated}, nil
		case a.status == http.StatusServiceUnavailable, a.status == http.StatusTooManyRequests:
			seconds, err := strconv.Atoi(a.header.Get("Retry-After"))
			if err != nil {
				return reply{}, fmt.Errorf("%s %s: answer %d without Retry-After: %s", r.method, r.path, a.status, a.body)
			}
			wait = time.Duration(seconds) * time.Second
			repeated = repeated || strings.Contains(string(a.body), "outcome_unknown")
			f.count(func() { f.busy++ })
		default:
			return reply{}, fmt.Errorf("%s %s: answer %d, want one of %v: %s", r.method, r.path, a.status, r.want, a.body)
		}
		if time.Since(begin) > 3*patience {
			return reply{}, fmt.Errorf("%s %s: not answered within %v: %d, %w", r.method, r.path, 3*patience, a.status, err)
		}
		select {
		case <-time.After(wait):
		case <-f.t.Context().Done():
			return reply{}, f.t.Context().Err()
		}
	}
}

func (f *frontend) count(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

// write is a write that was acknowledged.
type write struct {
	event    string // the type of what it appended
	stream   string // the user, or the session
	name     string // that a profile was changed to
	position int64  // 0 where it was not told: the write was found done when it was repeated
}

// callers are people who register, log in, change their profiles, let sessions be refreshed, log out and erase themselves.
type callers struct {
	*frontend
	stopped atomic.Bool
	running sync.WaitGroup

	mu        sync.Mutex
	writes    []write
	uncertain int // logins that may have made a session that nobody knows
}

// startCallers lets n callers go on until they are stopped. Each makes at most 50 requests a second.
func startCallers(f *frontend, n int) *callers {
	c := &callers{frontend: f}
	for i := range n {
		c.running.Go(func() {
			tick := time.NewTicker(20 * time.Millisecond)
			defer tick.Stop()
			for j := 0; !c.stopped.Load(); j++ {
				p := &caller{callers: c, tick: tick, email: fmt.Sprintf("caller%d-%d@example.org", i, j)}
				if err := p.live(j); err != nil {
					f.t.Errorf("%s: %v", p.email, err)
					return
				}
			}
		})
	}
	return c
}

// await waits until some more requests were answered.
func (c *callers) await(more int64) {
	c.t.Helper()
	goal := c.answered.Load() + more
	eventually(c.t, "the callers go on", func() error {
		if now := c.answered.Load(); now < goal {
			return fmt.Errorf("%d of %d requests were answered", now, goal)
		}
		if c.t.Failed() {
			c.t.FailNow()
		}
		return nil
	})
}

// end lets every caller come to an end, and answers with the writes that were acknowledged.
func (c *callers) end() []write {
	c.stopped.Store(true)
	c.running.Wait()
	return c.writes
}

func (c *callers) acknowledged(w write) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.writes = append(c.writes, w)
}

// caller is one of them.
type caller struct {
	*callers
	tick                    *time.Ticker
	email, id               string
	session, token, refresh string
	certain                 bool // the first request to leave was answered
}

func (p *caller) ask(r request) (reply, error) {
	<-p.tick.C
	if r.kind == "" {
		r.kind = ofAccounts
	}
	if p.token != "" {
		name, value := bearer(p.token)
		r.headers = append(r.headers, name, value)
	}
	return p.callers.ask(r)
}

// live is the life of a caller, the j-th of its goroutine.
func (p *caller) live(j int) error {
	if err := cmp.Or(p.register(), p.login()); err != nil {
		return err
	}
	for i := range 3 {
		if err := cmp.Or(p.rename(fmt.Sprintf("%s, %d", p.email, i)), p.renew(i == 1)); err != nil {
			return err
		}
		if i == 1 {
			if _, err := p.ask(request{method: "GET", path: "/v1/me", want: []int{http.StatusOK}}); err != nil {
				return err
			}
		}
	}
	switch j % 4 {
	case 0:
		return p.erase()
	case 1:
		return p.logout()
	}
	return nil
}

func (p *caller) register() error {
	p.apis[0].Load().d.keepSecret(userPassword)
	a, err := p.ask(request{
		method: "POST", path: "/v1/auth/register", want: []int{http.StatusCreated},
		body:    map[string]string{"email": p.email, "password": userPassword, "name": p.email},
		headers: []string{"Idempotency-Key", p.email},
	})
	if err != nil {
		return err
	}
	var created struct{ User user }
	if err := json.Unmarshal(a.body, &created); err != nil {
		return err
	}
	p.id = created.User.ID
	return p.wrote(a, "user.registered", p.id)
}

// wrote notes a write, at the position that its answer tells.
func (p *caller) wrote(a reply, event, stream string) error {
	w := write{event: event, stream: stream}
	var err error
	if w.position, err = a.position(); err != nil {
		return fmt.Errorf("Usher-Position of %s: %w", event, err)
	}
	p.acknowledged(w)
	return nil
}

// tokens are what a session is granted.
type tokens struct {
	Access  string `json:"access_token"`
	Refresh string `json:"refresh_token"`
}

// session is the session of an access token.
func (t tokens) session() (string, error) {
	parts := strings.Split(t.Access, ".")
	if len(parts) != 3 {
		return "", errors.New("the access token is none")
	}
	raw, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return "", err
	}
	var claims struct{ SID string }
	err = json.Unmarshal(raw, &claims)
	return claims.SID, err
}

func (p *caller) login() error {
	a, err := p.ask(request{
		method: "POST", path: "/v1/auth/login", want: []int{http.StatusOK},
		body: map[string]string{"email": p.email, "password": userPassword},
	})
	if err != nil {
		return err
	}
	if a.repeated {
		p.count(func() { p.uncertain++ })
	}
	var granted tokens
	if err := json.Unmarshal(a.body, &granted); err != nil {
		return err
	}
	p.token, p.refresh = granted.Access, granted.Refresh
	if p.session, err = granted.session(); err != nil {
		return err
	}
	return p.wrote(a, "session.started", p.session)
}

// renew exchanges the refresh token; twice at the same time, as two windows of a browser do, the answers have the same
// successor. A session must never be lost by it.
func (p *caller) renew(twice bool) error {
	once := func() (t tokens, err error) {
		a, err := p.callers.ask(request{
			kind: ofAccounts, method: "POST", path: "/v1/auth/refresh", want: []int{http.StatusOK},
			body: map[string]string{"refresh_token": p.refresh},
		})
		if err == nil {
			err = json.Unmarshal(a.body, &t)
		}
		return t, err
	}
	<-p.tick.C
	other := make(chan error, 1)
	var second tokens
	if twice {
		go func() {
			var err error
			second, err = once()
			other <- err
		}()
	} else {
		other <- nil
	}
	granted, err := once()
	if err = errors.Join(err, <-other); err != nil {
		return err
	}
	if twice && second.Refresh != granted.Refresh {
		return errors.New("two refreshes at the same time have different successors")
	}
	if granted.Refresh == p.refresh {
		return errors.New("the refresh token was not replaced")
	}
	session, err := granted.session()
	if err == nil && session != p.session {
		err = fmt.Errorf("a refresh of session %s is answered with session %s", p.session, session)
	}
	p.token, p.refresh = granted.Access, granted.Refresh
	return err
}

// rename changes the caller's name, and looks for that in a read model.
func (p *caller) rename(name string) error {
	a, err := p.ask(request{method: "PATCH", path: "/v1/me", want: []int{http.StatusOK}, body: map[string]string{"name": name}})
	if err != nil {
		return err
	}
	w := write{event: "user.profile_updated", stream: p.id, name: name}
	if !a.repeated {
		if w.position, err = a.position(); err != nil {
			return fmt.Errorf("Usher-Position of a change: %w", err)
		}
	}
	p.acknowledged(w)
	if w.position%8 != 1 { // of a few it is enough
		return nil
	}
	list, err := p.ask(request{
		kind: ofReadModels, method: "GET", path: "/v1/me/activity?limit=1", want: []int{http.StatusOK},
		headers: []string{"Usher-Min-Position", strconv.FormatInt(w.position, 10)},
	})
	if err != nil {
		return err
	}
	var page struct{ Items []event }
	if err := json.Unmarshal(list.body, &page); err != nil {
		return err
	}
	if len(page.Items) != 1 || page.Items[0].Position != w.position {
		return fmt.Errorf("the newest activity at position %d is %+v", w.position, page.Items)
	}
	return nil
}

// logout ends the session. When it is repeated, the access token may be refused by then.
func (p *caller) logout() error {
	return p.leave(request{method: "POST", path: "/v1/auth/logout"}, "session.ended", p.session)
}

// erase erases the caller, who can't log in any more. Where the answer was lost, the process that was killed may have ended
// the sessions and no more: then whichever starts next carries the erasure through, and until then the caller still can.
func (p *caller) erase() error {
	err := p.leave(request{method: "DELETE", path: "/v1/me", body: map[string]string{"current_password": userPassword}}, "user.erased", p.id)
	if err != nil {
		return err
	}
	p.token = ""
	for begin := time.Now(); ; {
		a, err := p.ask(request{
			method: "POST", path: "/v1/auth/login", want: []int{http.StatusUnauthorized, http.StatusOK},
			body: map[string]string{"email": p.email, "password": userPassword},
		})
		if err != nil || a.status == http.StatusUnauthorized {
			return err
		}
		if p.certain || time.Since(begin) > 3*patience {
			return fmt.Errorf("logged in after DELETE /v1/me, which was answered: %v", p.certain)
		}
		p.count(func() { p.uncertain++ }) // a session that nobody uses
	}
}

// leave makes a request after which the access token is refused.
func (p *caller) leave(r request, event, stream string) error {
	r.want = []int{http.StatusNoContent, http.StatusUnauthorized}
	a, err := p.ask(r)
	switch {
	case err != nil:
		return err
	case a.repeated:
		p.acknowledged(write{event: event, stream: stream})
		return nil
	case a.status != http.StatusNoContent:
		return fmt.Errorf("%s %s: answer %d: %s", r.method, r.path, a.status, a.body)
	}
	p.certain = true
	return p.wrote(a, event, stream)
}
