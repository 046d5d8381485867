package oidc

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"usher.example/brand"
	"usher.example/client"
	"usher.example/eventstore"
	"usher.example/eventstore/postgres"
	"usher.example/eventstore/sqlite"
	"usher.example/identity"
	"usher.example/identity/password"
	"usher.example/internal/devstack"
	"usher.example/internal/eventcheck"
	"usher.example/pages/look"
	"usher.example/schema"
	"usher.example/server"
	"usher.example/token"
)

func TestMain(m *testing.M) { os.Exit(devstack.Main(m)) }

// database is what both stores are.
type database interface {
	eventstore.Store
	eventstore.DB
	Close()
}

// onBoth runs a test on SQLite and on Postgres.
func onBoth(t *testing.T, test func(t *testing.T, db database)) {
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		test(t, openSQLite(t))
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		test(t, openPostgres(t, postgres.Options{}))
	})
}

func openSQLite(tb testing.TB) database {
	tb.Helper()
	path := devstack.SQLite(tb, "oidc", func(ctx context.Context, path string) error {
		m, err := schema.SQLite(path)
		return migrate(ctx, m, err)
	})
	db, err := sqlite.Open(tb.Context(), path)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(db.Close)
	return db
}

func openPostgres(tb testing.TB, o postgres.Options) database {
	tb.Helper()
	dsn := devstack.Database(tb, "oidc", func(ctx context.Context, dsn string) error {
		m, err := schema.Postgres(dsn)
		return migrate(ctx, m, err)
	})
	db, err := postgres.Open(tb.Context(), dsn, o)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(db.Close)
	return db
}

func migrate(ctx context.Context, m *schema.Migrator, err error) error {
	if err != nil {
		return err
	}
	_, err = m.Up(ctx)
	return errors.Join(err, m.Close())
}

const (
	issuerName = "https://usher.test"
	secret     = "correct horse battery staple"
)

// stack is a provider on a database, of which there may be several on one.
type stack struct {
	tb       testing.TB
	identity *identity.Service
	clients  *client.Registry
	log      *eventstore.Log
	server   *server.Server
	ahead    atomic.Int64 // of the time, in nanoseconds
	keys     *token.KeyRing
}

// shared is what the processes of one deployment have in common.
type shared struct {
	master eventstore.MasterKey
	keys   *token.KeyRing
}

func newShared(tb testing.TB) shared {
	tb.Helper()
	master, _ := eventstore.NewMasterKey()
	access, err := token.GenerateKey(token.ES256, time.Now())
	if err != nil {
		tb.Fatal(err)
	}
	forID, err := token.GenerateKey(token.RS256, time.Now())
	if err != nil {
		tb.Fatal(err)
	}
	keys, err := token.NewKeyRing(access, forID.ForIDTokens())
	if err != nil {
		tb.Fatal(err)
	}
	return shared{master, keys}
}

func newStack(tb testing.TB, db database) *stack {
	tb.Helper()
	return newProcess(tb, db, newShared(tb))
}

func newProcess(tb testing.TB, db database, of shared) *stack {
	tb.Helper()
	s := &stack{tb: tb, keys: of.keys}
	now := func() time.Time { return time.Now().Add(time.Duration(s.ahead.Load())) }
	s.log = eventstore.New(eventcheck.Store(tb, db), of.master, eventstore.Options{})
	tb.Cleanup(func() {
		if err := s.log.Close(context.WithoutCancel(tb.Context())); err != nil {
			tb.Error(err)
		}
	})
	pool, err := password.NewPool(password.PoolConfig{Cost: password.MinCost})
	if err != nil {
		tb.Fatal(err)
	}
	devstack.Background(tb, pool.Run)
	revocations := token.NewRevocations(token.RevocationsConfig{Lifetime: time.Hour})
	s.clients = client.New(client.Config{Log: s.log, DB: db, Now: now, Current: func() bool { return s.identity.Current() }})
	s.identity = identity.New(identity.Config{Log: s.log, Store: db, DB: db, Passwords: pool, RefreshKey: of.master.Derive("refresh-tokens"),
		CodeKey: of.master.Derive("codes"), AccessLifetime: time.Hour, ReuseGrace: 10 * time.Second, SessionEnded: revocations.EndSession,
		ClientChanged: s.clients.Changed, Now: now})
	devstack.Background(tb, func(ctx context.Context) error { return s.identity.Follow(ctx, nil) })
	issuer, err := token.NewIssuer(token.IssuerConfig{Keys: of.keys, Issuer: issuerName, Audience: []string{"usher"}, Lifetime: time.Hour, Now: now})
	if err != nil {
		tb.Fatal(err)
	}
	verifier, err := token.NewVerifier(token.VerifierConfig{Keys: of.keys, Issuer: issuerName, Audience: "usher", Revoked: revocations.Revoked, Now: now})
	if err != nil {
		tb.Fatal(err)
	}
	l, err := look.New(look.Config{Brand: brand.Brand{Name: "usher"}})
	if err != nil {
		tb.Fatal(err)
	}
	output := &devstack.Output{}
	s.server = server.New(server.Config{Identity: s.identity, Log: s.log, Verifier: verifier, Clients: s.clients, Now: now,
		Logger: slog.New(slog.NewTextHandler(output, nil))})
	err = Register(s.server, Config{Issuer: issuer, Keys: of.keys, PublicURL: issuerName, Look: l, CodeKey: of.master.Derive("authorization-codes")})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if tb.Failed() {
			tb.Logf("log output:\n%s", output)
		}
	})
	devstack.Eventually(tb, "the log is followed", s.identity.Current)
	return s
}

// forward moves the time on.
func (s *stack) forward(d time.Duration) { s.ahead.Add(int64(d)) }

// browser is where a user is logged in.
type browser struct {
	*stack
	login  identity.LoginResult
	cookie string
}

// user makes a user, who logs in in a browser.
func (s *stack) user(email string) *browser {
	s.tb.Helper()
	if _, _, err := s.identity.CreateUser(s.tb.Context(), identity.NewUser{Email: email, Name: "Ada Lovelace", Password: secret}); err != nil {
		s.tb.Fatal(err)
	}
	return s.logIn(email)
}

func (s *stack) logIn(email string) *browser {
	s.tb.Helper()
	r, err := s.identity.Login(s.tb.Context(), identity.Credentials{Email: email, Password: secret})
	if err != nil {
		s.tb.Fatal(err)
	}
	return &browser{s, r, string(s.identity.BrowserToken(r.BrowserSession()))}
}

// app is an application that users log in to.
type app struct {
	client.Client
	secret string
}

const callback = "https://app.example/cb"

// app registers one, a first-party application with a secret but for what change says.
func (s *stack) app(change func(*identity.ClientSettings)) app {
	s.tb.Helper()
	settings := identity.ClientSettings{Name: "app-" + uuid.NewString(), RedirectURIs: []string{callback}, PostLogoutRedirectURIs: []string{"https://app.example/bye"}, FirstParty: true}
	if change != nil {
		change(&settings)
	}
	c, secret, _, err := s.clients.Add(s.tb.Context(), settings, uuid.Nil, eventstore.Metadata{Correlation: uuid.New(), Actor: identity.ActorOperator})
	if err != nil {
		s.tb.Fatal(err)
	}
	return app{c, string(secret)}
}

// reply is what a request was answered with.
type reply struct {
	tb     testing.TB
	status int
	header http.Header
	body   string
}

func (s *stack) do(r *http.Request) reply {
	s.tb.Helper()
	w := httptest.NewRecorder()
	s.server.ServeHTTP(w, r.WithContext(s.tb.Context()))
	body, err := io.ReadAll(w.Result().Body)
	if err != nil {
		s.tb.Fatal(err)
	}
	return reply{s.tb, w.Code, w.Header(), string(body)}
}

// get opens an address in the browser; in none that is logged in where b is nil.
func (s *stack) get(b *browser, path string, values url.Values) reply {
	s.tb.Helper()
	r := httptest.NewRequest("GET", issuerName+path+"?"+values.Encode(), nil)
	r.Header.Set("Accept", "text/html")
	if b != nil {
		r.AddCookie(&http.Cookie{Name: "__Host-usher", Value: b.cookie})
	}
	return s.do(r)
}

// post sends a form of a page of ours.
func (s *stack) post(b *browser, path string, values url.Values, headers ...string) reply {
	s.tb.Helper()
	r := httptest.NewRequest("POST", issuerName+path, strings.NewReader(values.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	if b != nil {
		r.AddCookie(&http.Cookie{Name: "__Host-usher", Value: b.cookie})
	}
	return s.do(r)
}

const verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"

func challenge() string {
	sum := sha256.Sum256([]byte(verifier))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// request is a good authorization request, with what more says put in: an empty value takes a parameter away.
func (a app) request(more ...string) url.Values {
	q := url.Values{"client_id": {a.ID.String()}, "redirect_uri": {callback}, "response_type": {"code"}, "scope": {"openid email profile"},
		"state": {"s t"}, "nonce": {"n"}, "code_challenge": {challenge()}, "code_challenge_method": {"S256"}}
	for i := 0; i < len(more); i += 2 {
		if q.Set(more[i], more[i+1]); more[i+1] == "" {
			q.Del(more[i])
		}
	}
	return q
}

// back is what a client was led back with; it fails unless it was.
func (r reply) back() url.Values {
	r.tb.Helper()
	u, err := url.Parse(r.header.Get("Location"))
	if err != nil || r.status != http.StatusSeeOther || !strings.HasPrefix(u.String(), callback) {
		r.tb.Fatalf("answer %d to %q, want back to the client\n%s", r.status, u, r.body)
	}
	q := u.Query()
	if q.Get("iss") != issuerName {
		r.tb.Errorf("the answer %v is of %q", q, q.Get("iss"))
	}
	return q
}

// code lets a user agree, and fails unless there is a code.
func (b *browser) code(a app, more ...string) string {
	b.tb.Helper()
	q := b.get(b, pathAuthorize, a.request(more...)).back()
	if q.Get("code") == "" || q.Get("error") != "" {
		b.tb.Fatalf("no code: %v", q)
	}
	return q.Get("code")
}

// token asks the token endpoint, as the client.
func (s *stack) token(a app, more ...string) reply {
	s.tb.Helper()
	form := url.Values{"client_id": {a.ID.String()}}
	if a.secret != "" {
		form.Set("client_secret", a.secret)
	}
	for i := 0; i < len(more); i += 2 {
		form.Set(more[i], more[i+1])
	}
	return s.post(nil, pathToken, form)
}

func (s *stack) redeem(a app, code string, more ...string) reply {
	s.tb.Helper()
	return s.token(a, append([]string{"grant_type", "authorization_code", "code", code, "redirect_uri", callback, "code_verifier", verifier}, more...)...)
}

func (s *stack) refresh(a app, raw string, more ...string) reply {
	s.tb.Helper()
	return s.token(a, append([]string{"grant_type", "refresh_token", "refresh_token", raw}, more...)...)
}

// granted reads an answer with tokens.
func (r reply) granted() (g granted) {
	r.tb.Helper()
	if err := json.Unmarshal([]byte(r.body), &g); err != nil || r.status != http.StatusOK || g.AccessToken == "" {
		r.tb.Fatalf("answer %d %s, want tokens", r.status, r.body)
	}
	return g
}

// wantError fails unless an answer is an error of OAuth.
func (r reply) wantError(what string, status int, code string) {
	r.tb.Helper()
	var e answer
	if err := json.Unmarshal([]byte(r.body), &e); err != nil || r.status != status || e.Error != code {
		r.tb.Errorf("%s: answer %d %s, want %d %s", what, r.status, r.body, status, code)
	}
}

// bearer asks for something by an access token.
func (s *stack) bearer(path, raw string) reply {
	s.tb.Helper()
	r := httptest.NewRequest("GET", issuerName+path, nil)
	r.Header.Set("Authorization", "Bearer "+raw)
	return s.do(r)
}

// claims of a token, unverified.
func claims(tb testing.TB, raw string) (head, body map[string]any) {
	tb.Helper()
	parts := strings.Split(raw, ".")
	for i, into := range []*map[string]any{&head, &body} {
		text, err := base64.RawURLEncoding.DecodeString(parts[i])
		if err == nil {
			err = json.Unmarshal(text, into)
		}
		if err != nil {
			tb.Fatalf("read %s: %v", raw, err)
		}
	}
	return head, body
}
