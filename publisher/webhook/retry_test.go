package webhook

import (
	"net/http"
	"testing"
	"time"
)

func TestBackoff(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		base     time.Duration
		attempts int
		random   float64
		want     time.Duration
	}{
		{time.Minute, 1, 0, time.Minute},
		{time.Minute, 2, 0, 2 * time.Minute},
		{time.Minute, 3, 0, 4 * time.Minute},
		{time.Minute, 3, 0.5, 4*time.Minute + 30*time.Second},
		{time.Minute, 60, 0, maxDelay},
		{time.Minute, 1 << 30, 0, maxDelay},
		{24 * time.Hour, 1, 0, maxDelay},
	} {
		if got := backoff(c.base, c.attempts, c.random); got != c.want {
			t.Errorf("backoff(%v, %d, %v) = %v, want %v", c.base, c.attempts, c.random, got, c.want)
		}
	}
}

func TestParseRetryAfter(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC)
	for text, want := range map[string]time.Duration{
		"": 0, "0": 0, "7": 7 * time.Second, " 7 ": 7 * time.Second, "007": 7 * time.Second,
		"3600": time.Hour, "3601": time.Hour, "99999999999999999999999999": time.Hour,
		"-7": 0, "+7": 0, "7s": 0, "1.5": 0, "soon": 0,
		"Tue, 03 Feb 2026 04:05:36 GMT":    30 * time.Second,
		"Tuesday, 03-Feb-26 04:05:36 GMT":  30 * time.Second,
		"Tue Feb  3 04:05:36 2026":         30 * time.Second,
		"Tue, 03 Feb 2026 04:05:06 GMT":    0,
		"Mon, 02 Feb 2026 04:05:06 GMT":    0,
		"Fri, 31 Dec 9999 23:59:59 GMT":    time.Hour,
		"Tue, 03 Feb 2026 04:05:36 +02:00": 0,
	} {
		if got := parseRetryAfter(text, now); got != want {
			t.Errorf("parseRetryAfter(%q) = %v, want %v", text, got, want)
		}
	}
}

func FuzzParseRetryAfter(f *testing.F) {
	for _, text := range []string{"", "7", "-1", "3601", "Tue, 03 Feb 2026 04:05:36 GMT", "Fri, 31 Dec 9999 23:59:59 GMT", "99999999999999999999", "٣"} {
		f.Add(text)
	}
	now := time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC)
	f.Fuzz(func(t *testing.T, text string) {
		got := parseRetryAfter(text, now)
		if got < 0 || got > maxRetryAfter {
			t.Errorf("parseRetryAfter(%q) = %v, want from 0 to %v", text, got, maxRetryAfter)
		}
		if at, err := http.ParseTime(text); err == nil && at.After(now) && got == 0 {
			t.Errorf("parseRetryAfter(%q) = 0, for a date to come", text)
		}
	})
}
