package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v5"

	oauth "usher.example/client"
	"usher.example/eventstore"
	"usher.example/eventstore/postgres"
	"usher.example/identity"
	"usher.example/token"
)

const (
	tokenPath      = "/oauth2/token"
	introspectPath = "/oauth2/introspect"
)

// clientBenches measure what services ask for with credentials of their own.
func clientBenches() []bench { return []bench{grantBench(), introspectBench()} }

// grantBench has services get tokens, each from a connection of its own.
func grantBench() bench {
	return bench{
		about: fmt.Sprintf("POST /oauth2/token, client_credentials, ES256, %d callers", sessionCallers),
		lines: []line{{
			name: "grant", subject: usher, yardstick: bare, show: rate,
			against: "bare Echo handler: reads the form, compares the secret, signs",
			targets: []target{cpuAtMost(1.5)},
		}},
		setup: func(s *stage) ([]side, error) {
			l, err := s.openLog(eventstore.Options{})
			if err != nil {
				return nil, err
			}
			service, err := l.addService(s.ctx)
			if err != nil {
				return nil, err
			}
			var sides []side
			for name, kind := range map[string]serverKind{usher: usherServer, bare: bareGrant} {
				server, err := s.serve(l, serverConfig{Kind: kind, Cost: cheapCost, Client: service})
				if err != nil {
					return nil, err
				}
				ask := service.request(server.address, tokenPath, url.Values{"grant_type": {oauth.GrantClientCredentials}})
				one, err := asking(s, name, server, slices.Repeat([][]byte{ask}, sessionCallers))
				if err != nil {
					return nil, err
				}
				sides = append(sides, one)
			}
			return sides, nil
		},
	}
}

// introspectBench has a service ask about tokens of users, of which each connection has one.
func introspectBench() bench {
	const meAndRow = "GET /v1/me and a row"
	return bench{
		about: fmt.Sprintf("POST /oauth2/introspect, a live token, %d callers", sessionCallers),
		lines: []line{{
			name: "introspect", subject: usher, yardstick: meAndRow, show: rate,
			against: "GET /v1/me of usher, and one indexed statement",
			targets: []target{cpuAtMost(1.2)},
		}},
		setup: func(s *stage) ([]side, error) {
			l, err := s.openLog(eventstore.Options{})
			if err != nil {
				return nil, err
			}
			service, err := l.addService(s.ctx)
			if err != nil {
				return nil, err
			}
			server, err := s.serve(l, serverConfig{Kind: usherServer, Cost: cheapCost})
			if err != nil {
				return nil, err
			}
			reading, err := s.serve(l, serverConfig{Kind: readingServer, Cost: cheapCost, Client: service})
			if err != nil {
				return nil, err
			}
			visitors, err := s.register(server, sessionCallers)
			if err != nil {
				return nil, err
			}
			var asked, read [][]byte
			for i := range visitors {
				if err := visitors[i].enter(server); err != nil {
					return nil, err
				}
				asked = append(asked, service.request(server.address, introspectPath, url.Values{"token": {visitors[i].access}}))
				me, err := request(reading.address, mePath, visitors[i].access, nil)
				if err != nil {
					return nil, err
				}
				read = append(read, me)
			}
			if err := live(server, asked[0]); err != nil {
				return nil, err
			}
			ours, err := asking(s, usher, server, asked)
			if err != nil {
				return nil, err
			}
			theirs, err := asking(s, meAndRow, reading, read)
			return []side{ours, theirs}, err
		},
	}
}

// live fails unless a token is told to be good: an answer that it is not would be a fast one.
func live(server *httpServer, request []byte) error {
	c, err := dial(server.address)
	if err != nil {
		return err
	}
	defer c.close()
	raw, err := c.do(request)
	if err != nil {
		return err
	}
	var answer struct{ Active bool }
	if err := json.Unmarshal(raw, &answer); err != nil || !answer.Active {
		return errors.Join(err, fmt.Errorf("a token that is good is introspected as %s", raw))
	}
	return nil
}

// asking has each caller make one request over and over. Only the server's CPU is counted, and the database's.
func asking(s *stage, name string, server *httpServer, requests [][]byte) (side, error) {
	clients, err := s.dial(server, len(requests))
	if err != nil {
		return side{}, err
	}
	return side{name: name, counts: []*process{server.process, s.postgres}, run: func(ctx context.Context, length time.Duration) (tally, error) {
		return hammer(ctx, len(requests), length, func(_ context.Context, caller int) error {
			_, err := clients[caller].do(requests[caller])
			return err
		})
	}}, nil
}

// service is a client with a secret.
type service struct {
	ID     uuid.UUID
	Secret string
}

func (l *logOn) addService(ctx context.Context) (service, error) {
	r := oauth.New(oauth.Config{Log: l.log, DB: l.store})
	c, secret, _, err := r.Add(ctx, identity.ClientSettings{Name: "service", Scopes: []string{oauth.ScopeEventsRead}}, uuid.Nil,
		eventstore.Metadata{Correlation: uuid.New(), Actor: identity.ActorOperator})
	return service{c.ID, string(secret)}, err
}

func (c service) basic() string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(c.ID.String()+":"+c.Secret))
}

// request is a form of the service as it goes over the wire.
func (c service) request(address, path string, form url.Values) []byte {
	var b bytes.Buffer
	body := form.Encode()
	fmt.Fprintf(&b, "POST %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: bench\r\nAuthorization: %s\r\n", path, address, c.basic())
	fmt.Fprintf(&b, "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	return b.Bytes()
}

// bareGrants is the least that a token endpoint can be.
func bareGrants(issuer *token.Issuer, c service) http.Handler {
	e := echo.New()
	e.POST(tokenPath, func(ctx *echo.Context) error {
		id, secret, _ := ctx.Request().BasicAuth()
		if ctx.FormValue("grant_type") != oauth.GrantClientCredentials || id != c.ID.String() || secret != c.Secret {
			return echo.NewHTTPError(http.StatusUnauthorized, "")
		}
		access, _, err := issuer.Issue(token.Grant{Subject: id, Client: id, Scopes: []string{oauth.ScopeEventsRead}})
		if err != nil {
			return err
		}
		return ctx.JSON(http.StatusOK, map[string]any{"access_token": access, "token_type": "Bearer", "expires_in": int(accessLifetime / time.Second), "scope": oauth.ScopeEventsRead})
	})
	return e
}

// withRow is the API, which reads a row by its key before each answer.
func withRow(front http.Handler, store *postgres.Store, c service) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var name string
		if err := store.QueryRow(r.Context(), `SELECT name FROM clients WHERE client_id = $1`, c.ID).Scan(&name); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		front.ServeHTTP(w, r)
	})
}
