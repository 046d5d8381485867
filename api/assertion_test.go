package api

import (
	"crypto/x509"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"

	"usher.example/client"
	"usher.example/publisher/webhook"
	"usher.example/server"
	"usher.example/token"
)

// signing is a client that signs.
type signing struct {
	*stack
	key token.Key
	id  string
}

// keySet is a key as its client publishes it.
func keySet(tb testing.TB, key token.Key) string {
	tb.Helper()
	ring, err := token.NewKeyRing(key)
	if err != nil {
		tb.Fatal(err)
	}
	return string(ring.JWKS())
}

func newKey(tb testing.TB) token.Key {
	tb.Helper()
	key, err := token.GenerateKey(token.ES256, time.Now())
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

// assertion is what the client signs for an audience.
func (c signing) assertion(audience string) string {
	c.tb.Helper()
	der, err := c.key.MarshalPrivate()
	if err != nil {
		c.tb.Fatal(err)
	}
	private, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		c.tb.Fatal(err)
	}
	unsigned := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.MapClaims{
		"iss": c.id, "sub": c.id, "aud": audience, "jti": uuid.NewString(), "iat": time.Now().Unix(), "exp": time.Now().Add(time.Minute).Unix(),
	})
	unsigned.Header["kid"] = c.key.ID()
	raw, err := unsigned.SignedString(private)
	if err != nil {
		c.tb.Fatal(err)
	}
	return raw
}

// ask makes a request of what the client has signed.
func (c signing) ask(path, assertion string, parameters ...string) answer {
	c.tb.Helper()
	all := append([]string{"client_assertion_type", client.AssertionType, "client_assertion", assertion}, parameters...)
	return c.call("POST", path, form(all...), "Content-Type", formType)
}

// A client proves by what it signs who it is, wherever a client has to.
func TestSignedClient(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db database) {
		s := newStack(t, db, options{document: true})
		s.user("ada@example.org")
		ada, admin := s.tokens("ada@example.org"), s.admin()
		add := func(name, keys string) string {
			t.Helper()
			a := s.want(s.as(admin, "POST", "/v1/clients", `{"name":"`+name+`","scopes":["events:read"],"jwks":`+keys+`}`), http.StatusCreated, "")
			if strings.Contains(a.body, "client_secret") {
				t.Errorf("a client that signs has a secret: %s", a.body)
			}
			return a.field(t, "client_id")
		}
		c := signing{stack: s, key: newKey(t)}
		c.id = add("signing", keySet(t, c.key))
		other := signing{stack: s, key: newKey(t)}
		other.id = add("other", keySet(t, other.key))
		grant := []string{"grant_type", "client_credentials"}

		const endpoint = "https://usher.test/oauth2/"
		for _, audience := range []string{issuerName, endpoint + "token"} {
			access := s.want(c.ask("/oauth2/token", c.assertion(audience), append(grant, "client_id", c.id)...), http.StatusOK, "").field(t, "access_token")
			s.want(s.as(access, "GET", "/v1/events", ""), http.StatusOK, "")
		}
		if a := s.want(c.ask(introspect, c.assertion(endpoint+"introspect"), "token", ada.access), http.StatusOK, ""); a.field(t, "active") != "true" {
			t.Errorf("introspected: %s", a.body)
		}
		s.want(c.ask(revoke, c.assertion(endpoint+"token"), "token", ada.access), http.StatusOK, "")

		used := c.assertion(issuerName)
		s.want(c.ask("/oauth2/token", used, grant...), http.StatusOK, "")
		forged := signing{s, other.key, c.id}
		for what, assertion := range map[string]string{
			"used": used, "for the other endpoint": c.assertion(endpoint + "introspect"), "for others": c.assertion("https://other.example/oauth2/token"),
			"by the key of another client": forged.assertion(issuerName), "cut off": c.assertion(issuerName)[:100],
		} {
			if a := c.ask("/oauth2/token", assertion, grant...); a.status != http.StatusUnauthorized || a.field(t, "error") != "invalid_client" || !strings.Contains(a.field(t, "error_description"), "client_assertion") {
				t.Errorf("an assertion %s: %d %s", what, a.status, a.body)
			}
		}
		s.wantOAuth(c.ask("/oauth2/token", c.assertion(issuerName), append(grant, "client_id", other.id)...), http.StatusUnauthorized, "invalid_client")
		s.wantOAuth(c.ask("/oauth2/token", c.assertion(issuerName), append(grant, "client_secret", "x")...), http.StatusBadRequest, "invalid_request")
		s.wantOAuth(c.call("POST", "/oauth2/token", form("grant_type", "client_credentials", "client_assertion", c.assertion(issuerName)), "Content-Type", formType), http.StatusBadRequest, "invalid_request")
		s.wantOAuth(c.call("POST", "/oauth2/token", form("grant_type", "client_credentials", "client_assertion_type", client.AssertionType), "Content-Type", formType), http.StatusUnauthorized, "invalid_client")
		s.wantOAuth(s.grant(c.id, "x"), http.StatusUnauthorized, "invalid_client")
		secretive, secret := s.addService(admin, `{"name":"secretive","scopes":["events:read"]}`)
		s.wantOAuth(signing{s, c.key, secretive}.ask("/oauth2/token", signing{s, c.key, secretive}.assertion(issuerName), grant...), http.StatusUnauthorized, "invalid_client")

		// A client that signs from now on has no use for its secret any more.
		s.want(s.grant(secretive, secret), http.StatusOK, "")
		third := newKey(t)
		s.want(s.as(admin, "PATCH", "/v1/clients/"+secretive, `{"authentication":"private_key_jwt","jwks":`+keySet(t, third)+`}`), http.StatusOK, "")
		s.wantOAuth(s.grant(secretive, secret), http.StatusUnauthorized, "invalid_client")
		now := signing{s, third, secretive}
		s.want(now.ask("/oauth2/token", now.assertion(issuerName), grant...), http.StatusOK, "")

		metadata := s.want(s.call("GET", oidcMetadata, ""), http.StatusOK, "")
		for _, of := range []string{"token", "introspection", "revocation"} {
			if methods := metadata.field(t, of+"_endpoint_auth_methods_supported"); !strings.Contains(methods, "private_key_jwt") {
				t.Errorf("%s: methods %s", of, methods)
			}
			if algorithms := metadata.field(t, of+"_endpoint_auth_signing_alg_values_supported"); algorithms != `["ES256","Ed25519","EdDSA","PS256","RS256"]` {
				t.Errorf("%s: algorithms %s", of, algorithms)
			}
		}
	})
}

const oidcMetadata = "/.well-known/oauth-authorization-server"

// Keys that a client publishes are fetched from where webhooks may go, and from nowhere else.
func TestPublishedKeysAreGuarded(t *testing.T) {
	t.Parallel()
	key := newKey(t)
	at := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(keySet(t, key))) }))
	t.Cleanup(at.Close)
	for what, allow := range map[string][]netip.Prefix{"nothing allowed": nil, "allowed": {netip.MustParsePrefix("127.0.0.0/8")}} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			db := openSQLite(t)
			s := newStack(t, db, options{server: func(c *server.Config) {
				c.Clients = client.New(client.Config{Log: c.Log, DB: db, HTTP: webhook.Transport(allow), Logger: c.Logger})
			}})
			id, _ := s.addService(s.admin(), `{"name":"signing","scopes":["events:read"],"jwks_uri":"`+at.URL+`/jwks.json"}`)
			c := signing{s, key, id}
			a := c.ask("/oauth2/token", c.assertion(issuerName), "grant_type", "client_credentials")
			if allow != nil {
				s.want(a, http.StatusOK, "")
				return
			}
			s.wantOAuth(a, http.StatusUnauthorized, "invalid_client")
			if !strings.Contains(s.output.String(), "WEBHOOK_ALLOW") || strings.Contains(a.body, "127.0.0.1") {
				t.Errorf("answered %s", a.body)
			}
		})
	}
}
