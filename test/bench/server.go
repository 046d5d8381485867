package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime/debug"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v5"
	"golang.org/x/sync/errgroup"

	"usher.example/api"
	"usher.example/brand"
	oauth "usher.example/client"
	"usher.example/eventstore"
	"usher.example/eventstore/postgres"
	"usher.example/identity"
	"usher.example/identity/password"
	"usher.example/internal/devstack"
	"usher.example/oidc"
	"usher.example/pages"
	"usher.example/pages/look"
	"usher.example/projections"
	"usher.example/server"
	"usher.example/token"
)

// Servers run in processes of their own, so that the clients' work is not taken for theirs.

// serverEnv holds the serverConfig of the server that a process was started to be.
const serverEnv = "USHER_BENCH_SERVER"

// serverKind is what a server is.
type serverKind string

const (
	usherServer     serverKind = "usher"            // the API as it is
	unboundedServer serverKind = "unbounded"        // the API with a login that hashes wherever the request is
	bareServer      serverKind = "bare"             // GET /v1/me that verifies the token and returns a constant
	bareRemembering serverKind = "bare-remembering" // the same with the memory of verified tokens
	barePage        serverKind = "bare-page"        // GET /login that returns a constant
	bareRefresh     serverKind = "bare-refresh"     // sessions in a table, see bareAccounts
	bareRow         serverKind = "bare-row"         // users in a table, see bareAccounts
	bareGrant       serverKind = "bare-grant"       // POST /oauth2/token that signs
	readingServer   serverKind = "reading"          // the API, and a row before each answer
	receivingServer serverKind = "receiving"        // the endpoint of a webhook
)

type serverConfig struct {
	Kind      serverKind
	DSN       string
	MasterKey string
	Cost      int
	Me        []byte  // what the bare ones return
	Client    service // whom bareGrant gives tokens, and whose row readingServer reads
}

const (
	tokenIssuer   = "https://users.example.org"
	tokenAudience = "bench"

	accessLifetime = time.Hour
)

// httpServer is a server that runs.
type httpServer struct {
	address string
	process *process
}

// serve starts a server on a log.
func (s *stage) serve(l *logOn, c serverConfig) (*httpServer, error) {
	c.DSN, c.MasterKey = l.dsn, l.masterKey
	config, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(program)
	cmd.Env = append(os.Environ(), serverEnv+"="+string(config))
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := devstack.Spawn(cmd); err != nil {
		return nil, err
	}
	s.after(func() error { return errors.Join(stdin.Close(), cmd.Wait()) })
	address, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		return nil, fmt.Errorf("start the %s server: %w", c.Kind, err)
	}
	h := &httpServer{address: strings.TrimSpace(address), process: single(string(c.Kind)+" server", cmd.Process.Pid)}
	s.account(h.process)
	return h, nil
}

// runServerIfChild runs the server that this process was started to be, and then exits. In any other process it returns
// at once.
func runServerIfChild() {
	config := os.Getenv(serverEnv)
	if config == "" {
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // the parent's end is ours
		stop()
	}()
	if err := runServer(ctx, config); err != nil {
		fmt.Fprintln(os.Stderr, "bench server:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func runServer(ctx context.Context, config string) error {
	var c serverConfig
	if err := json.Unmarshal([]byte(config), &c); err != nil {
		return err
	}
	master, err := eventstore.ParseMasterKey(c.MasterKey)
	if err != nil {
		return err
	}
	debug.SetGCPercent(gcPercent)
	store, err := postgres.Open(ctx, c.DSN, postgres.Options{})
	if err != nil {
		return err
	}
	defer store.Close()
	if master, err = eventstore.Unlock(ctx, store, master); err != nil {
		return err
	}
	log := eventstore.New(store, master, eventstore.Options{})
	group, ctx := errgroup.WithContext(ctx)
	handler, err := newHandler(ctx, group, c, store, log)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(listener.Addr())
	server := &http.Server{Handler: handler, ReadHeaderTimeout: time.Minute}
	group.Go(func() error {
		<-ctx.Done()
		return server.Close()
	})
	group.Go(func() error {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	err = group.Wait()
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	return err
}

// newHandler puts the API together as `usher serve` does. What has to run beside it runs in the group.
func newHandler(ctx context.Context, group *errgroup.Group, c serverConfig, store *postgres.Store, log *eventstore.Log) (http.Handler, error) {
	if c.Kind == receivingServer {
		return receiver(), nil
	}
	if c.Kind == barePage {
		return bareLoginPage(c.Me), nil
	}
	pool, err := password.NewPool(password.PoolConfig{Cost: c.Cost})
	if err != nil {
		return nil, err
	}
	revocations := token.NewRevocations(token.RevocationsConfig{Lifetime: accessLifetime})
	var users *identity.Service
	clients := oauth.New(oauth.Config{Log: log, DB: store, Logger: quiet, Current: func() bool { return users.Current() }})
	users = identity.New(identity.Config{
		Log: log, Store: store, DB: store, Passwords: pool, Logger: quiet, RefreshKey: make([]byte, 32), ReuseGrace: 10 * time.Second,
		AccessLifetime: accessLifetime, SessionEnded: revocations.EndSession, ClientChanged: clients.Changed,
	})
	keys, err := keyRing(ctx, users)
	if err != nil {
		return nil, err
	}
	remember := 0
	if c.Kind == bareServer {
		remember = -1
	}
	verifier, err := token.NewVerifier(token.VerifierConfig{
		Keys: keys, Issuer: tokenIssuer, Audience: tokenAudience, Remember: remember, Revoked: revocations.Revoked,
	})
	if err != nil {
		return nil, err
	}
	if c.Kind == bareServer || c.Kind == bareRemembering {
		return bareMe(verifier, c.Me), nil
	}
	issuer, err := token.NewIssuer(token.IssuerConfig{Keys: keys, Issuer: tokenIssuer, Audience: []string{tokenAudience}, Lifetime: accessLifetime})
	if err != nil {
		return nil, err
	}
	if c.Kind == bareGrant {
		return bareGrants(issuer, c.Client), nil
	}
	if c.Kind == bareRefresh || c.Kind == bareRow {
		return newBareAccounts(ctx, c.DSN, issuer, verifier)
	}
	group.Go(func() error { return pool.Run(ctx) })
	group.Go(func() error {
		committed, stop := log.Watch()
		defer stop()
		return users.Follow(ctx, committed)
	})
	front := server.New(server.Config{Identity: users, Log: log, Verifier: verifier, Clients: clients, PlainHTTP: true, Logger: quiet})
	api.Register(front, api.Config{
		Passwords: pool, Issuer: issuer,
		Users: projections.Users{DB: store, CursorKey: make([]byte, 32)}, Checkpoints: projections.NewCheckpoints(store),
		CursorKey: make([]byte, 32),
		Outbox:    func(context.Context) (api.Outbox, error) { return api.Outbox{}, nil },
	})
	oidc.Register(front, oidc.Config{Issuer: issuer, Keys: keys, PublicURL: "http://localhost"})
	l, err := look.New(look.Config{Brand: brand.Brand{Name: "bench"}})
	if err != nil {
		return nil, err
	}
	if err := pages.Register(front, pages.Config{Look: l, PublicURL: "http://localhost"}); err != nil {
		return nil, err
	}
	if c.Kind == readingServer {
		return withRow(front, store, c.Client), nil
	}
	if c.Kind == unboundedServer {
		return unboundedLogins(front, &unbounded{store, log, users, issuer}), nil
	}
	return front, nil
}

// keyRing is the key that all the processes of a lab share.
func keyRing(ctx context.Context, users *identity.Service) (*token.KeyRing, error) {
	err := users.EnsureSigningKey(ctx, identity.KeyWish{Algorithm: string(token.DefaultAlgorithm), Generate: func() (string, []byte, error) {
		key, err := token.GenerateKey(token.DefaultAlgorithm, time.Now())
		if err != nil {
			return "", nil, err
		}
		private, err := key.MarshalPrivate()
		return key.ID(), private, err
	}})
	if err != nil {
		return nil, err
	}
	stored, err := users.UseSigningKeys(ctx)
	if err != nil {
		return nil, err
	}
	key, err := token.ParsePrivate(token.DefaultAlgorithm, stored[0].Private, stored[0].CreatedAt)
	if err != nil {
		return nil, err
	}
	return token.NewKeyRing(key)
}

// bareMe is the least that a GET /v1/me can be: it verifies the token and returns the same bytes.
func bareMe(verifier *token.Verifier, me []byte) http.Handler {
	e := echo.New()
	e.GET("/v1/me", func(c *echo.Context) error {
		raw, _ := strings.CutPrefix(c.Request().Header.Get(echo.HeaderAuthorization), "Bearer ")
		if _, err := verifier.Verify(raw); err != nil {
			return echo.NewHTTPError(http.StatusUnauthorized, "")
		}
		return c.JSONBlob(http.StatusOK, me)
	})
	return e
}

// unbounded logs in without a pool: each request hashes where it is, however many there are.
type unbounded struct {
	store  *postgres.Store
	log    *eventstore.Log
	users  *identity.Service
	issuer *token.Issuer
}

// unboundedLogins is the API with another login.
func unboundedLogins(server http.Handler, u *unbounded) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != loginPath {
			server.ServeHTTP(w, r)
			return
		}
		access, err := u.login(r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set(echo.HeaderContentType, echo.MIMEApplicationJSON)
		_ = json.NewEncoder(w).Encode(loginAnswer{AccessToken: access}) // the client notices
	})
}

func (u *unbounded) login(r *http.Request) (access string, err error) {
	ctx := r.Context()
	var body loginBody
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		return "", err
	}
	var id uuid.UUID
	var hash string
	key := u.log.Sealer().ReservationKey(eventstore.Reservation{Scope: "email", Value: body.Email})
	if err := u.store.QueryRow(ctx, `SELECT r.stream, c.hash FROM reservations r JOIN credentials c ON c.user_id = r.stream
		WHERE r.scope = 'email' AND r.key = $1`, key).Scan(&id, &hash); err != nil {
		return "", err
	}
	if right, err := password.Verify(password.Hash(hash), password.Password(body.Password)); err != nil || !right {
		return "", errors.Join(err, identity.ErrInvalidCredentials)
	}
	user, err := u.users.User(ctx, id)
	if err != nil {
		return "", err
	}
	session, err := uuid.NewV7()
	if err != nil {
		return "", err
	}
	now := time.Now().UTC()
	expires := now.Add(90 * 24 * time.Hour)
	row, err := json.Marshal(map[string]any{"session_id": session, "user_id": id, "counter": 0, "started_at": now, "rotated_at": now, "expires_at": expires})
	if err != nil {
		return "", err
	}
	if _, err := u.log.Append(ctx, eventstore.Append{
		Stream:   eventstore.SessionStream(session, id),
		Expected: eventstore.NoStream,
		Events:   []eventstore.NewEvent{identity.NewEvent(identity.SessionStarted{Methods: []string{identity.MethodPassword}, ExpiresAt: expires})},
		Metadata: eventstore.Metadata{Correlation: session, Actor: identity.ActorUser(id), Address: r.RemoteAddr, UserAgent: r.UserAgent()},
		State:    []eventstore.StateChange{{Table: "sessions", Row: row}},
	}); err != nil {
		return "", err
	}
	access, _, err = u.issuer.Issue(token.Grant{Subject: id.String(), Session: session.String(), Roles: user.Roles})
	return access, err
}
