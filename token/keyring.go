package token

import (
	"bytes"
	"fmt"
	"slices"
	"sync/atomic"
)

// KeyRing is the set of keys in force: one that signs and any number that
// verify. It can be replaced at any time while others use it; they see the
// old set or the new one, never a mixture.
type KeyRing struct {
	set atomic.Pointer[keySet]
}

// keySet is immutable.
type keySet struct {
	keys []Key
	byID map[string]Key
	jwks []byte
}

// NewKeyRing makes a ring of the keys; see [KeyRing.Set] for their order and
// the error.
func NewKeyRing(keys ...Key) (*KeyRing, error) {
	r := new(KeyRing)
	if err := r.Set(keys...); err != nil {
		return nil, err
	}
	return r, nil
}

// Set replaces the keys. The first one signs, if it has its private part; all
// of them verify. To rotate, add the new key behind the one that signs, so
// that every verifier learns it, then put it first, and drop the old one when
// its last token has expired: a token of a key that is gone is refused from
// that moment on. No keys at all is a ring that refuses everything.
//
// It returns [ErrKey], and leaves the ring as it was, if a key is zero or an
// id occurs twice.
func (r *KeyRing) Set(keys ...Key) error {
	set := &keySet{keys: slices.Clone(keys), byID: make(map[string]Key, len(keys))}
	for _, k := range keys {
		if k.material == nil {
			return fmt.Errorf("set key ring: key without material: %w", ErrKey)
		}
		if _, twice := set.byID[k.id]; twice {
			return fmt.Errorf("set key ring: key %s twice: %w", k.id, ErrKey)
		}
		set.byID[k.id] = k
	}
	var err error
	if set.jwks, err = marshalJWKS(set.keys); err != nil {
		return fmt.Errorf("set key ring: %w", err)
	}
	r.set.Store(set)
	return nil
}

// Keys is the keys in force, the signing key first.
func (r *KeyRing) Keys() []Key { return slices.Clone(r.load().keys) }

// JWKS is the RFC 7517 document of the public keys. It is made once a change.
func (r *KeyRing) JWKS() []byte { return bytes.Clone(r.load().jwks) }

// load returns the set in force, an empty one for the zero KeyRing.
func (r *KeyRing) load() *keySet {
	if set := r.set.Load(); set != nil {
		return set
	}
	return &keySet{jwks: []byte(`{"keys":[]}`)}
}

// signing is the key that signs, or [ErrNoSigningKey].
func (r *KeyRing) signing() (Key, error) {
	set := r.load()
	if len(set.keys) == 0 || !set.keys[0].CanSign() {
		return Key{}, ErrNoSigningKey
	}
	return set.keys[0], nil
}

// byID is the key with this id.
func (r *KeyRing) byID(id string) (Key, bool) {
	k, ok := r.load().byID[id]
	return k, ok
}
