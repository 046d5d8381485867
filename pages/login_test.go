package pages

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"

	"usher.example/identity"
	"usher.example/internal/devstack"
	"usher.example/server"
)

// withFactor turns on a second factor for a user whose address is verified, and answers with what makes its codes.
func (s *stack) withFactor(email string) (next func() string) {
	s.tb.Helper()
	ada := s.user(email)
	if _, err := s.identity.Verify(s.tb.Context(), identity.MailCode(s.code(ada, identity.PurposeVerify)), ada, metadata()); err != nil {
		s.tb.Fatal(err)
	}
	key, err := s.identity.StartTOTP(s.tb.Context(), ada, identity.Proof{Password: secret}, metadata())
	if err != nil {
		s.tb.Fatal(err)
	}
	next = func() string {
		s.tb.Helper()
		s.clock.add(30 * time.Second)
		return s.codeOf(string(key.Secret))
	}
	if _, err := s.identity.ConfirmTOTP(s.tb.Context(), ada, identity.FactorCode(next()), metadata()); err != nil {
		s.tb.Fatal(err)
	}
	return next
}

// codeOf is the one-time password of a key at present.
func (s *stack) codeOf(key string) string {
	s.tb.Helper()
	code, err := totp.GenerateCode(key, s.clock.now())
	if err != nil {
		s.tb.Fatal(err)
	}
	return code
}

func TestLogin(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db database) {
		s := newStack(t, options{db: db})
		s.user("ada@example.org")
		p := s.person()
		for _, field := range []string{`autocomplete="username"`, `autocomplete="current-password"`, `href="/register"`, `href="/account/forgot"`} {
			s.says(p.get("/login"), http.StatusOK, field)
		}
		for _, test := range []struct {
			email, password string
			status          int
			words           string
		}{
			{"", "", http.StatusBadRequest, "Please fill this in."},
			{"ada@example.org", "", http.StatusBadRequest, "Please fill this in."},
			{"nonsense", secret, http.StatusUnprocessableEntity, "This is not an email address."},
			{"ada@example.org", "wr0ng secret", http.StatusUnauthorized, "The email address or the password is wrong."},
			{"nobody@example.org", secret, http.StatusUnauthorized, "The email address or the password is wrong."},
		} {
			a := p.post("/login", "email", test.email, "password", test.password)
			s.says(a, test.status, test.words)
			if test.password != "" && strings.Contains(a.body, test.password) || len(p.cookies) != 0 {
				t.Errorf("%q, %q: the answer has the password, or a cookie: %v", test.email, test.password, p.cookies)
			}
			if test.email != "" && !strings.Contains(a.body, `value="`+test.email+`"`) {
				t.Errorf("%q is to be typed again", test.email)
			}
		}
		s.leadsTo(p.post("/login?return=/account/security%3Fa%3Db&ui_locales=de", "email", "ADA@example.org", "password", secret), "/account/security?a=b")
		s.leadsTo(p.get("/login"), "/account")
		s.leadsTo(p.get("/login?return=/account/data"), "/account/data")
		s.leadsTo(p.get("/register?return=/account/data"), "/account/data")
		s.says(p.get("/login?prompt=login&login_hint=ada@example.org"), http.StatusOK, `value="ada@example.org"`)

		s.says(p.get("/logout"), http.StatusOK, "Do you want to log out on this device?")
		if !p.isIn() {
			t.Error("to look at the page logged out")
		}
		a := p.post("/logout?ui_locales=en")
		s.leadsTo(a, "/logout?done=&ui_locales=en")
		if got := a.header.Get("Clear-Site-Data"); got != `"cache", "storage"` {
			t.Errorf("Clear-Site-Data is %q", got)
		}
		s.says(p.get("/logout?done="), http.StatusOK, "You are logged out", `role="status"`)
		if p.isIn() || p.cookies["usher-device"] == "" {
			t.Errorf("after logging out: in %v, known device %v", p.isIn(), p.cookies["usher-device"] != "")
		}
		s.leadsTo(p.post("/logout"), "/logout?done=")
		kinds := strings.Join(s.kinds(), " ")
		if !strings.HasSuffix(kinds, "session.started session.ended") {
			t.Errorf("the log has %s", kinds)
		}
	})
}

// kinds are the types of all events.
func (s *stack) kinds() (list []string) {
	s.tb.Helper()
	events, err := s.log.ReadAll(s.tb.Context(), 0, 1000)
	if err != nil {
		s.tb.Fatal(err)
	}
	for _, e := range events {
		list = append(list, e.Type)
	}
	return list
}

func TestLoginWithSecondFactor(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db database) {
		s := newStack(t, options{db: db})
		next := s.withFactor("ada@example.org")
		p := s.person()
		a := p.post("/login?return=/account/data", "email", "ada@example.org", "password", secret)
		s.says(a, http.StatusUnauthorized, "One more step", `autocomplete="one-time-code"`, `href="/login?return=%2Faccount%2Fdata"`)
		if strings.Contains(a.body, secret) || strings.Contains(a.body, `role="alert"`) {
			t.Errorf("the step has the password, or says that something is wrong: %s", mainOf(a.body))
		}
		begun := hidden(t, a.body, "begun")
		s.says(p.post("/login?return=/account/data", "begun", begun, "totp", ""), http.StatusUnauthorized, "Please fill this in.")
		s.says(p.post("/login?return=/account/data", "begun", begun, "totp", "000000"), http.StatusUnauthorized, "This code is wrong", `aria-describedby="totp-errors"`)
		s.says(p.post("/login", "begun", "nonsense", "totp", next()), http.StatusBadRequest, "That took too long", `name="password"`)
		if p.isIn() {
			t.Fatal("the password alone lets in")
		}
		s.leadsTo(p.post("/login?return=/account/data", "begun", begun, "totp", next()), "/account/data")
		b, err := s.identity.ReadBrowser(identity.BrowserToken(p.cookies["usher"]))
		if err != nil || strings.Join(b.Methods, " ") != "password totp" {
			t.Errorf("the session was begun by %v, %v", b.Methods, err)
		}
		if s.output.Contains(begun) {
			t.Error("what was shown is in the log")
		}
	})
}

// A device that somebody has logged in on has guesses of its own, also where strangers have used up all others.
func TestLoginOnAKnownDevice(t *testing.T) {
	t.Parallel()
	s := newStack(t, options{})
	s.user("ada@example.org")
	p, stranger := s.person(), s.person()
	p.logsIn("ada@example.org")
	p.post("/logout")
	var a answer
	for range 8 {
		a = stranger.post("/login", "email", "ada@example.org", "password", "wr0ng secret")
	}
	s.says(a, http.StatusTooManyRequests, "That was too often. Try again in")
	if a.header.Get("Retry-After") == "" {
		t.Error("there is no Retry-After")
	}
	p.logsIn("ada@example.org")
}

func TestLoginOfAnUnverified(t *testing.T) {
	t.Parallel()
	s := newStack(t, options{identity: func(c *identity.Config) { c.LoginNeedsVerifiedEmail = true }})
	s.user("ada@example.org")
	s.says(s.person().post("/login", "email", "ada@example.org", "password", secret), http.StatusForbidden, "Your address is not confirmed yet.", `href="/account/resend"`)
}

func TestLoginWithAnOldPassword(t *testing.T) {
	t.Parallel()
	s := newStack(t, options{identity: func(c *identity.Config) { c.PasswordMaxAge = 24 * time.Hour }})
	s.user("ada@example.org")
	s.clock.add(25 * time.Hour)
	s.says(s.person().post("/login", "email", "ada@example.org", "password", secret), http.StatusForbidden, "Your password is too old.", `href="/account/forgot"`)
}

// Where it must not be told whether anybody has an address, it isn't: neither by words, nor by the status, the size or the time.
func TestASVS_6_3_8_PagesTellNothing(t *testing.T) {
	t.Parallel()
	s := newStack(t, options{identity: func(c *identity.Config) { c.EnumerationSafe = true }})
	if _, err := s.identity.Register(t.Context(), identity.Registration{Email: "ada@example.org", Password: secret, Metadata: metadata()}); err != nil {
		t.Fatal(err)
	}
	for _, form := range []struct {
		path   string
		fields []string
	}{
		{"/login", []string{"password", secret}}, // the right one of an address that is not verified
		{"/login", []string{"password", "wr0ng secret"}},
		{"/register", []string{"new_password", "another horse battery staple"}},
		{"/account/forgot", nil},
		{"/account/resend", nil},
	} {
		var answers []answer
		for _, email := range []string{"ada@example.org", "bob@example.org"} {
			begin := time.Now()
			a := s.person().post(form.path, append([]string{"email", email}, form.fields...)...)
			if took := time.Since(begin); took < server.EvenTime {
				t.Errorf("%s for %s: after %v, want %v or later", form.path, email, took, server.EvenTime)
			}
			a.body = strings.ReplaceAll(a.body, email, "…")
			answers = append(answers, a)
		}
		if answers[0].status != answers[1].status || answers[0].body != answers[1].body || answers[0].header.Get("Location") != answers[1].header.Get("Location") {
			t.Errorf("%s tells: %d %s\nand %d %s", form.path, answers[0].status, mainOf(answers[0].body), answers[1].status, mainOf(answers[1].body))
		}
	}
}

func TestRegister(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db database) {
		s := newStack(t, options{db: db})
		s.user("ada@example.org")
		p := s.person()
		for _, field := range []string{`autocomplete="name"`, `autocomplete="email"`, `autocomplete="new-password"`, `href="/login"`} {
			s.says(p.get("/register"), http.StatusOK, field)
		}
		for _, test := range []struct {
			name, email, password string
			status                int
			words, field          string
		}{
			{"", "", secret, http.StatusBadRequest, "Please fill this in.", "email"},
			{"", "bob@example.org", "", http.StatusBadRequest, "Please fill this in.", "new_password"},
			{"", "nonsense", secret, http.StatusUnprocessableEntity, "This is not an email address.", "email"},
			{"", "ada@example.org", secret, http.StatusConflict, "There is an account with this address already.", "email"},
			{"Bob\nBuilder", "bob@example.org", secret, http.StatusUnprocessableEntity, "This name can’t be used.", "name"},
			{"", "bob@example.org", "password1", http.StatusUnprocessableEntity, "used so often", "new_password"},
		} {
			a := p.post("/register", "name", test.name, "email", test.email, "new_password", test.password)
			s.says(a, test.status, test.words, `aria-describedby="`+test.field+`-errors"`)
			if strings.Contains(a.body, `value="`+test.password+`"`) && test.password != "" || len(p.cookies) != 0 {
				t.Errorf("%v: the answer has the password, or a cookie", test)
			}
		}
		s.leadsTo(p.post("/register?return=/account/data", "name", "Bob", "email", "bob@example.org", "new_password", secret), "/account/data")
		if !p.isIn() {
			t.Error("who registers is not logged in")
		}
		s.leadsTo(p.get("/register"), "/account")
	})
}

// Where the address has to be confirmed first, nobody is logged in before.
func TestRegisterUnverified(t *testing.T) {
	t.Parallel()
	s := newStack(t, options{identity: func(c *identity.Config) { c.LoginNeedsVerifiedEmail = true }})
	p := s.person()
	s.leadsTo(p.post("/register?ui_locales=en", "email", "bob@example.org", "new_password", secret), "/register?done=&ui_locales=en")
	s.says(p.get("/register?done="), http.StatusOK, "Look into your mailbox")
	if p.isIn() {
		t.Error("who registers is logged in")
	}
}

// A mail that is asked for is one event, for whoever has the address.
func TestAsk(t *testing.T) {
	t.Parallel()
	s := newStack(t, options{})
	s.user("ada@example.org")
	for path, kind := range map[string]string{"/account/forgot": "user.password_reset_requested", "/account/resend": "user.email_verification_requested"} {
		s.says(s.person().get(path), http.StatusOK, `autocomplete="username"`)
		s.says(s.person().post(path, "email", ""), http.StatusBadRequest, "Please fill this in.")
		s.says(s.person().post(path, "email", "nonsense"), http.StatusUnprocessableEntity, "This is not an email address.")
		s.leadsTo(s.person().post(path, "email", "ada@example.org"), path+"?done=")
		s.says(s.get(path+"?done="), http.StatusOK, "If there is such an account")
		devstack.Eventually(t, "the mail is asked for", func() bool { return strings.Contains(strings.Join(s.kinds(), " "), kind) })
	}
}

// Nobody is led to another host, however it is written.
func TestASVS_3_7_2_Return(t *testing.T) {
	t.Parallel()
	for _, ours := range []string{"/", "/account", "/account/sessions", "/oauth2/authorize?client_id=a&redirect_uri=https%3A%2F%2Fapp.example%2Fcb&scope=openid%20email&state=%2F%2F", "/a.b/c..d/...", "/a?b=//c", "/%C3%A4"} {
		if !isOurs(ours) {
			t.Errorf("%q is not taken for ours", ours)
		}
	}
	others := []string{
		"", "account", "https://evil.example", "HTTPS://evil.example/", "//evil.example", "///evil.example", "////evil.example/a", `/\evil.example`, `\/evil.example`, `\\evil.example`,
		`/\/evil.example`, "/\t/evil.example", "/\n/evil.example", "/\r/evil.example", "/\x00/evil.example", "\t//evil.example", " //evil.example", "/ /evil.example",
		"/%2F/evil.example", "/%2f%2fevil.example", "/%5Cevil.example", "/%5c/evil.example", "/.//evil.example", "/./", "/../account", "/..//evil.example", "/a/..//evil.example", "/%2e%2e//evil.example",
		"/%2e/%2Fevil.example", "/%09/evil.example//", "javascript:alert(1)", "data:text/html,x", "mailto:a@b", "https:evil.example", "https:/evil.example", "http:///evil.example",
		"@evil.example", "/@evil.example//", ":80", "//[::1]", "//user@evil.example", "?a", "#a", "/a#b", "/\u2028/evil.example", "/%", "/\u202e", "/a\\b", "/ａ", "//evil.example/%2e%2e", "/" + strings.Repeat("a", maxReturn),
	}
	for _, other := range others {
		if isOurs(other) {
			t.Errorf("%q is taken for ours", other)
		}
	}
	s := newStack(t, options{})
	s.user("ada@example.org")
	p := s.person()
	p.logsIn("ada@example.org")
	for _, other := range others {
		s.leadsTo(p.get("/login?"+url.Values{"return": {other}}.Encode()), "/account")
	}
	s.leadsTo(p.get("/login?return=/a&return=//evil.example"), "/a")
	s.leadsTo(p.get("/login?return=//evil.example&return=/a"), "/account")
}

func FuzzReturn(f *testing.F) {
	for _, seed := range []string{"/account", "//evil.example", `/\evil.example`, "/%2f/evil.example", "/.//evil.example"} {
		f.Add(seed)
	}
	base, _ := url.Parse("https://id.example.org/login")
	f.Fuzz(func(t *testing.T, address string) {
		if !isOurs(address) {
			return
		}
		to, err := base.Parse(address)
		if err != nil || to.Host != base.Host || to.Scheme != base.Scheme || strings.HasPrefix(to.Path, "//") || strings.ContainsAny(address, "\\\t\r\n") {
			t.Errorf("%q leads to %v, %v", address, to, err)
		}
	})
}
