package pages

import (
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"usher.example/identity"
	"usher.example/internal/devstack"
	"usher.example/server"
)

// The session of a browser is one as any other: whatever ends one ends it, in every process.
func TestASVS_7_4_1_7_4_2_7_4_5_BrowserSessionEnds(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db database) {
		master := newMaster(t)
		s, other := newStack(t, options{db: db, master: master}), newStack(t, options{db: db, master: master})
		ada := s.user("ada@example.org")
		session := func(p *person) identity.Session {
			t.Helper()
			b, err := s.identity.ReadBrowser(identity.BrowserToken(p.cookies["usher"]))
			if err != nil {
				t.Fatal(err)
			}
			list, err := s.identity.Sessions(t.Context(), ada, b.ID)
			if err != nil {
				t.Fatal(err)
			}
			for _, one := range list {
				if one.Current {
					return one
				}
			}
			t.Fatalf("the browser's session is not listed: %+v", list)
			return identity.Session{}
		}
		for name, end := range map[string]func(p *person) error{
			"revoked": func(p *person) error {
				_, err := s.identity.EndSession(t.Context(), ada, session(p).ID, identity.EndedRevoked, metadata())
				return err
			},
			"logged out everywhere": func(*person) error {
				_, err := s.identity.RevokeSessions(t.Context(), ada, metadata())
				return err
			},
			"locked": func(*person) error {
				_, err := s.identity.LockUser(t.Context(), ada, metadata())
				return err
			},
			"disabled": func(*person) error {
				_, err := s.identity.DisableUser(t.Context(), ada, metadata())
				return err
			},
			"logged out on the page": func(p *person) error {
				copied := &person{s, map[string]string{"usher": p.cookies["usher"]}}
				s.leadsTo(copied.post("/logout"), "/logout?done=")
				if len(copied.cookies) != 0 {
					t.Errorf("the browser still has %d cookies", len(copied.cookies))
				}
				return nil
			},
		} {
			p := s.person()
			p.logsIn("ada@example.org")
			if !p.isIn() || !p.on(other).isIn() {
				t.Errorf("before it was %s: not logged in", name)
			}
			kept := p.cookies["usher"]
			if err := end(p); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			for _, process := range []*stack{s, other} {
				devstack.Eventually(t, "it has ended", func() bool { return !(&person{process, map[string]string{"usher": kept}}).isIn() })
			}
			if p.isIn() || p.cookies["usher"] != "" {
				t.Errorf("%s: the browser keeps its cookie", name)
			}
			if _, err := s.identity.UnlockUser(t.Context(), ada, metadata()); err != nil {
				t.Fatal(err)
			}
			if _, err := s.identity.EnableUser(t.Context(), ada, metadata()); err != nil {
				t.Fatal(err)
			}
			if (&person{s, map[string]string{"usher": kept}}).isIn() {
				t.Errorf("%s: the session is back", name)
			}
		}
		p := s.person()
		p.logsIn("ada@example.org")
		if _, err := s.identity.EraseOwn(t.Context(), ada, identity.Proof{Password: secret}, metadata()); err != nil {
			t.Fatal(err)
		}
		for _, process := range []*stack{s, other} {
			devstack.Eventually(t, "it has ended", func() bool { return !(&person{process, map[string]string{"usher": p.cookies["usher"]}}).isIn() })
		}
	})
}

// A browser that comes back within the idle limit stays logged in, up to the greatest age; copies of its former cookies do as well
// until they are idle, so that pages that are loaded at once log nobody out.
func TestASVS_7_3_1_7_3_2_BrowserSessionGoesOn(t *testing.T) {
	t.Parallel()
	s := newStack(t, options{identity: func(c *identity.Config) { c.SessionIdle, c.SessionMax = 24*time.Hour, 72*time.Hour }})
	s.user("ada@example.org")
	p := s.person()
	p.logsIn("ada@example.org")
	first := p.cookies["usher"]
	if p.isIn(); p.cookies["usher"] != first {
		t.Error("the cookie changed at once")
	}
	for range 3 {
		s.clock.add(20 * time.Hour)
		var wait sync.WaitGroup
		for range 8 {
			wait.Go(func() {
				if !(&person{s, map[string]string{"usher": p.cookies["usher"]}}).isIn() {
					t.Error("one of many pages at once is not let in")
				}
			})
		}
		wait.Wait()
		before := p.cookies["usher"]
		if !p.isIn() || p.cookies["usher"] == before {
			t.Fatal("the session did not go on, or the cookie is the same")
		}
	}
	if (&person{s, map[string]string{"usher": first}}).isIn() {
		t.Error("a cookie that was idle for too long is good")
	}
	s.clock.add(13 * time.Hour)
	if p.isIn() {
		t.Error("the session is older than any may get")
	}
}

// Whatever a browser sends that is not a cookie of ours lets nobody in.
func TestASVS_3_3_1_3_3_2_3_3_3_3_3_4_7_2_4_BrowserCookies(t *testing.T) {
	t.Parallel()
	s := newStack(t, options{public: "https://id.example.org"})
	s.user("ada@example.org")
	p := s.person()
	a := p.post("/login", "email", "ada@example.org", "password", secret)
	s.leadsTo(a, "/account")
	for _, line := range a.header.Values("Set-Cookie") {
		if !strings.HasPrefix(line, "__Host-usher") || !strings.Contains(line, "; Secure") || !strings.Contains(line, "; Max-Age=") {
			t.Errorf("a cookie begins with %.20s, and is not kept to this host or to https", line)
		}
	}
	good := p.cookies["__Host-usher"]
	other := byte('A')
	if good[60] == other {
		other = 'B'
	}
	for name, cookie := range map[string]string{
		"without its prefix": "usher=" + good, "twice": "__Host-usher=" + good + "; __Host-usher=" + good, "altered": "__Host-usher=" + good[:60] + string(other) + good[61:],
		"longer": "__Host-usher=" + good + "A", "the device's": "__Host-usher=" + p.cookies["__Host-usher-device"], "empty": "__Host-usher=", "nonsense": "__Host-usher=%00",
	} {
		if a := s.get("/login", "Cookie", cookie); a.status != http.StatusOK {
			t.Errorf("a cookie that is %s: %d", name, a.status)
		}
	}
	if !p.isIn() {
		t.Error("the cookie as it is does not let in")
	}
	// Each login has another, and the one before ends.
	kept := p.cookies["__Host-usher"]
	s.leadsTo(p.post("/login?prompt=login", "email", "ada@example.org", "password", secret), "/account")
	if p.cookies["__Host-usher"] == kept {
		t.Error("a login left the cookie as it was")
	}
	if a := s.get("/login", "Cookie", "__Host-usher="+kept); a.status != http.StatusOK {
		t.Errorf("the session before: %d", a.status)
	}
	if s.output.Contains(good) || s.output.Contains(kept) || s.output.Contains(p.cookies["__Host-usher-device"]) {
		t.Error("a cookie is in the log")
	}
}

// What a provider of tokens has to know of a browser's request.
func TestBrowserCaller(t *testing.T) {
	t.Parallel()
	s := newStack(t, options{})
	ada := s.user("ada@example.org")
	var seen server.Call
	s.server.Routes(server.Surface{}).GET("/who", server.Browser, func(c *server.Call) (server.Answer, error) {
		seen = *c
		return server.Done(0), nil
	})
	p := s.person()
	if a := p.get("/who", "Accept", "application/json"); a.status != http.StatusUnauthorized || !strings.Contains(a.body, `"code":"unauthenticated"`) {
		t.Errorf("nobody: %d %s", a.status, a.body)
	}
	p.logsIn("ada@example.org")
	if a := p.get("/who"); a.status != http.StatusNoContent {
		t.Fatalf("somebody: %d %s", a.status, a.body)
	}
	if age := time.Since(seen.Browser.BeganAt()); seen.User.ID != ada || seen.Session != seen.Browser.ID || age < 0 || age > time.Hour {
		t.Errorf("it is %v in %v, since %v", seen.User.ID, seen.Session, seen.Browser.BeganAt())
	}
	if got := server.AuthenticationMethods(seen.Browser.Methods); len(got) != 1 || got[0] != "pwd" {
		t.Errorf("amr = %v", got)
	}
	if got := server.AuthenticationMethods([]string{identity.MethodPassword, identity.MethodRecoveryCode}); strings.Join(got, " ") != "pwd otp mfa" {
		t.Errorf("amr of two = %v", got)
	}
}
