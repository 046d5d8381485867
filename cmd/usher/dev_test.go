package main

import (
	"net"
	"reflect"
	"testing"

	"usher.example/identity/password"
)

func TestNewPasswordPassesTheStrictPolicy(t *testing.T) {
	t.Parallel()
	policy, err := password.NewPolicy(password.PolicyConfig{Type: "strict"})
	if err != nil {
		t.Fatal(err)
	}
	for range 2000 { // one in 60 would have no digit by chance
		made := newPassword()
		if err := policy.Check(password.Password(made), password.Subject{Email: devAdmin}); err != nil {
			t.Fatalf("%s: %v", made, err)
		}
	}
}

// Links lead to where the API answers, on whatever port that is, unless PUBLIC_URL says otherwise.
func TestDevAnswersAtItsPort(t *testing.T) {
	t.Parallel()
	addr := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 4711}
	tag, _ := reflect.TypeFor[config]().FieldByName("PublicURL")
	if got := tag.Tag.Get("default"); got != defaultPublicURL {
		t.Errorf("the default of PUBLIC_URL is %q, and defaultPublicURL %q", got, defaultPublicURL)
	}
	for _, test := range []struct{ public, issuer, wantPublic, wantIssuer string }{
		{defaultPublicURL, defaultPublicURL, "http://localhost:4711", "http://localhost:4711"},
		{defaultPublicURL, "https://issuer.example.org", "http://localhost:4711", "https://issuer.example.org"},
		{"https://users.example.org", "https://users.example.org", "https://users.example.org", "https://users.example.org"},
	} {
		c := config{PublicURL: test.public, JWTIssuer: test.issuer}
		if c.answerAt(addr); c.PublicURL != test.wantPublic || c.JWTIssuer != test.wantIssuer {
			t.Errorf("PUBLIC_URL %s and issuer %s become %s and %s", test.public, test.issuer, c.PublicURL, c.JWTIssuer)
		}
	}
}
