package main

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"usher.example/identity"
	"usher.example/token"
)

// keyring keeps the keys of access tokens in this process as the database has them. It reads them a few times a minute,
// at once when it is told of a rotation, or a session that begins finds that there was one, and, no more than once a second,
// for a token whose key it does not know.
type keyring struct {
	ring    *token.KeyRing
	users   *identity.Service
	rotated chan struct{} // signalled
	logger  *slog.Logger

	loading sync.Mutex // one read after the other, or what an earlier one found could take the place of a later one's
	missed  sync.Mutex // of reads for unknown keys
	read    time.Time  // the last of them
}

const (
	keysInterval    = 5 * time.Second
	keysTime        = 2 * time.Second // for one read
	unknownInterval = time.Second
)

func newKeyring(logger *slog.Logger) *keyring {
	return &keyring{ring: new(token.KeyRing), rotated: make(chan struct{}, 1), logger: logger}
}

// notify tells of a rotation.
func (k *keyring) notify() {
	select {
	case k.rotated <- struct{}{}:
	default:
	}
}

// start sees to it that there is a key as the settings want it, and one for ID tokens, and reads the keys.
func (k *keyring) start(ctx context.Context, c *config, users *identity.Service) error {
	k.users = users
	wish, err := c.keyWish()
	if err != nil {
		return err
	}
	for _, w := range []identity.KeyWish{wish, idKeyWish()} {
		if err := users.EnsureSigningKey(ctx, w); err != nil {
			return err
		}
	}
	return k.load(ctx)
}

// run reads the keys again and again until ctx ends, and returns its cause.
func (k *keyring) run(ctx context.Context) error {
	tick := time.NewTicker(keysInterval)
	defer tick.Stop()
	failing := false
	for {
		select {
		case <-k.rotated:
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		err := k.load(ctx)
		if err != nil && !failing && ctx.Err() == nil {
			k.logger.WarnContext(ctx, "the signing keys can't be read; going on with those that are known", slog.Any("error", err))
		}
		failing = err != nil
	}
}

// missing reads the keys for a token whose key is not known: it may be a newer one.
func (k *keyring) missing(string) {
	k.missed.Lock()
	defer k.missed.Unlock()
	if time.Since(k.read) < unknownInterval {
		return
	}
	if err := k.load(context.Background()); err != nil {
		k.logger.Debug("the signing keys can't be read", slog.Any("error", err))
	}
	k.read = time.Now()
}

// load reads the keys. One that is known stays the same, so that what was verified with it stays so too.
func (k *keyring) load(ctx context.Context) error {
	k.loading.Lock()
	defer k.loading.Unlock()
	ctx, cancel := context.WithTimeout(ctx, keysTime)
	defer cancel()
	stored, err := k.users.UseSigningKeys(ctx)
	if err != nil {
		return err
	}
	known := k.ring.Keys()
	keys := make([]token.Key, len(stored))
	for i, s := range stored {
		if at := slices.IndexFunc(known, func(k token.Key) bool { return k.ID() == s.ID }); at >= 0 {
			keys[i] = known[at]
			continue
		}
		if keys[i], err = token.ParsePrivate(token.Algorithm(s.Algorithm), s.Private, s.CreatedAt); err != nil {
			return fmt.Errorf("read the signing key %s: %w", s.ID, err)
		}
		if s.IDTokens {
			keys[i] = keys[i].ForIDTokens()
		}
	}
	if slices.EqualFunc(keys, known, func(a, b token.Key) bool { return a.ID() == b.ID() }) {
		return nil
	}
	if err := k.ring.Set(keys...); err != nil {
		return err
	}
	if len(keys) > 0 && (len(known) == 0 || known[0].ID() != keys[0].ID()) {
		k.logger.InfoContext(ctx, "access tokens are signed with", slog.Any("key", keys[0]))
	}
	return nil
}

// keyWish is the signing key that the settings want: the secret of HS256, which they hold themselves, or any of another
// algorithm.
func (c *config) keyWish() (identity.KeyWish, error) {
	algorithm := token.Algorithm(c.JWTAlgorithm)
	w := identity.KeyWish{Algorithm: c.JWTAlgorithm, Generate: func() (string, []byte, error) {
		return marshalKey(token.GenerateKey(algorithm, time.Now()))
	}}
	if algorithm == token.HS256 {
		key, err := token.ParsePrivate(algorithm, []byte(c.JWTSecretKey), time.Now())
		if err != nil {
			return w, badSetting("JWT_SECRET_KEY")
		}
		w.ID, w.Generate = key.ID(), func() (string, []byte, error) { return marshalKey(key, nil) }
	}
	return w, nil
}

// idKeyWish is the key that signs ID tokens beside that of the access tokens, whatever the settings are.
func idKeyWish() identity.KeyWish {
	return identity.KeyWish{Algorithm: string(token.IDTokenAlgorithm), IDTokens: true, Generate: func() (string, []byte, error) {
		return marshalKey(token.GenerateKey(token.IDTokenAlgorithm, time.Now()))
	}}
}

func marshalKey(key token.Key, err error) (string, []byte, error) {
	if err != nil {
		return "", nil, err
	}
	private, err := key.MarshalPrivate()
	return key.ID(), private, err
}
