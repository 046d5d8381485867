package pages

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"usher.example/identity"
)

// codes are the pages that mails link to.
var codes = []string{"/account/verify", "/account/reset", "/account/email"}

// TestASVS_3_5_3_CodeOpened opens every page with every kind of code, as programs that look for harm in mails do: each answer is 200 and the
// same, and nothing is used up or written.
func TestASVS_3_5_3_CodeOpened(t *testing.T) {
	t.Parallel()
	s := newStack(t, options{})
	ada := s.user("ada@example.org")
	verify, reset := s.code(ada, identity.PurposeVerify), s.code(ada, identity.PurposeReset)
	before := s.head()
	for _, path := range codes {
		var first string
		for _, code := range []string{verify, reset, "wrong", strings.Repeat("x", 5000), "%00", `"><script>alert(1)</script>`} {
			for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodGet} {
				query := url.Values{"code": {code}}.Encode()
				a := s.call(method, path+"?"+query, nil)
				if a.status != http.StatusOK {
					t.Errorf("%s %s with %.20q: %d", method, path, code, a.status)
				}
				if method == http.MethodHead {
					continue
				}
				if strings.Contains(a.body, "<script") {
					t.Errorf("%s with %.20q has a script", path, code)
				}
				shape := a.body[:strings.Index(a.body, `name="code"`)] + a.body[strings.Index(a.body, "<button"):]
				if first == "" {
					first = shape
				}
				if shape != first {
					t.Errorf("%s tells by more than the code itself which one it is", path)
				}
			}
		}
	}
	if got := s.head(); got != before {
		t.Errorf("opening pages appended %d events", got-before)
	}
	if a := s.post("/account/verify", url.Values{"code": {verify}}); a.status != http.StatusSeeOther { // first: a reset verifies too
		t.Errorf("to verify after all that: %d %s", a.status, a.body)
	}
	if a := s.post("/account/reset", url.Values{"code": {reset}, "new_password": {"another horse battery staple"}}); a.status != http.StatusSeeOther {
		t.Errorf("to reset after all that: %d %s", a.status, a.body)
	}
}

func TestVerify(t *testing.T) {
	t.Parallel()
	s := newStack(t, options{})
	ada := s.user("ada@example.org")
	code := s.code(ada, identity.PurposeVerify)
	a := s.post("/account/verify?ui_locales=de&code="+code, url.Values{"code": {code}})
	if a.status != http.StatusSeeOther || a.header.Get("Location") != "/account/verify?done=&ui_locales=de" {
		t.Fatalf("POST = %d to %s, %s", a.status, a.header.Get("Location"), a.body)
	}
	if !s.read(ada).EmailVerified {
		t.Error("the address is not verified")
	}
	if a = s.get(a.header.Get("Location")); a.status != http.StatusOK || !strings.Contains(a.body, "Ihre Adresse ist bestätigt") || strings.Contains(a.body, "<form") {
		t.Errorf("what comes then is %d %s", a.status, a.body)
	}
	s.refuses("/account/verify", code, http.StatusConflict, "has been used already")
	s.refuses("/account/verify", "wrong", http.StatusUnprocessableEntity, "no longer good")
	s.refuses("/account/verify", "", http.StatusUnprocessableEntity, "no longer good")

	bob := s.user("bob@example.org")
	code = s.code(bob, identity.PurposeVerify)
	s.clock.add(25 * time.Hour)
	s.refuses("/account/verify", code, http.StatusUnprocessableEntity, "It has expired")
	if s.read(bob).EmailVerified {
		t.Error("an expired code verified an address")
	}
}

// refuses expects a page with words for a code, without a form that can't succeed.
func (s *stack) refuses(path, code string, status int, words string) {
	s.tb.Helper()
	a := s.post(path, url.Values{"code": {code}, "new_password": {"another horse battery staple"}})
	if a.status != status || !strings.Contains(a.body, words) || !strings.Contains(a.body, `role="alert"`) || strings.Contains(a.body, "<form") {
		s.tb.Errorf("POST %s with the code %q = %d %s, want %d and %q", path, code, a.status, a.body, status, words)
	}
}

func TestEmailChange(t *testing.T) {
	t.Parallel()
	s := newStack(t, options{})
	ada := s.user("ada@example.org")
	if _, err := s.identity.RequestEmailChange(t.Context(), ada, identity.Proof{Password: secret}, "lovelace@example.org", identity.CommandID("t", "1"), metadata()); err != nil {
		t.Fatal(err)
	}
	code := s.code(ada, identity.PurposeEmail)
	if a := s.post("/account/email", url.Values{"code": {code}}); a.status != http.StatusSeeOther {
		t.Fatalf("POST = %d %s", a.status, a.body)
	}
	if u := s.read(ada); u.Email != "lovelace@example.org" || !u.EmailVerified {
		t.Errorf("the address is %s, verified %v", u.Email, u.EmailVerified)
	}
	s.refuses("/account/email", code, http.StatusConflict, "has been used already")

	// Somebody else has the address by the time.
	bob := s.user("bob@example.org")
	if _, err := s.identity.RequestEmailChange(t.Context(), bob, identity.Proof{Password: secret}, "free@example.org", identity.CommandID("t", "2"), metadata()); err != nil {
		t.Fatal(err)
	}
	code = s.code(bob, identity.PurposeEmail)
	s.user("free@example.org")
	s.refuses("/account/email", code, http.StatusConflict, "Another account has this address")
}

func TestReset(t *testing.T) {
	t.Parallel()
	s := newStack(t, options{})
	ada := s.user("ada@example.org")
	if _, err := s.identity.Login(t.Context(), identity.Credentials{Email: "ada@example.org", Password: secret, Metadata: metadata()}); err != nil {
		t.Fatal(err)
	}
	code := s.code(ada, identity.PurposeReset)
	for password, words := range map[string]string{
		"":                        "Please fill this in.",
		"short":                   "Use at least 8 characters",
		"password1":               "used so often",
		"aaaaaaaaaaaaaaaa":        "repeats or counts",
		"ada@example.org":         "made of your email address",
		strings.Repeat("x", 5000): "too long",
	} {
		a := s.post("/account/reset", url.Values{"code": {code}, "new_password": {password}})
		if a.status < 400 || a.status >= 500 || !strings.Contains(a.body, words) || !strings.Contains(a.body, `aria-describedby="new_password-errors"`) {
			t.Errorf("%.20q: %d, want %q at the field: %s", password, a.status, words, a.body)
		}
		if password != "" && strings.Contains(a.body, `value="`+password+`"`) {
			t.Errorf("%.20q is in the answer", password)
		}
		if !strings.Contains(a.body, `value="`+code+`"`) {
			t.Error("the code, which is still good, is lost")
		}
	}
	const chosen = "another horse battery staple"
	if a := s.post("/account/reset", url.Values{"code": {code}, "new_password": {chosen}}); a.status != http.StatusSeeOther || a.header.Get("Location") != "/account/reset?done=" {
		t.Fatalf("POST = %d %s", a.status, a.body)
	}
	if a := s.get("/account/reset?done="); !strings.Contains(a.body, "Your password was changed") {
		t.Errorf("what comes then is %s", a.body)
	}
	if _, err := s.identity.Login(t.Context(), identity.Credentials{Email: "ada@example.org", Password: chosen, Metadata: metadata()}); err != nil {
		t.Errorf("login with the new password: %v", err)
	}
	s.refuses("/account/reset", code, http.StatusConflict, "has been used already")
	s.refuses("/account/reset", "wrong", http.StatusUnprocessableEntity, "no longer good")
	code = s.code(ada, identity.PurposeReset)
	s.clock.add(2 * time.Hour)
	s.refuses("/account/reset", code, http.StatusUnprocessableEntity, "It has expired")
	for _, kept := range []string{code, chosen, secret} {
		if s.output.Contains(kept) {
			t.Errorf("%q is in the log", kept)
		}
	}
}
