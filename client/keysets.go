package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/hashicorp/golang-lru/v2/simplelru"

	"usher.example/token"
)

const (
	fetchTimeout = 5 * time.Second
	maxFetched   = 64 << 10
	// maxKeys bounds the keys of one client, and with them the work of an assertion that names none.
	maxKeys = 16
	// fetchPause is between two fetches for a client, whatever assertions come and whatever became of the first.
	fetchPause = time.Minute
	// A document is kept for as long as it may be, within bounds.
	minKept, maxKept, usuallyKept = fetchPause, time.Hour, 5 * time.Minute
	// maxStale is for how long keys are good that can't be fetched anew: a key that was withdrawn has to end some time.
	maxStale = time.Hour
)

// keySets keeps the public keys of clients that sign: of those that have set them, and of those that publish them, where they were
// fetched lately.
type keySets struct {
	http   http.RoundTripper // nil where nothing is fetched
	logger *slog.Logger
	now    func() time.Time

	mu   sync.Mutex
	sets *simplelru.LRU[uuid.UUID, *keySet]
}

// keySet has the keys of a client. Its fields are guarded by keySets.mu.
type keySet struct {
	source string // the JWK Set, or the URL of one
	keys   []token.PublicKey

	asked    time.Time     // when they were last asked for
	fetched  time.Time     // when that last went well
	until    time.Time     // until when they need not be again
	fetching chan struct{} // closed once the fetch that is on has ended; nil while none is
}

func newKeySets(c Config) *keySets {
	sets, err := simplelru.NewLRU[uuid.UUID, *keySet](maxKnown, nil)
	if err != nil { // only for a size of 0
		panic(err)
	}
	return &keySets{http: c.HTTP, logger: c.Logger, now: c.Now, sets: sets}
}

// of is the keys of a client that an assertion may be signed with: that of a kid, or where it names none, all of them. Where they are
// published they are fetched if there is no such key, or if what is kept is too old; once a minute at most, and by one caller for all
// who come meanwhile. It fails with ErrUnknown as the cause of an *identity.Error, or with the cause of ctx.
func (k *keySets) of(ctx context.Context, c Client, kid string) ([]token.PublicKey, error) {
	for {
		k.mu.Lock()
		set, now := k.set(c), k.now()
		found := set.find(kid)
		switch {
		case len(c.JWKS) > 0, len(found) > 0 && now.Before(set.until):
			k.mu.Unlock()
			return named(found, kid)
		case set.fetching == nil && now.Sub(set.asked) < fetchPause:
			stale, never := now.Sub(set.fetched) > maxStale, set.fetched.IsZero()
			k.mu.Unlock()
			if never || stale {
				return nil, refuseAssertion("can't be checked, since the keys at the client's jwks_uri can't be fetched; usher's log says why, and it tries again in a minute")
			}
			return named(found, kid)
		case set.fetching == nil:
			set.asked, set.fetching = now, make(chan struct{})
			k.mu.Unlock()
			k.fetch(ctx, c, set)
		default:
			on := set.fetching
			k.mu.Unlock()
			select {
			case <-on:
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			}
		}
	}
}

func named(found []token.PublicKey, kid string) ([]token.PublicKey, error) {
	switch {
	case len(found) > 0:
		return found, nil
	case kid == "":
		return nil, refuseAssertion("is of a client without a key that is of use")
	}
	return nil, refuseAssertion("has a kid that is none of the client's keys")
}

// set is what is kept of a client.
func (k *keySets) set(c Client) *keySet {
	source := c.JWKSURI
	if len(c.JWKS) > 0 {
		source = string(c.JWKS)
	}
	if set, ok := k.sets.Get(c.ID); ok && set.source == source {
		return set
	}
	set := &keySet{source: source}
	if len(c.JWKS) > 0 {
		set.keys, _ = token.ParsePublicKeys(c.JWKS) // there is one at least, or it would not have been set
		set.keys = set.keys[:min(len(set.keys), maxKeys)]
	}
	k.sets.Add(c.ID, set)
	return set
}

func (s *keySet) find(kid string) []token.PublicKey {
	if kid == "" {
		return s.keys
	}
	return slices.DeleteFunc(slices.Clone(s.keys), func(k token.PublicKey) bool { return k.ID != kid })
}

// fetch fetches the keys of a client. It goes on if the caller goes away, for the others who wait.
func (k *keySets) fetch(ctx context.Context, c Client, set *keySet) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), fetchTimeout)
	defer cancel()
	keys, keep, err := k.get(ctx, c.JWKSURI)
	k.mu.Lock()
	if now := k.now(); err == nil {
		set.keys, set.fetched, set.until = keys, now, now.Add(keep)
	}
	close(set.fetching)
	set.fetching = nil
	k.mu.Unlock()
	if err == nil && len(keys) == 0 {
		err = errors.New("the document has no key that is of use")
	}
	if err != nil {
		k.logger.WarnContext(ctx, "the keys of a client can't be had", slog.String("client", c.Name), slog.String("jwks_uri", c.JWKSURI), slog.Any("error", err))
	}
}

func (k *keySets) get(ctx context.Context, uri string) (keys []token.PublicKey, keep time.Duration, err error) {
	if k.http == nil {
		return nil, 0, errors.New("this process fetches nothing")
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, uri, nil)
	if err != nil {
		return nil, 0, err
	}
	request.Header.Set("Accept", "application/jwk-set+json, application/json")
	request.Header.Set("User-Agent", "usher")
	response, err := k.http.RoundTrip(request)
	if err != nil {
		return nil, 0, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, 0, fmt.Errorf("answered %d", response.StatusCode)
	}
	document, err := io.ReadAll(io.LimitReader(response.Body, maxFetched+1))
	if err != nil {
		return nil, 0, err
	}
	if len(document) > maxFetched {
		return nil, 0, fmt.Errorf("the document is longer than %d bytes", maxFetched)
	}
	if keys, err = token.ParsePublicKeys(document); err != nil {
		return nil, 0, errors.New("the document is not a JWK Set")
	}
	if len(keys) > maxKeys {
		return nil, 0, fmt.Errorf("the document has more than %d keys", maxKeys)
	}
	return keys, keptFor(response.Header), nil
}

// keptFor is how long a Cache-Control header lets a document be kept.
func keptFor(header http.Header) time.Duration {
	for _, directive := range strings.Split(header.Get("Cache-Control"), ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(directive), "=")
		if seconds, err := strconv.ParseUint(value, 10, 31); err == nil && strings.EqualFold(name, "max-age") {
			return min(max(time.Duration(seconds)*time.Second, minKept), maxKept)
		}
	}
	return usuallyKept
}
