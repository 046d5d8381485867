package test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
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
	if _, stderr, err := d.try("clients", "add", "shop"); err == nil || !strings.Contains(stderr, "another client has it") {
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
	if status, body := ask("/oauth2/introspect", token); status != http.StatusUnauthorized {
		t.Errorf("introspect by a client that was removed: %d %s", status, body)
	}
	if strings.Contains(p.stderr.String(), shop.Secret) {
		t.Error("the client's secret is logged")
	}
}
