package test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"usher.example/internal/devstack"
)

// confidential is a service that may ask about tokens.
type confidential struct {
	ID     string `json:"client_id"`
	Secret string `json:"client_secret"`
}

func (d *deployment) addClient(name string) (added confidential) {
	d.t.Helper()
	if err := json.Unmarshal([]byte(d.command("clients", "add", name, "--json")), &added); err != nil {
		d.t.Fatal(err)
	}
	return added
}

// ask sends a token to a path of /oauth2.
func (s confidential) ask(t *testing.T, c *client, path, token string) (status int, body string) {
	t.Helper()
	r, err := http.NewRequest("POST", c.base+path, strings.NewReader(url.Values{"token": {token}}.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.SetBasicAuth(s.ID, s.Secret)
	response, err := c.http.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	read, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(read)
}

// An operator sets up a client, which asks about a token and revokes it.
func TestClients(t *testing.T) {
	t.Parallel()
	d, _ := newRunningServer(t)
	p, c := d.startServe()
	shop := d.addClient("shop")
	if text := d.command("clients", "list"); !strings.Contains(text, shop.ID) || !strings.Contains(text, "shop") || strings.Contains(text, shop.Secret) {
		t.Errorf("clients list prints\n%s", text)
	}
	if _, stderr, err := d.try("clients", "add", "shop"); err == nil || !strings.Contains(stderr, "another client has the name") {
		t.Errorf("a second client of the name: %v\n%s", err, stderr)
	}
	ask := func(path, token string) (int, string) {
		t.Helper()
		return shop.ask(t, c, path, token)
	}
	token := c.login(t, d.admin)
	if status, body := ask("/oauth2/introspect", token); status != http.StatusOK || !strings.Contains(body, `"active":true`) {
		t.Errorf("introspect: %d %s", status, body)
	}
	if status, body := ask("/oauth2/revoke", token); status != http.StatusOK || body != "" {
		t.Errorf("revoke: %d %s", status, body)
	}
	if status, body := ask("/oauth2/introspect", token); status != http.StatusOK || strings.TrimSpace(body) != `{"active":false}` {
		t.Errorf("introspect: %d %s", status, body)
	}
	var metadata map[string]any
	if err := json.Unmarshal(c.want(t, http.StatusOK, "GET", "/.well-known/oauth-authorization-server", nil).body, &metadata); err != nil {
		t.Fatal(err)
	}
	if metadata["issuer"] != "http://localhost:8080" || metadata["introspection_endpoint"] != "http://localhost:8080/oauth2/introspect" {
		t.Errorf("metadata = %v", metadata)
	}
	d.command("clients", "remove", "shop", "--yes")
	devstack.Eventually(t, "a client that was removed is refused by another process", func() bool {
		status, _ := ask("/oauth2/introspect", token)
		return status == http.StatusUnauthorized
	})
	if strings.Contains(p.stderr.String(), shop.Secret) {
		t.Error("the client's secret is logged")
	}
}

// A service gets a token and a key from one process, and both are good and end in another within a second.
func TestServiceAcrossProcesses(t *testing.T) {
	t.Parallel()
	d, _ := newRunningServer(t)
	_, c := d.startServe()
	_, other := d.startServe()
	var added struct {
		confidential
		Key         string
		Credentials []struct{ ID string }
	}
	read := func(args ...string) {
		t.Helper()
		if err := json.Unmarshal([]byte(d.command(append(args, "--json")...)), &added); err != nil {
			t.Fatal(err)
		}
	}
	read("clients", "add", "warehouse", "--scope", "events:read operate:read")
	r, err := http.NewRequest("POST", c.base+"/oauth2/token", strings.NewReader(url.Values{"grant_type": {"client_credentials"}, "scope": {"events:read"}}.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.SetBasicAuth(added.ID, added.Secret)
	response, err := c.http.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var granted struct {
		Token string `json:"access_token"`
		Scope string `json:"scope"`
	}
	if err := json.NewDecoder(response.Body).Decode(&granted); err != nil || response.StatusCode != http.StatusOK || granted.Scope != "events:read" {
		t.Fatalf("token: %d, scope %q, %v", response.StatusCode, granted.Scope, err)
	}
	read("clients", "key", "warehouse", "--scope", "operate:read", "--expires", "24h")
	other.want(t, http.StatusOK, "GET", "/v1/events", nil, "Authorization", "Bearer "+granted.Token)
	other.want(t, http.StatusForbidden, "GET", "/v1/outbox", nil, "Authorization", "Bearer "+granted.Token)
	other.want(t, http.StatusOK, "GET", "/v1/outbox", nil, "Authorization", "Bearer "+added.Key)
	ends := func(path, bearer string) {
		t.Helper()
		devstack.Eventually(t, "the other process refuses it", func() bool {
			r, err := http.NewRequest("GET", other.base+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Authorization", "Bearer "+bearer)
			response, err := other.http.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			response.Body.Close()
			return response.StatusCode == http.StatusUnauthorized
		})
	}
	d.command("clients", "retire", "warehouse", added.Credentials[1].ID)
	ends("/v1/outbox", added.Key)
	d.command("clients", "remove", "warehouse", "--yes")
	ends("/v1/events", granted.Token)
}

// What a client has signed is good once, whichever process it is sent to.
func TestAssertionAcrossProcesses(t *testing.T) {
	t.Parallel()
	d, _ := newRunningServer(t)
	_, c := d.startServe()
	_, other := d.startServe()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	point, err := private.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	encode := base64.RawURLEncoding.EncodeToString
	keys := filepath.Join(t.TempDir(), "keys.json")
	err = os.WriteFile(keys, fmt.Appendf(nil, `{"keys":[{"kty":"EC","crv":"P-256","kid":"1","x":"%s","y":"%s"}]}`, encode(point[1:33]), encode(point[33:])), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	var added confidential
	if err := json.Unmarshal([]byte(d.command("clients", "add", "signing", "--jwks", keys, "--scope", "events:read", "--json")), &added); err != nil {
		t.Fatal(err)
	}
	token := func(at *client, assertion string) int {
		t.Helper()
		response, err := at.http.PostForm(at.base+"/oauth2/token", url.Values{
			"grant_type": {"client_credentials"}, "client_assertion": {assertion}, "client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"},
		})
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		return response.StatusCode
	}
	for _, order := range [][2]*client{{c, other}, {other, c}} {
		assertion, err := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.MapClaims{
			"iss": added.ID, "sub": added.ID, "aud": "http://localhost:8080", "jti": rand.Text(), "exp": time.Now().Add(time.Minute).Unix(),
		}).SignedString(private)
		if err != nil {
			t.Fatal(err)
		}
		if first, second := token(order[0], assertion), token(order[1], assertion); first != http.StatusOK || second != http.StatusUnauthorized {
			t.Errorf("answered %d, and in the other process %d", first, second)
		}
	}
}
