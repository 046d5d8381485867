package pages

import (
	"bytes"
	"image"
	"image/color"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go/jetstream"

	"usher.example/client"
	"usher.example/identity"
	"usher.example/internal/devstack"
	"usher.example/pages/look"
	"usher.example/projections"
)

// ownPages are those of whoever is logged in.
var ownPages = []string{
	"/device", "/account", "/account/sessions", "/account/consents", "/account/security", "/account/security/factor", "/account/security/off", "/account/security/codes", "/account/activity", "/account/data", "/account/data/export",
}

// loggedIn is somebody with a browser who is.
func (s *stack) loggedIn(email string) *person {
	s.tb.Helper()
	s.user(email)
	p := s.person()
	p.logsIn(email)
	return p
}

// Nobody sees a page of somebody's own, and whoever logs in comes back to it.
func TestASVS_7_2_1_7_4_4_OwnPages(t *testing.T) {
	t.Parallel()
	s := newStack(t, options{})
	s.project()
	p := s.loggedIn("ada@example.org")
	for _, path := range append([]string{"/account/security/confirm"}, ownPages...) {
		s.leadsTo(s.get(path+"?ui_locales=de"), "/login?"+url.Values{"return": {path + "?ui_locales=de"}, "ui_locales": {"de"}}.Encode())
		if a := s.get(path, "Accept", "application/json"); a.status != http.StatusUnauthorized || !strings.Contains(a.body, "unauthenticated") {
			t.Errorf("%s without a browser: %d %s", path, a.status, a.body)
		}
		if path != "/account/activity" {
			s.leadsTo(s.post(path, url.Values{}), "/login?"+url.Values{"return": {path}}.Encode())
		}
	}
	devstack.Eventually(t, "there is a list of what happened", func() bool { return p.get("/account/activity").status == http.StatusOK })
	for _, path := range ownPages {
		a := p.get(path)
		s.says(a, http.StatusOK, `<nav aria-label="Your account">`, `href="/logout"`)
		if got := a.header.Get("Cache-Control"); got != "no-store" {
			t.Errorf("%s: Cache-Control is %q", path, got)
		}
		if form, button := strings.Index(a.body, "<form"), strings.Index(a.body, `<button type="submit"`); form > button {
			t.Errorf("%s: the first button is in no form", path)
		}
		ids := map[string]bool{}
		for _, id := range regexp.MustCompile(` id="([^"]*)"`).FindAllStringSubmatch(a.body, -1) {
			if ids[id[1]] {
				t.Errorf("%s has %s twice", path, id[1])
			}
			ids[id[1]] = true
		}
	}
	s.leadsTo(s.get("/.well-known/change-password"), "/account/security")
	for path, fields := range map[string][]string{"/account": {"form", "profile", "name", "Eve"}, "/account/data": {"current_password", secret}} {
		form := url.Values{}
		for i := 0; i < len(fields); i += 2 {
			form.Set(fields[i], fields[i+1])
		}
		if a := p.visit(http.MethodPost, path, form, "Sec-Fetch-Site", "cross-site"); a.status != http.StatusForbidden {
			t.Errorf("%s, sent by another website: %d", path, a.status)
		}
	}
}

func TestAccount(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db database) {
		s := newStack(t, options{db: db})
		p := s.loggedIn("ada@example.org")
		s.says(p.get("/account"), http.StatusOK, `value="Ada"`, "This address is not confirmed yet.", `autocomplete="name"`, `>العربية</option>`)
		s.leadsTo(p.post("/account", "form", "profile", "name", "Countess", "locale", "de"), "/account?done=profile")
		s.says(p.get("/account?done=profile"), http.StatusOK, `value="Countess"`, "Ihre Änderungen sind gespeichert.", `<option value="de" selected>`)
		s.says(p.get("/account?ui_locales=fr", "Accept-Language", "ja"), http.StatusOK, `<html lang="fr"`)
		s.says(p.get("/nothing-here", "Accept-Language", "ja"), http.StatusNotFound, `<html lang="ja"`)
		s.says(p.post("/account?ui_locales=en", "form", "profile", "name", "A\x01da", "locale", "de"), http.StatusUnprocessableEntity, `aria-describedby="name-errors"`)
		s.says(p.post("/account?ui_locales=en", "form", "profile", "name", "Ada", "locale", "no language!"), http.StatusUnprocessableEntity, `role="alert"`)
		s.says(p.post("/account?ui_locales=en", "form", "nonsense"), http.StatusBadRequest, "can&#39;t be read")
		s.leadsTo(p.post("/account?ui_locales=en", "form", "profile", "name", "Ada", "locale", ""), "/account?done=profile&ui_locales=en")

		for _, test := range []struct {
			email, password string
			status          int
			field, words    string
		}{
			{"", secret, http.StatusBadRequest, "email", "Please fill this in."},
			{"lovelace@example.org", "", http.StatusBadRequest, "current_password", "Please fill this in."},
			{"lovelace@example.org", "wr0ng secret", http.StatusUnauthorized, "current_password", "The password is wrong."},
			{"nonsense", secret, http.StatusUnprocessableEntity, "email", "This is not an email address."},
			{"ada@example.org", secret, http.StatusConflict, "", ""},
		} {
			a := p.post("/account", "form", "email", "email", test.email, "current_password", test.password)
			if test.field != "" {
				s.says(a, test.status, test.words, `aria-describedby="`+test.field+`-errors"`)
			}
			if test.password != "" && strings.Contains(a.body, test.password) {
				t.Errorf("%q: the answer has the password", test.email)
			}
		}
		s.leadsTo(p.post("/account", "form", "email", "email", "lovelace@example.org", "current_password", secret), "/account?done=email")
		s.says(p.get("/account?done=email"), http.StatusOK, "A mail is on its way.")
		s.leadsTo(p.post("/account", "form", "verify"), "/account?done=verify")
	})
}

func TestASVS_7_5_2_SessionsPage(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db database) {
		s := newStack(t, options{db: db})
		p := s.loggedIn("ada@example.org")
		s.says(p.get("/account/sessions"), http.StatusOK, "This device", "Last used: ")
		others := []*person{s.person(), s.person(), s.person()}
		for _, o := range others {
			a := o.visit(http.MethodPost, "/login", url.Values{"email": {"ada@example.org"}, "password": {secret}}, "Sec-Fetch-Site", "same-origin",
				"User-Agent", "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0")
			s.leadsTo(a, "/account")
		}
		id := func(o *person) string {
			b, err := s.identity.ReadBrowser(identity.BrowserToken(o.cookies["usher"]))
			if err != nil {
				t.Fatal(err)
			}
			return b.ID.String()
		}
		s.says(p.get("/account/sessions"), http.StatusOK, leftToRight("Firefox")+" on "+leftToRight("Linux"), "Log out everywhere else", `value="`+id(others[0])+`"`)
		// Lately logged in, that is proof enough.
		s.leadsTo(p.post("/account/sessions", "session", id(others[0])), "/account/sessions?done=")
		if others[0].isIn() || !others[1].isIn() {
			t.Error("another session ended than was to")
		}
		s.says(p.post("/account/sessions", "session", uuid.NewString()), http.StatusNotFound, "That login has ended already.")
		s.says(p.post("/account/sessions", "session", "nonsense"), http.StatusNotFound, "That login has ended already.")
		s.clock.add(20 * time.Minute)
		a := p.post("/account/sessions", "session", id(others[1]))
		s.says(a, http.StatusBadRequest, "Show that it is you.", `name="current_password"`)
		if strings.Contains(a.body, `role="alert"`) || strings.Contains(a.body, "Please fill this in") {
			t.Error("the page says that something is wrong")
		}
		which := hidden(t, a.body, "session")
		s.says(p.post("/account/sessions", "session", which, "current_password", ""), http.StatusBadRequest, "Please fill this in.")
		s.says(p.post("/account/sessions", "session", which, "current_password", "wr0ng secret"), http.StatusUnauthorized, "The password is wrong.")
		if !others[1].isIn() {
			t.Error("without a proof the session ended")
		}
		s.leadsTo(p.post("/account/sessions", "session", which, "current_password", secret), "/account/sessions?done=")
		s.leadsTo(p.post("/account/sessions", "session", "others", "current_password", secret), "/account/sessions?done=")
		if others[1].isIn() || others[2].isIn() || !p.isIn() {
			t.Error("not all others ended, or this one did")
		}
		if a := p.get("/account/sessions"); strings.Contains(a.body, "<form") {
			t.Errorf("there is nothing left to end: %s", mainOf(a.body))
		}
		s.leadsTo(p.post("/account/sessions", "session", id(p)), "/logout?done=")
		if p.isIn() {
			t.Error("this session goes on")
		}
	})
}

// app is a client of others, and lets it in as somebody.
func (s *stack) app(name string, who uuid.UUID, scopes ...string) client.Client {
	s.tb.Helper()
	c, _, _, err := s.clients.Add(s.tb.Context(), identity.ClientSettings{Name: name, RedirectURIs: []string{"https://app.example/cb"}, Scopes: scopes}, uuid.Nil, metadata())
	if err != nil {
		s.tb.Fatal(err)
	}
	if _, err := s.identity.GiveConsent(s.tb.Context(), who, c.ID.String(), scopes, metadata()); err != nil {
		s.tb.Fatal(err)
	}
	return c
}

func TestConsentsPage(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db database) {
		s := newStack(t, options{db: db})
		s.project()
		p := s.loggedIn("ada@example.org")
		ada, err := s.identity.UserWith(t.Context(), "ada@example.org")
		if err != nil {
			t.Fatal(err)
		}
		s.says(p.get("/account/consents"), http.StatusOK, "You let no application use your account.", `aria-current="page"`)
		shop, desk := s.app("shop", ada, "openid", "email"), s.app("desk", ada, "openid")
		s.says(p.get("/account/consents"), http.StatusOK, "shop", "desk", "See your email address", "Since ", `value="`+shop.ID.String()+`"`)
		s.says(p.post("/account/consents"), http.StatusBadRequest, "")
		s.leadsTo(p.post("/account/consents", "client", shop.ID.String()), "/account/consents?done=")
		a := p.get("/account/consents?done=")
		s.says(a, http.StatusOK, "may not use your account any more", "desk")
		if strings.Contains(a.body, "shop") {
			t.Error("what was taken back is listed")
		}
		if u := s.read(ada); u.Consented(shop.ID.String()) != nil || u.Consented(desk.ID.String()) == nil {
			t.Errorf("the consents are %+v", u.Consents())
		}
		s.leadsTo(p.post("/account/consents", "client", shop.ID.String()), "/account/consents?done=") // as a second tab does
		devstack.Eventually(t, "what happened is told", func() bool {
			return strings.Contains(p.get("/account/activity").body, "\u2068shop\u2069 may not use your account any more")
		})
		if _, err := s.clients.Remove(t.Context(), desk.ID, metadata(), nil); err != nil {
			t.Fatal(err)
		}
		s.says(p.get("/account/consents"), http.StatusOK, "You let no application use your account.")
		s.says(p.get("/account/activity"), http.StatusOK, "You let \u2068"+desk.ID.String())
	})
}

// What an application asks for is told in words.
func TestScopesInWords(t *testing.T) {
	t.Parallel()
	w := lookOf(t).Choose("en").Consents
	for _, scope := range append([]string{"openid", "profile", "email", "offline_access"}, client.Scopes...) {
		if _, there := w.Scopes[scope]; !there {
			t.Errorf("there are no words for %s", scope)
		}
	}
	if got := w.InWords("shop:buy"); got != "Use of the permission "+leftToRight("shop:buy") {
		t.Errorf("another scope is %q", got)
	}
}

func TestASVS_7_4_3_7_5_1_PasswordPage(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db database) {
		s := newStack(t, options{db: db})
		p, other := s.loggedIn("ada@example.org"), s.person()
		other.logsIn("ada@example.org")
		const chosen = "another horse battery staple"
		for _, test := range []struct {
			present, chosen, words string
			status                 int
		}{
			{"", chosen, "Please fill this in.", http.StatusBadRequest},
			{secret, "", "Please fill this in.", http.StatusBadRequest},
			{"wr0ng secret", chosen, "The password is wrong.", http.StatusUnauthorized},
			{secret, "password1", "used so often", http.StatusUnprocessableEntity},
			{secret, "ada@example.org", "made of your email address", http.StatusUnprocessableEntity},
		} {
			s.says(p.post("/account/security", "current_password", test.present, "new_password", test.chosen), test.status, test.words)
		}
		s.leadsTo(p.post("/account/security", "current_password", secret, "new_password", chosen), "/account/security?done=password")
		s.says(p.get("/account/security?done=password"), http.StatusOK, "Your password was changed.", `role="status"`)
		if !p.isIn() || other.isIn() {
			t.Error("this session ended, or another goes on")
		}
		s.says(other.post("/login", "email", "ada@example.org", "password", secret), http.StatusUnauthorized, "wrong")
		s.leadsTo(other.post("/login", "email", "ada@example.org", "password", chosen), "/account")
		if s.output.Contains(chosen) || s.output.Contains(secret) {
			t.Error("a password is in the log")
		}
	})
}

func TestASVS_7_5_1_FactorPages(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db database) {
		s := newStack(t, options{db: db})
		p := s.loggedIn("ada@example.org")
		s.says(p.get("/account/security"), http.StatusOK, "Confirm your email address first")
		s.says(p.post("/account/security/factor", "current_password", secret), http.StatusForbidden, "Confirm your email address first")
		ada := s.userOf(p)
		if _, err := s.identity.Verify(t.Context(), identity.MailCode(s.code(ada, identity.PurposeVerify)), ada, metadata()); err != nil {
			t.Fatal(err)
		}
		s.says(p.post("/account/security/factor"), http.StatusBadRequest, "Please fill this in.")
		s.says(p.post("/account/security/factor", "current_password", "wr0ng secret"), http.StatusUnauthorized, "The password is wrong.")
		a := p.post("/account/security/factor", "current_password", secret)
		s.says(a, http.StatusOK, "<svg", `inputmode="numeric"`, `autocomplete="one-time-code"`, "Key: ")
		address := strings.ReplaceAll(hidden(t, a.body, "otpauth"), "&amp;", "&")
		u, err := url.Parse(address)
		if err != nil || u.Scheme != "otpauth" {
			t.Fatalf("the authenticator reads %q, %v", address, err)
		}
		key := u.Query().Get("secret")
		if !strings.Contains(a.body, grouped(key)) {
			t.Error("the key is not there as text")
		}
		s.says(p.post("/account/security/confirm", "otpauth", address, "totp", ""), http.StatusBadRequest, "Please fill this in.", "<svg")
		s.says(p.post("/account/security/confirm", "otpauth", address, "totp", "000000"), http.StatusUnprocessableEntity, "This code is wrong", "<svg", grouped(key))
		for _, nonsense := range []string{"", "https://evil.example", "otpauth://hotp/a?secret=AAAA", strings.Repeat("x", 5000)} {
			s.says(p.post("/account/security/confirm", "otpauth", nonsense, "totp", s.codeOf(key)), http.StatusBadRequest, "can&#39;t be read")
		}
		s.leadsTo(p.post("/account/security/confirm", "otpauth", address, "totp", s.codeOf(key)), "/account/security?done=factor")
		s.says(p.get("/account/security?done=factor"), http.StatusOK, "The second factor is on.", `href="/account/security/codes"`)
		s.says(p.post("/account/security/factor", "current_password", secret), http.StatusConflict, "A second factor is on")

		next := func() string {
			s.clock.add(30 * time.Second)
			return s.codeOf(key)
		}
		s.says(p.get("/account/security/codes"), http.StatusOK, `name="totp"`)
		s.says(p.post("/account/security/codes", "current_password", secret), http.StatusUnauthorized, "Please fill this in.", `aria-describedby="totp-errors"`)
		s.says(p.post("/account/security/codes", "current_password", secret, "totp", "000000"), http.StatusUnauthorized, "This code is wrong")
		a = p.post("/account/security/codes", "current_password", secret, "totp", next())
		found := regexp.MustCompile(`<li>([A-Z2-7]{4}(?:-[A-Z2-7]{4}){5})</li>`).FindAllStringSubmatch(a.body, -1)
		if a.status != http.StatusOK || len(found) != 10 {
			t.Fatalf("there are %d recovery codes: %d %s", len(found), a.status, mainOf(a.body))
		}
		if again := p.get("/account/security/codes"); strings.Contains(again.body, found[0][1]) {
			t.Error("the codes are shown again")
		}
		other := s.person()
		begun := hidden(t, other.post("/login", "email", "ada@example.org", "password", secret).body, "begun")
		s.leadsTo(other.post("/login", "begun", begun, "totp", found[3][1]), "/account")

		s.says(p.post("/account/security/off", "current_password", secret), http.StatusUnauthorized, "Please fill this in.")
		s.leadsTo(p.post("/account/security/off", "current_password", secret, "totp", next()), "/account/security?done=off")
		s.says(p.get("/account/security?done=off"), http.StatusOK, "The second factor is off.", `href="/account/security/factor"`)
		s.says(p.post("/account/security/confirm", "otpauth", address, "totp", next()), http.StatusConflict, "Please begin again.")
		for _, kept := range []string{key, found[0][1], begun} {
			if s.output.Contains(kept) {
				t.Error("a secret is in the log")
			}
		}
	})
}

// The picture is read back by what is drawn: each square of the code, and nothing else.
func TestPicture(t *testing.T) {
	t.Parallel()
	const text = "otpauth://totp/usher:ada@example.org?secret=JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP&issuer=usher"
	drawn, err := draw(text)
	if err != nil {
		t.Fatal(err)
	}
	canvas := image.NewGray(image.Rect(0, 0, drawn.Size, drawn.Size))
	squares := 0
	for _, run := range regexp.MustCompile(`M(\d+) (\d+)h(\d+)v1h-(\d+)z`).FindAllStringSubmatch(drawn.Path, -1) {
		x, y, n := number(t, run[1]), number(t, run[2]), number(t, run[3])
		for i := range n {
			canvas.SetGray(x+i, y, color.Gray{Y: 1})
			squares++
		}
	}
	if drawn.Path != regexp.MustCompile(`(M\d+ \d+h\d+v1h-\d+z)*`).FindString(drawn.Path) || squares < 200 {
		t.Errorf("the path is not one of squares, or of %d only", squares)
	}
	// The three finders, and the quiet zone around.
	for _, corner := range [][2]int{{quietZone, quietZone}, {drawn.Size - quietZone - 7, quietZone}, {quietZone, drawn.Size - quietZone - 7}} {
		if canvas.GrayAt(corner[0], corner[1]).Y == 0 || canvas.GrayAt(corner[0]+3, corner[1]+3).Y == 0 || canvas.GrayAt(corner[0]+1, corner[1]+1).Y != 0 {
			t.Errorf("there is no finder at %v", corner)
		}
	}
	if bytes.ContainsRune(canvas.Pix[:drawn.Size*quietZone], 1) {
		t.Error("something is drawn in the quiet zone")
	}
}

func TestErasePage(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db database) {
		s := newStack(t, options{db: db})
		p := s.loggedIn("ada@example.org")
		ada := s.userOf(p)
		s.says(p.get("/account/data"), http.StatusOK, "erased for good", "Nobody can bring it back", "logged out everywhere")
		s.says(p.post("/account/data"), http.StatusBadRequest, "Please fill this in.")
		s.says(p.post("/account/data", "current_password", "wr0ng secret"), http.StatusUnauthorized, "The password is wrong.", "Nobody can bring it back")
		s.leadsTo(p.post("/account/data", "current_password", secret), "/logout?done=erased")
		if len(p.cookies) != 0 {
			t.Errorf("the browser keeps %d cookies", len(p.cookies))
		}
		s.says(p.get("/logout?done=erased"), http.StatusOK, "Your account is erased")
		if _, err := s.identity.ReadUser(t.Context(), ada); err == nil {
			t.Error("the user is still there")
		}
		_, _, err := s.identity.EnsureAdmin(t.Context(), "root@example.org", secret)
		if err != nil {
			t.Fatal(err)
		}
		p.logsIn("root@example.org")
		s.says(p.post("/account/data", "current_password", secret), http.StatusConflict, "You are the last administrator.")
	})
}

func TestExportPage(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db database) {
		s := newStack(t, options{db: db})
		p := s.loggedIn("ada@example.org")
		s.says(p.get("/account/data"), http.StatusOK, `href="/account/data/export"`)
		if a := p.get("/account/data/export"); strings.Contains(a.body, "current_password") {
			t.Error("a password is asked for right after the login")
		}
		downloads := func(a answer) {
			t.Helper()
			if a.status != http.StatusOK || !strings.HasPrefix(a.header.Get("Content-Disposition"), `attachment; filename="usher-`) || a.header.Get("Content-Type") != "application/json" ||
				!strings.Contains(a.body, "session.started") || !strings.Contains(a.body, "ada@example.org") || a.header.Get("Cache-Control") != "no-store" {
				t.Errorf("the file is %d %v %s", a.status, a.header, a.body)
			}
		}
		downloads(p.post("/account/data/export"))
		s.clock.add(20 * time.Minute)
		s.says(p.get("/account/data/export"), http.StatusOK, "Show first that it is you.", `name="current_password"`)
		s.says(p.post("/account/data/export"), http.StatusBadRequest, "Please fill this in.")
		s.says(p.post("/account/data/export", "current_password", "wr0ng secret"), http.StatusUnauthorized, "The password is wrong.")
		downloads(p.post("/account/data/export", "current_password", secret))
	})
}

func TestActivityPage(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db database) {
		s := newStack(t, options{db: db})
		p := s.loggedIn("ada@example.org")
		s.says(p.get("/account/activity"), http.StatusServiceUnavailable, "This list is being prepared.")
		s.project()
		for range activityShown {
			p.post("/logout")
			p.logsIn("ada@example.org")
		}
		p.post("/account", "form", "profile", "name", "<b>Countess</b>", "locale", "")
		var a answer
		devstack.Eventually(t, "the newest is listed", func() bool {
			a = p.get("/account/activity")
			return strings.Contains(a.body, "Your profile was changed")
		})
		s.says(a, http.StatusOK, "You logged in", "You logged out", "Earlier")
		older := regexp.MustCompile(`href="(/account/activity\?before=\d+)"`).FindStringSubmatch(a.body)
		for n := 0; older != nil && n < 10; n++ {
			a = p.get(older[1])
			older = regexp.MustCompile(`href="(/account/activity\?before=\d+)"`).FindStringSubmatch(a.body)
		}
		s.says(a, http.StatusOK, "You created the account")
		s.says(p.get("/account/activity?before=x"), http.StatusBadRequest, "can&#39;t be read")
		s.says(p.get("/account/activity?ui_locales=ar"), http.StatusOK, "سجّلت الدخول")
		eve := s.loggedIn("eve@example.org")
		devstack.Eventually(t, "the other's is listed", func() bool { return strings.Contains(eve.get("/account/activity").body, "You logged in") })
		if a := eve.get("/account/activity"); strings.Contains(a.body, "Your profile was changed") {
			t.Error("what happened to somebody else is listed")
		}
	})
}

// Every event that a user can be told of has words.
func TestEventsInWords(t *testing.T) {
	t.Parallel()
	l := lookOf(t)
	for _, kind := range identity.EventTypes() {
		if !strings.HasPrefix(kind, "user.") && !strings.HasPrefix(kind, "session.") {
			continue
		}
		if _, there := l.Choose("en").Events[kind]; !there {
			t.Errorf("there are no words for %s", kind)
		}
	}
	for _, reason := range []string{identity.EndedLogout, identity.EndedExpired, identity.EndedRevoked, identity.EndedReuse, identity.EndedPasswordChanged, identity.EndedLocked, identity.EndedDisabled, identity.EndedErased} {
		if _, there := l.Choose("en").Events[identity.TypeSessionEnded+" "+reason]; !there {
			t.Errorf("there are no words for a session that ended as %s", reason)
		}
	}
	w := l.Choose("de")
	for _, test := range []struct {
		view projections.ActivityView
		want string
	}{
		{projections.ActivityView{Type: identity.TypeUserRoleGranted, Details: projections.ActivityDetails{Role: "editor"}}, "Sie haben die Rolle editor bekommen"},
		{projections.ActivityView{Type: identity.TypeUserPasswordChanged, Details: projections.ActivityDetails{Reason: "change"}}, "Ihr Passwort wurde geändert"},
		{projections.ActivityView{Type: identity.TypeUserPasswordChanged, Details: projections.ActivityDetails{Reason: identity.ReasonRehash}}, "Ihr Passwort ist jetzt sicherer gespeichert"},
		{projections.ActivityView{Type: identity.TypeUserConsentWithdrawn, Details: projections.ActivityDetails{Client: "an id"}}, "\u2068shop\u2069 hat keinen Zugriff auf Ihr Konto mehr"},
		{projections.ActivityView{Type: "user.something_new"}, "Etwas anderes: user.something_new"},
	} {
		if got := inWords(w, test.view, "shop"); got != test.want {
			t.Errorf("%s: %q, want %q", test.view.Type, got, test.want)
		}
	}
}

func TestDeviceName(t *testing.T) {
	t.Parallel()
	w := lookOf(t).Choose("en").Sessions
	for agent, want := range map[string]string{
		"": "Unknown device",
		"Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Mobile/15E148 Safari/604.1": leftToRight("Safari") + " on " + leftToRight("iOS"),
		"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36":                         leftToRight("Chrome") + " on " + leftToRight("Windows"),
		"curl/8.5.0":             "curl",
		"something of our own":   "something of our own",
		strings.Repeat("x", 500): strings.Repeat("x", 60) + "…",
	} {
		if got := deviceName(w, agent); got != want {
			t.Errorf("%.40q is %q, want %q", agent, got, want)
		}
	}
}

func lookOf(t *testing.T) *look.Look {
	t.Helper()
	l, err := look.New(look.Config{})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func number(t *testing.T, text string) int {
	t.Helper()
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// userOf is the id of whose browser it is.
func (s *stack) userOf(p *person) uuid.UUID {
	s.tb.Helper()
	b, err := s.identity.ReadBrowser(identity.BrowserToken(p.cookies["usher"]))
	if err != nil {
		s.tb.Fatal(err)
	}
	return b.User
}

// project fills the list of what happened, until the test ends.
func (s *stack) project() {
	s.tb.Helper()
	conn, err := devstack.NATS(s.tb).Connect()
	if err != nil {
		s.tb.Fatal(err)
	}
	s.tb.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	if err != nil {
		s.tb.Fatal(err)
	}
	r := &projections.Runner{
		Projection: projections.ActivityProjection{}, DB: s.db, Log: s.log, Checkpoints: projections.NewCheckpoints(s.db), JetStream: js,
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil)), Poll: 100 * time.Millisecond,
	}
	devstack.Background(s.tb, r.Run)
}
