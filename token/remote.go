package token

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// RemoteKeys keeps a [KeyRing] as an issuer's JWKS document has it, for a
// service that verifies the issuer's tokens. The keys come from the one address
// that the service was set up with, whatever a token says. Its fields are set
// before Run and not changed after.
//
//	remote := &token.RemoteKeys{URL: "https://id.example/.well-known/jwks.json", Keys: new(token.KeyRing)}
//	go remote.Run(ctx)
//	verifier, err := token.NewVerifier(token.VerifierConfig{Keys: remote.Keys, Missing: remote.Missing, …})
//
// While the document can't be had, the keys stay those that it had last.
type RemoteKeys struct {
	URL    string
	Keys   *KeyRing
	Client *http.Client // nil stands for one of its own
	Logger *slog.Logger // of what goes wrong; nil stands for slog.Default

	mu      sync.Mutex // held while the document is fetched
	tag     string     // its ETag
	asked   time.Time  // when a missing key last had it fetched
	fetched time.Time
}

const (
	fetchTimeout = 5 * time.Second // of whatever client

	// A document is fetched again when it may no longer be kept, within bounds.
	minKeep, maxKeep, defaultKeep = 30 * time.Second, time.Hour, 5 * time.Minute
	// After a failure it is tried again, less and less often.
	firstRetry, lastRetry = time.Second, time.Minute
	// missingPause is between two fetches for keys that are missing.
	missingPause = 10 * time.Second
)

// Run fetches the document at once, and again whenever it may no longer be
// kept, until ctx ends; then it returns its cause. What goes wrong is logged
// and tried again.
func (r *RemoteKeys) Run(ctx context.Context) error {
	failures := 0
	for {
		keep, err := r.Fetch(ctx)
		wait := keep
		if err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if failures == 0 {
				r.logger().WarnContext(ctx, "the keys of tokens can't be fetched; trying again", slog.Any("error", err))
			}
			wait = min(firstRetry<<min(failures, 10), lastRetry)
			failures++
		} else {
			failures = 0
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		}
	}
}

// Missing is for [VerifierConfig]: it fetches the document for a key that is
// not known, which may be newer. It does so once in ten seconds at most,
// whatever tokens come; callers who come meanwhile wait for it.
func (r *RemoteKeys) Missing(string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if time.Since(r.asked) < missingPause {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), fetchTimeout)
	defer cancel()
	if _, err := r.fetch(ctx); err != nil {
		r.logger().Warn("the keys of tokens can't be fetched", slog.Any("error", err))
	}
	r.asked = time.Now()
}

// Age is how long ago the keys were last known to be those of the document;
// the time since the zero time before they ever were.
func (r *RemoteKeys) Age() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return time.Since(r.fetched)
}

// Fetch fetches the document once and puts its keys into the ring. It answers
// with how long to keep them. It fails with [ErrKey] for a document that can't
// be read, and otherwise as the network does; the keys then stay as they were.
func (r *RemoteKeys) Fetch(ctx context.Context) (keep time.Duration, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.fetch(ctx)
}

func (r *RemoteKeys) fetch(ctx context.Context) (keep time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, r.URL, nil)
	if err != nil {
		return 0, fmt.Errorf("fetch keys: %w", err)
	}
	request.Header.Set("Accept", "application/jwk-set+json, application/json")
	if r.tag != "" {
		request.Header.Set("If-None-Match", r.tag)
	}
	response, err := cmp.Or(r.Client, defaultClient).Do(request)
	if err != nil {
		return 0, fmt.Errorf("fetch keys: %w", err)
	}
	defer response.Body.Close()
	switch response.StatusCode {
	case http.StatusNotModified:
	case http.StatusOK:
		if err := r.take(response); err != nil {
			return 0, fmt.Errorf("fetch keys from %s: %w", request.URL.Redacted(), err)
		}
	default:
		return 0, fmt.Errorf("fetch keys from %s: answer %s", request.URL.Redacted(), response.Status)
	}
	r.fetched = time.Now()
	return keepFor(response.Header), nil
}

// take puts the keys of a document into the ring. Those that are there already
// stay, so that tokens that were verified with them are remembered on.
func (r *RemoteKeys) take(response *http.Response) error {
	document, err := io.ReadAll(io.LimitReader(response.Body, maxJWKSBytes+1))
	if err != nil {
		return err
	}
	keys, err := ParseJWKS(document)
	if err != nil {
		return err
	}
	for i, k := range keys {
		if known, ok := r.Keys.byID(k.id); ok && known.algorithm == k.algorithm && known.Thumbprint() == k.Thumbprint() {
			keys[i] = known
		}
	}
	if err := r.Keys.Set(keys...); err != nil {
		return err
	}
	r.tag = response.Header.Get("ETag")
	return nil
}

// keepFor is how long a Cache-Control header lets an answer be kept.
func keepFor(header http.Header) time.Duration {
	for _, directive := range strings.Split(header.Get("Cache-Control"), ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(directive), "=")
		if !strings.EqualFold(name, "max-age") {
			continue
		}
		if seconds, err := strconv.ParseUint(value, 10, 31); err == nil {
			return min(max(time.Duration(seconds)*time.Second, minKeep), maxKeep)
		}
	}
	return defaultKeep
}

func (r *RemoteKeys) logger() *slog.Logger { return cmp.Or(r.Logger, slog.Default()) }

// defaultClient goes where it is sent and nowhere else: keys come from the
// address that was set, not from one that an answer names.
var defaultClient = &http.Client{
	CheckRedirect: func(*http.Request, []*http.Request) error { return errors.New("redirected, which is not followed") },
}
