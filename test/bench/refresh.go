package main

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/labstack/echo/v5"

	"usher.example/eventstore"
	"usher.example/token"
)

const (
	sessionCallers = 16
	bareSessions   = `CREATE TABLE bare_sessions (id uuid PRIMARY KEY, user_id uuid NOT NULL, counter bigint NOT NULL, rotated_at timestamptz NOT NULL)`
	bareUsers      = `CREATE TABLE bare_users (id uuid PRIMARY KEY, email text NOT NULL, name text NOT NULL, created_at timestamptz NOT NULL)`
)

func sessionBenches() []bench {
	return []bench{refreshBench(), meRowBench()}
}

func refreshBench() bench {
	return bench{
		about: fmt.Sprintf("POST /v1/auth/refresh, %d clients, a session each", sessionCallers),
		lines: []line{{
			name: "refresh", subject: usher, yardstick: bare, show: rate,
			against: "bare Echo and pgx: read the row, check the MAC, update it in one transaction, sign",
			targets: []target{cpuAtMost(1.6)},
		}},
		setup: func(s *stage) ([]side, error) {
			return sessionSides(s, bareRefresh, func(server *httpServer, v visitor) (func(*client) error, error) {
				return refresher(server, v.refresh)
			})
		},
	}
}

func meRowBench() bench {
	return bench{
		about: fmt.Sprintf("GET /v1/me, %d clients, revocation on", sessionCallers),
		lines: []line{{
			name: "me-row", subject: usher, yardstick: bare, show: rate,
			against: "bare Echo and pgx: verifies the token, reads the user's row",
			targets: []target{cpuAtMost(0.7)},
		}},
		setup: func(s *stage) ([]side, error) {
			return sessionSides(s, bareRow, func(_ *httpServer, v visitor) (func(*client) error, error) {
				return func(c *client) error { _, err := c.do(v.me); return err }, nil
			})
		},
	}
}

// sessionSides measures usher against a bare server on the same database. Each client has a user and a session of its own,
// and does what act makes of them. Only the CPU of server and database is counted.
func sessionSides(s *stage, kind serverKind, act func(*httpServer, visitor) (func(*client) error, error)) ([]side, error) {
	l, err := s.openLog(eventstore.Options{})
	if err != nil {
		return nil, err
	}
	var sides []side
	for name, kind := range map[string]serverKind{usher: usherServer, bare: kind} {
		server, err := s.serve(l, serverConfig{Kind: kind, Cost: cheapCost})
		if err != nil {
			return nil, err
		}
		visitors, err := s.register(server, sessionCallers)
		if err != nil {
			return nil, err
		}
		acts := make([]func(*client) error, sessionCallers)
		for i := range visitors {
			if err := visitors[i].enter(server); err != nil {
				return nil, err
			}
			if acts[i], err = act(server, visitors[i]); err != nil {
				return nil, err
			}
		}
		clients, err := s.dial(server, sessionCallers)
		if err != nil {
			return nil, err
		}
		sides = append(sides, side{name: name, counts: []*process{server.process, s.postgres}, run: func(ctx context.Context, length time.Duration) (tally, error) {
			return hammer(ctx, sessionCallers, length, func(_ context.Context, caller int) error {
				return acts[caller](clients[caller])
			})
		}})
	}
	return sides, nil
}

// refresher refreshes a session over and over, each time with the token that it got before.
func refresher(server *httpServer, first string) (func(*client) error, error) {
	next, err := request(server.address, refreshPath, "", refreshBody{first})
	return func(c *client) error {
		raw, err := c.do(next)
		if err != nil {
			return err
		}
		var answer loginAnswer
		if err := json.Unmarshal(raw, &answer); err != nil {
			return err
		}
		next, err = request(server.address, refreshPath, "", refreshBody{answer.RefreshToken})
		return err
	}, err
}

// bareAccounts is a server whose users and sessions are two tables, by the shortest code that does it.
type bareAccounts struct {
	pool     *pgxpool.Pool
	issuer   *token.Issuer
	verifier *token.Verifier
	key      []byte
}

func newBareAccounts(ctx context.Context, dsn string, issuer *token.Issuer, verifier *token.Verifier) (http.Handler, error) {
	pool, err := pgxpool.New(ctx, dsn)
	if err != nil {
		return nil, err
	}
	context.AfterFunc(ctx, pool.Close)
	for _, statement := range []string{bareUsers, bareSessions} {
		if _, err := pool.Exec(ctx, statement); err != nil {
			return nil, err
		}
	}
	a := &bareAccounts{pool, issuer, verifier, []byte("a key that is in no database")}
	e := echo.New()
	e.POST(registerPath, a.register)
	e.POST(loginPath, a.login)
	e.POST(refreshPath, a.refresh)
	e.GET(mePath, a.me)
	return e, nil
}

func (a *bareAccounts) register(c *echo.Context) error {
	var body registerBody
	if err := c.Bind(&body); err != nil {
		return err
	}
	_, err := a.pool.Exec(c.Request().Context(), `INSERT INTO bare_users (id, email, name, created_at) VALUES ($1, $2, $3, now())`,
		uuid.New(), body.Email, body.Name)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusCreated, struct{}{})
}

func (a *bareAccounts) login(c *echo.Context) error {
	var body loginBody
	if err := c.Bind(&body); err != nil {
		return err
	}
	ctx, session := c.Request().Context(), uuid.New()
	var user uuid.UUID
	if err := a.pool.QueryRow(ctx, `SELECT id FROM bare_users WHERE email = $1`, body.Email).Scan(&user); err != nil {
		return err
	}
	if _, err := a.pool.Exec(ctx, `INSERT INTO bare_sessions (id, user_id, counter, rotated_at) VALUES ($1, $2, 0, now())`, session, user); err != nil {
		return err
	}
	return a.grant(c, user, session, 0)
}

func (a *bareAccounts) refresh(c *echo.Context) error {
	var body refreshBody
	if err := c.Bind(&body); err != nil {
		return err
	}
	text, mac, _ := strings.Cut(body.RefreshToken, "~")
	id, count, _ := strings.Cut(text, ".")
	session, err := uuid.Parse(id)
	counter, bad := strconv.ParseInt(count, 10, 64)
	if err != nil || bad != nil || !hmac.Equal([]byte(mac), []byte(a.mac(text))) {
		return echo.NewHTTPError(http.StatusUnauthorized, "")
	}
	ctx := c.Request().Context()
	tx, err := a.pool.Begin(ctx)
	if err != nil {
		return err
	}
	defer tx.Rollback(ctx) //nolint:errcheck // after a commit it has nothing to do
	var user uuid.UUID
	var stored int64
	if err := tx.QueryRow(ctx, `SELECT user_id, counter FROM bare_sessions WHERE id = $1 FOR UPDATE`, session).Scan(&user, &stored); err != nil {
		return err
	}
	if stored != counter {
		return echo.NewHTTPError(http.StatusUnauthorized, "")
	}
	if _, err := tx.Exec(ctx, `UPDATE bare_sessions SET counter = counter + 1, rotated_at = now() WHERE id = $1`, session); err != nil {
		return err
	}
	if err := tx.Commit(ctx); err != nil {
		return err
	}
	return a.grant(c, user, session, counter+1)
}

func (a *bareAccounts) grant(c *echo.Context, user, session uuid.UUID, counter int64) error {
	access, _, err := a.issuer.Issue(token.Grant{Subject: user.String(), Session: session.String()})
	if err != nil {
		return err
	}
	text := fmt.Sprintf("%s.%d", session, counter)
	return c.JSON(http.StatusOK, loginAnswer{access, text + "~" + a.mac(text)})
}

func (a *bareAccounts) mac(text string) string {
	mac := hmac.New(sha256.New, a.key)
	mac.Write([]byte(text))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

func (a *bareAccounts) me(c *echo.Context) error {
	raw, _ := strings.CutPrefix(c.Request().Header.Get(echo.HeaderAuthorization), "Bearer ")
	claims, err := a.verifier.Verify(raw)
	if err != nil {
		return echo.NewHTTPError(http.StatusUnauthorized, "")
	}
	var user struct {
		ID        uuid.UUID `json:"id"`
		Email     string    `json:"email"`
		Name      string    `json:"name"`
		CreatedAt time.Time `json:"created_at"`
	}
	err = a.pool.QueryRow(c.Request().Context(), `SELECT id, email, name, created_at FROM bare_users WHERE id = $1`, claims.Subject).
		Scan(&user.ID, &user.Email, &user.Name, &user.CreatedAt)
	if err != nil {
		return errors.Join(echo.NewHTTPError(http.StatusUnauthorized, ""), err)
	}
	return c.JSON(http.StatusOK, user)
}
