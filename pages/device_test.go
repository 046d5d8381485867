package pages

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/google/uuid"

	"usher.example/client"
	"usher.example/eventstore"
	"usher.example/identity"
	"usher.example/internal/devstack/browser"
)

// television registers a client for devices.
func (s *stack) television(name string, firstParty bool) client.Client {
	s.tb.Helper()
	c, _, _, err := s.clients.Add(s.tb.Context(), identity.ClientSettings{
		Name: name, Authentication: client.AuthenticationNone, Grants: []string{client.GrantDevice, client.GrantRefresh}, FirstParty: firstParty,
	}, uuid.Nil, eventstore.Metadata{Correlation: uuid.New(), Actor: identity.ActorOperator})
	if err != nil {
		s.tb.Fatal(err)
	}
	return c
}

// asks has a device ask.
func (s *stack) asks(c client.Client) identity.DeviceAsked {
	s.tb.Helper()
	asked, err := s.identity.AskByDevice(s.tb.Context(), identity.DeviceRequest{Client: c.ID.String(), Scopes: []string{"openid", "email"}, Address: "198.51.100.7"})
	if err != nil {
		s.tb.Fatal(err)
	}
	return asked
}

func (s *stack) poll(c client.Client, asked identity.DeviceAsked) (identity.LoginResult, error) {
	s.tb.Helper()
	return s.identity.PollDevice(s.tb.Context(), asked.Device, identity.Grantee{Client: c.ID.String()}, metadata())
}

func TestDevicePage(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db database) {
		s := newStack(t, options{db: db})
		own, others := s.television("our-tv", true), s.television("their-tv", false)
		p := s.loggedIn("ada@example.org")
		user := s.find(p)

		// Whoever is not logged in does that first, and comes back with the code.
		asked := s.asks(own)
		page := "/device?user_code=" + asked.User.Shown()
		s.leadsTo(s.get(page), "/login?"+url.Values{"return": {page}}.Encode())
		a := p.get(page)
		s.says(a, http.StatusOK, "our-tv", asked.User.Shown(), "198.51.100.7", "See your email address", `value="allow"`, `value="deny"`)
		if strings.Index(a.body, `value="allow"`) > strings.Index(a.body, `value="deny"`) {
			t.Error("the main action is not the first")
		}
		if _, err := s.poll(own, asked); err != identity.ErrDevicePending {
			t.Errorf("after the page was opened: %v", err)
		}
		s.says(p.visit(http.MethodPost, "/device", url.Values{"user_code": {string(asked.User)}, "answer": {"allow"}}, "Sec-Fetch-Site", "cross-site"), http.StatusForbidden, "alert")
		s.says(p.post("/device", "user_code", string(asked.User), "answer", "perhaps"), http.StatusBadRequest, "alert")
		s.leadsTo(p.post("/device", "user_code", strings.ToLower(asked.User.Shown()), "answer", "allow"), "/device?done=allow")
		s.says(p.get("/device?done=allow"), http.StatusOK, "Your device is connected")
		if r, err := s.poll(own, asked); err != nil || r.User.ID != user {
			t.Errorf("the device: %v", err)
		}
		s.says(p.get(page), http.StatusOK, "No device shows this code")
		s.says(p.post("/device", "user_code", string(asked.User), "answer", "allow"), http.StatusUnprocessableEntity, "No device shows this code")
		if list := s.read(user).Consents(); len(list) != 0 {
			t.Errorf("a client of ours needs a consent: %+v", list)
		}

		// A code that is typed leads to the same page. A no is one, and no consent.
		asked = s.asks(others)
		s.leadsTo(p.post("/device", "user_code", asked.User.Shown()), "/device?user_code="+asked.User.Shown())
		s.leadsTo(p.post("/device", "user_code", string(asked.User), "answer", "deny"), "/device?done=deny")
		s.says(p.get("/device?done=deny"), http.StatusOK, "Your device is not connected")
		if _, err := s.poll(others, asked); err != identity.ErrDeviceDenied {
			t.Errorf("a device that was denied: %v", err)
		}
		if list := s.read(user).Consents(); len(list) != 0 {
			t.Errorf("a no is a consent: %+v", list)
		}
		// A yes to an application of others is a consent.
		asked = s.asks(others)
		a = p.post("/device", "user_code", string(asked.User), "answer", "allow")
		s.leadsTo(a, "/device?done=allow")
		if got := s.read(user).Consented(others.ID.String()); strings.Join(got, " ") != "email openid" {
			t.Errorf("consented: %q", got)
		}
		if r, err := s.poll(others, asked); err != nil || !r.User.Allows(others.ID.String(), r.Session) {
			t.Errorf("the device of others: %v", err)
		}

		s.says(p.post("/device", "user_code", ""), http.StatusBadRequest, "aria-invalid")
		for _, typed := range []string{"x", "WDJB-MJHA", "<script>", strings.Repeat("B", 200)} {
			s.says(p.get("/device?"+url.Values{"user_code": {typed}}.Encode()), http.StatusOK, "No device shows this code")
		}
		// Guesses have to wait, of codes that are right too.
		asked = s.asks(own)
		for range 6 {
			p.get("/device?user_code=BBBB-BBBB")
		}
		s.says(p.get("/device?user_code="+asked.User.Shown()), http.StatusTooManyRequests, "alert")
		s.clock.add(5 * time.Minute)
		s.says(p.get("/device?user_code="+asked.User.Shown()), http.StatusOK, "our-tv")
		// A client that is removed is asked for by nobody.
		if _, err := s.clients.Remove(t.Context(), own.ID, metadata(), nil); err != nil {
			t.Fatal(err)
		}
		s.says(p.get("/device?user_code="+asked.User.Shown()), http.StatusOK, "No device shows this code")
	})
}

// find is who is logged in.
func (s *stack) find(p *person) uuid.UUID {
	s.tb.Helper()
	b, err := s.identity.ReadBrowser(identity.BrowserToken(p.cookies["usher"]))
	if err != nil {
		s.tb.Fatal(err)
	}
	return b.User
}

// TestBrowserDevice lets devices in with the keys alone, in a browser that runs no script, on a phone; and looks at the page in all
// languages.
func TestBrowserDevice(t *testing.T) {
	t.Parallel()
	s := newStack(t, options{})
	tv := s.television("living-room-television", false)
	s.user("ada@example.org")
	with, without := s.open(t, browser.Phone), s.open(t, browser.Phone, browser.NoScript)
	asked := s.asks(tv)
	page := "/device?user_code=" + asked.User.Shown()
	for _, b := range []tab{with, without} {
		b.Run(chromedp.Navigate(b.url + page))
		b.fill(map[string]string{"email": "ada@example.org", "password": secret}, `button[value=allow]`)
	}
	for _, tongue := range []string{"en", "de", "fr", "es", "ja", "ar"} {
		for _, path := range []string{page + "&", "/device?", "/device?done=allow&", "/device?done=deny&", "/device?user_code=x&"} {
			with.Run(chromedp.Navigate(with.url + path + "ui_locales=" + tongue))
			with.looksRight(path, tongue)
			if tongue == "en" || tongue == "ar" {
				with.Accessible(path, browser.BestPractice)
			}
		}
	}
	with.Run(chromedp.Navigate(with.url + "/device"))
	tabs := with.tabsTo(`input[name=user_code]`)
	without.Run(chromedp.Navigate(without.url + "/device"))
	without.press(kb.Tab, tabs)
	without.Run(chromedp.KeyEvent(strings.ToLower(string(asked.User))), chromedp.KeyEvent(kb.Enter), chromedp.WaitVisible(chromedp.CSS(`button[value=allow]`)))
	with.Run(chromedp.Navigate(with.url + page))
	without.press(kb.Tab, with.tabsTo(`button[value=allow]`))
	without.Run(chromedp.KeyEvent(kb.Enter), chromedp.WaitVisible(chromedp.CSS(`[role=status]`)))
	if title := browser.Evaluate[string](without.Tab, `document.querySelector("h1").innerText`); title != "Your device is connected" {
		t.Errorf("the page says %q", title)
	}
	if _, err := s.poll(tv, asked); err != nil {
		t.Errorf("the device: %v", err)
	}
	asked = s.asks(tv)
	page = "/device?user_code=" + asked.User.Shown()
	with.Run(chromedp.Navigate(with.url + page))
	tabs = with.tabsTo(`button[value=deny]`)
	without.Run(chromedp.Navigate(without.url + page))
	without.press(kb.Tab, tabs)
	without.Run(chromedp.KeyEvent(kb.Enter), chromedp.WaitVisible(chromedp.CSS(`[role=status]`)))
	if _, err := s.poll(tv, asked); err != identity.ErrDeviceDenied {
		t.Errorf("a device that was denied: %v", err)
	}
}
