package test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// tokenHeader is the JOSE header of a token.
func tokenHeader(t *testing.T, token string) (h struct{ Kid, Alg string }) {
	t.Helper()
	first, _, _ := strings.Cut(token, ".")
	raw, err := base64.RawURLEncoding.DecodeString(first)
	if err == nil {
		err = json.Unmarshal(raw, &h)
	}
	if err != nil {
		t.Fatalf("header of a token: %v", err)
	}
	return h
}

// signingKey is a key as `usher keys list` shows it.
type signingKey struct {
	Kid, Algorithm, Signs, State string
	Since, Until                 time.Time
}

// keys are those of access tokens. Beside them is always one for ID tokens that signs.
func (d *deployment) keys(args ...string) []signingKey {
	d.t.Helper()
	if len(args) == 0 {
		args = []string{"list"}
	}
	var keys []signingKey
	if err := json.Unmarshal([]byte(d.command(slices.Concat([]string{"keys"}, args, []string{"--json"})...)), &keys); err != nil {
		d.t.Fatal(err)
	}
	if !slices.ContainsFunc(keys, func(k signingKey) bool {
		return k.Signs == "ID tokens" && k.Algorithm == "RS256" && k.State == "signing"
	}) {
		d.t.Errorf("keys = %+v, want one that signs ID tokens", keys)
	}
	return slices.DeleteFunc(keys, func(k signingKey) bool { return k.Signs != "access tokens" })
}

// published are the ids of the keys in a server's JWKS document that are not of RS256, of which there has to be one for ID tokens.
func (c *client) published(t *testing.T) (ids []string) {
	t.Helper()
	forID := 0
	for _, k := range into[struct{ Keys []struct{ Kid, Alg string } }](t, c.want(t, http.StatusOK, "GET", "/.well-known/jwks.json", nil)).Keys {
		if k.Alg == "RS256" {
			forID++
			continue
		}
		ids = append(ids, k.Kid)
	}
	if forID == 0 {
		t.Error("no key for ID tokens is published")
	}
	slices.Sort(ids)
	return ids
}

func (c *client) wantPublished(t *testing.T, keys []signingKey) {
	t.Helper()
	var want []string
	for _, k := range keys {
		want = append(want, k.Kid)
	}
	slices.Sort(want)
	eventually(t, c.base+" publishes the keys", func() error {
		if diff := cmp.Diff(want, c.published(t)); diff != "" {
			return fmt.Errorf("keys (-want +got):\n%s", diff)
		}
		return nil
	})
}

// wantGood fails unless a server takes the tokens.
func (c *client) wantGood(t *testing.T, tokens ...string) {
	t.Helper()
	for _, token := range tokens {
		name, value := bearer(token)
		c.want(t, http.StatusOK, "GET", "/v1/me", nil, name, value)
	}
}

// Keys are rotated while two servers run. Neither ever refuses a token that is in use.
func TestRotateKeys(t *testing.T) {
	t.Parallel()
	d, _ := newRunningServer(t)
	_, a := d.startServe()
	_, b := d.startServe()
	first := a.login(t, d.admin)
	one := d.keys()
	if len(one) != 1 || one[0].State != "signing" || one[0].Kid != tokenHeader(t, first).Kid || !one[0].Until.IsZero() {
		t.Fatalf("keys = %+v, want the one that signs", one)
	}

	two := d.keys("rotate")
	if len(two) != 2 || two[0].Kid != one[0].Kid || two[0].State != "signing" || two[1].State != "announced" ||
		!two[0].Until.Equal(two[1].Until) || time.Until(two[1].Until) < 9*time.Minute {
		t.Fatalf("keys = %+v, want another that is announced", two)
	}
	a.wantPublished(t, two)
	b.wantPublished(t, two)
	if kid := tokenHeader(t, a.login(t, d.admin)).Kid; kid != one[0].Kid {
		t.Errorf("a token is signed with %s, want %s, since the other key is only announced", kid, one[0].Kid)
	}
	if again := d.keys("rotate"); !slices.Equal(again, two) {
		t.Errorf("keys = %+v, want no other to be announced", again)
	}

	now := d.keys("rotate", "--now")
	if len(now) != 2 || now[0].Kid != two[1].Kid || now[0].State != "signing" || now[1].Kid != one[0].Kid || now[1].State != "verifying" {
		t.Fatalf("keys = %+v, want the announced one to sign", now)
	}
	var second string
	eventually(t, "a signs with the new key", func() error {
		if second = a.login(t, d.admin); tokenHeader(t, second).Kid != now[0].Kid {
			return fmt.Errorf("it signs with %s", tokenHeader(t, second).Kid)
		}
		return nil
	})
	b.wantGood(t, first, second)
	a.wantGood(t, first, second)

	// A key that nobody has heard of is asked for once it is seen.
	third := d.keys("rotate", "--now")
	eventually(t, "b signs with the third key", func() error {
		token := b.login(t, d.admin)
		a.wantGood(t, first, second, token)
		if tokenHeader(t, token).Kid != third[0].Kid {
			return fmt.Errorf("it signs with %s", tokenHeader(t, token).Kid)
		}
		return nil
	})

	leaked := d.keys("rotate", "--leaked", "--yes")
	if len(leaked) != 1 || leaked[0].Kid == third[0].Kid {
		t.Fatalf("keys = %+v, want a new one alone", leaked)
	}
	eventually(t, "tokens of the keys before are refused", func() error {
		name, value := bearer(first)
		for _, c := range []*client{a, b} {
			refused, err := c.call("GET", "/v1/me", nil, name, value)
			if err != nil || refused.status != http.StatusUnauthorized {
				return fmt.Errorf("answer %d, %v", refused.status, err)
			}
		}
		return nil
	})
	b.wantGood(t, a.login(t, d.admin))
	if out := d.command("keys", "list"); !strings.Contains(out, leaked[0].Kid) || !strings.Contains(out, "signing") {
		t.Errorf("keys list prints\n%s", out)
	}
}

// Another algorithm, or another shared secret, is in force from the next start on; tokens of the one before are good
// until they expire.
func TestChangeAlgorithm(t *testing.T) {
	t.Parallel()
	d, _ := newRunningServer(t)
	first, second := strings.Repeat("shared secret 1 ", 3), strings.Repeat("shared secret 2 ", 3)
	d.keepSecret(first)
	d.keepSecret(second)
	var tokens []string
	for _, settings := range [][]string{
		nil,
		{"JWT_ALGORITHM=EdDSA"},
		{"JWT_ALGORITHM=HS256", "JWT_SECRET_KEY=" + first},
		{"JWT_ALGORITHM=HS256", "JWT_SECRET_KEY=" + second},
		{"JWT_ALGORITHM=RS256"},
	} {
		env := d.env
		d.env = append(slices.Clip(env), settings...)
		p, c := d.startServe()
		token := c.login(t, d.admin)
		want := "ES256"
		if settings != nil {
			want = strings.TrimPrefix(settings[0], "JWT_ALGORITHM=")
		}
		if got := tokenHeader(t, token).Alg; got != want {
			t.Errorf("%v: signed with %s, want %s", settings, got, want)
		}
		tokens = append(tokens, token)
		c.wantGood(t, tokens...)
		p.stop(t)
		d.env = env
	}
	var states []string
	for _, k := range d.keys() {
		states = append(states, k.Algorithm+" "+k.State)
	}
	if diff := cmp.Diff([]string{"RS256 signing", "HS256 verifying", "HS256 verifying", "EdDSA verifying", "ES256 verifying"}, states); diff != "" {
		t.Errorf("keys (-want +got):\n%s", diff)
	}
	if _, stderr, err := d.try("keys", "rotate", "--announce", "1m"); err == nil || !strings.Contains(stderr, "--announce takes a duration from 5m0s") {
		t.Errorf("a key is announced for a minute only: %v\n%s", err, stderr)
	}
	d.env = append(d.env, "JWT_ALGORITHM=HS256", "JWT_SECRET_KEY="+second)
	d.command("keys", "rotate", "--now")
	if _, stderr, err := d.try("keys", "rotate"); err == nil || !strings.Contains(stderr, "JWT_SECRET_KEY is the key that signs already") {
		t.Errorf("rotated to the same secret: %v\n%s", err, stderr)
	}
}
