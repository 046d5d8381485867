package webhook

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	// maxDelay bounds the wait that doubles with each attempt.
	maxDelay = 12 * time.Hour
	// maxRetryAfter bounds the wait that an endpoint may ask for: it holds a user's later events back.
	maxRetryAfter = time.Hour
)

// backoff is the wait before the next attempt, after a number of attempts: base, doubled for each attempt after the first,
// and up to a quarter more, so that what failed together does not come back together. random is in [0, 1).
func backoff(base time.Duration, attempts int, random float64) time.Duration {
	wait := base
	for range attempts - 1 {
		if wait = min(2*wait, maxDelay); wait == maxDelay {
			break
		}
	}
	wait = min(wait, maxDelay)
	return wait + time.Duration(random*float64(wait)/4)
}

// parseRetryAfter reads the header Retry-After (RFC 9110, section 10.2.3): seconds or a date. The answer is from 0 to
// maxRetryAfter; what is neither is 0.
func parseRetryAfter(text string, now time.Time) time.Duration {
	text = strings.TrimSpace(text)
	if text == "" {
		return 0
	}
	if strings.Trim(text, "0123456789") == "" {
		seconds, err := strconv.ParseInt(text, 10, 64)
		if err != nil || seconds > int64(maxRetryAfter/time.Second) { // too large for a number, too
			return maxRetryAfter
		}
		return time.Duration(seconds) * time.Second
	}
	at, err := http.ParseTime(text)
	if err != nil || !at.After(now) {
		return 0
	}
	if latest := now.Add(maxRetryAfter); at.After(latest) { // Sub would overflow for a date in a far year
		return maxRetryAfter
	}
	return at.Sub(now)
}
