package main

import (
	"testing"

	"usher/identity/password"
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
