package test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// An operator sets up a client, which asks about a token and revokes it.
func TestClients(t *testing.T) {
	t.Parallel()
	d, _ := newRunningServer(t)
	p, c := d.startServe()
	var client struct {
		ID     string `json:"client_id"`
		Secret string `json:"client_secret"`
	}
	if err := json.Unmarshal([]byte(d.command("clients", "add", "shop", "--json")), &client); err != nil {
		t.Fatal(err)
	}
	if text := d.command("clients", "list"); !strings.Contains(text, client.ID) || !strings.Contains(text, "shop") || strings.Contains(text, client.Secret) {
		t.Errorf("clients list prints\n%s", text)
	}
	if _, stderr, err := d.try("clients", "add", "shop"); err == nil || !strings.Contains(stderr, "another client has it") {
		t.Errorf("a second client of the name: %v\n%s", err, stderr)
	}
	ask := func(path, token string) (int, string) {
		t.Helper()
		r, err := http.NewRequest("POST", c.base+path, strings.NewReader(url.Values{"token": {token}}.Encode()))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.SetBasicAuth(client.ID, client.Secret)
		response, err := c.http.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		return response.StatusCode, string(body)
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
	if strings.Contains(p.stderr.String(), client.Secret) {
		t.Error("the client's secret is logged")
	}
}
