package webhook

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"hash"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"github.com/google/uuid"

	"usher.example/eventstore"
	"usher.example/identity"
)

// Secret is what deliveries to one webhook are signed with, in the form whsec_<base64>. It can't be printed by accident.
type Secret struct{ text string }

// Reveal is the secret itself, for the one answer that shows it.
func (s Secret) Reveal() string { return s.text }

const hidden = "[hidden]"

func (Secret) String() string               { return hidden }
func (Secret) GoString() string             { return hidden }
func (Secret) LogValue() slog.Value         { return slog.StringValue(hidden) }
func (Secret) MarshalText() ([]byte, error) { return []byte(hidden), nil }

const (
	secretPrefix = "whsec_"
	secretSize   = 32
	// rotationGrace is how long deliveries are signed with a secret too after it was replaced.
	rotationGrace = 24 * time.Hour
	// maxKeys bounds the secrets that sign at once, and so the header.
	maxKeys = 5
)

// key is one secret of a webhook, as it is kept.
type key struct {
	Number int       `json:"number"` // from 1; the first is the one that the webhook was made with
	Secret []byte    `json:"secret"`
	Until  time.Time `json:"until,omitzero"` // zero for the one that is not replaced
}

func (k key) reveal() Secret {
	return Secret{secretPrefix + base64.StdEncoding.EncodeToString(k.Secret)}
}

// keyRing is the secrets of a webhook, the newest first.
type keyRing []key

func newKey(number int) key {
	k := key{Number: number, Secret: make([]byte, secretSize)}
	rand.Read(k.Secret)
	return k
}

// rotate puts a new secret before the others, of which those that are over are dropped. It fails with ErrConflict where too
// many would sign at once.
func (r keyRing) rotate(now time.Time) (keyRing, error) {
	active := r.active(now)
	if len(active) >= maxKeys {
		return nil, refuse(identity.CodeConflict, "the secret was rotated %d times within a day; wait until %s", len(active)-1,
			active[len(active)-1].Until.Format(time.RFC3339))
	}
	next := append(keyRing{newKey(r[0].Number + 1)}, active...)
	next[1].Until = now.Add(rotationGrace)
	return next, nil
}

// active are the secrets that sign at a moment.
func (r keyRing) active(now time.Time) keyRing {
	var active keyRing
	for _, k := range r {
		if k.active(now) {
			active = append(active, k)
		}
	}
	return active
}

func (k key) active(now time.Time) bool { return k.Until.IsZero() || now.Before(k.Until) }

// first is the secret that the webhook was made with, if it is still there.
func (r keyRing) first(now time.Time) (Secret, bool) {
	for _, k := range r.active(now) {
		if k.Number == 1 {
			return k.reveal(), true
		}
	}
	return Secret{}, false
}

// signer signs with the secrets of a webhook. It is safe for concurrent use.
type signer struct {
	keys keyRing
	macs []sync.Pool // of each key: to make an HMAC ready takes as long as to make one
}

func newSigner(keys keyRing) *signer {
	s := &signer{keys: keys, macs: make([]sync.Pool, len(keys))}
	for i, k := range keys {
		s.macs[i].New = func() any { return hmac.New(sha256.New, k.Secret) }
	}
	return s
}

// sign is the value of the header webhook-signature: a signature by each active secret, the newest first.
func (s *signer) sign(id string, at time.Time, body []byte) string {
	var signed [64]byte
	begin := append(strconv.AppendInt(append(append(signed[:0], id...), '.'), at.Unix(), 10), '.')
	var signatures []byte
	for i, k := range s.keys {
		if !k.active(at) {
			continue
		}
		mac := s.macs[i].Get().(hash.Hash)
		mac.Reset()
		mac.Write(begin)
		mac.Write(body)
		var sum [sha256.Size]byte
		if len(signatures) > 0 {
			signatures = append(signatures, ' ')
		}
		signatures = base64.StdEncoding.AppendEncode(append(signatures, "v1,"...), mac.Sum(sum[:0]))
		s.macs[i].Put(mac)
	}
	return string(signatures)
}

// SealedColumns are those of this package whose values are sealed under the master key itself, for its rotation: the secrets of
// webhooks, and what endpoints answered to events that are about no user.
var SealedColumns = []eventstore.SealedColumn{
	{
		Table: "webhooks", Column: "secrets", Key: []string{"id"},
		Scan:  func() []any { return []any{new(uuid.UUID)} },
		Place: func(row []any) string { return secretsPlace(*row[0].(*uuid.UUID)) },
	},
	{
		Table: "webhook_deliveries", Column: "response", Key: []string{"webhook", "position"}, Beside: []string{"event_id"},
		Scan: func() []any { return []any{new(uuid.UUID), new(int64), new(uuid.UUID)} },
		Place: func(row []any) string {
			return responsePlace(deliveryID(*row[0].(*uuid.UUID), *row[2].(*uuid.UUID), *row[1].(*int64)))
		},
	},
}

func secretsPlace(webhook uuid.UUID) string { return "webhooks/" + webhook.String() }

func (r keyRing) seal(s *eventstore.Sealer, webhook uuid.UUID) []byte {
	raw, err := json.Marshal(r)
	if err != nil { // bytes, numbers and times can be expressed in JSON
		panic(err)
	}
	return s.SealState(secretsPlace(webhook), raw)
}

func openKeyRing(s *eventstore.Sealer, webhook uuid.UUID, sealed []byte) (keyRing, error) {
	raw, err := s.OpenState(secretsPlace(webhook), sealed)
	if err != nil {
		return nil, err
	}
	var r keyRing
	if err := json.Unmarshal(raw, &r); err != nil || len(r) == 0 {
		return nil, fmt.Errorf("read the secrets of the webhook %s: they are not what was written", webhook)
	}
	return r, nil
}
