package main

import "testing"

func TestCounted(t *testing.T) {
	t.Parallel()
	for n, want := range map[int64]string{0: "0 events", 1: "1 event", 2: "2 events"} {
		if got := counted(n, "event", "events"); got != want {
			t.Errorf("counted(%d) = %q, want %q", n, got, want)
		}
	}
}
