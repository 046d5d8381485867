package oidc

import (
	"testing"

	"usher.example/server"
)

func TestCodesOfStatuses(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]string{400: "invalid_request", 401: "invalid_client", 413: "invalid_request", 500: "server_error", 503: "temporarily_unavailable"} {
		if got := codeOf(server.Failure{Problem: server.Problem{Status: status}}); got != want {
			t.Errorf("codeOf(%d) = %s, want %s", status, got, want)
		}
	}
}
