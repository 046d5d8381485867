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
// of them verify. Those that are [Key.ForIDTokens] do not count: of them the
// first of an algorithm signs ID tokens. To rotate, add the new key behind the
// one that signs, so that every verifier learns it, then put it first, and drop
// the old one when its last token has expired: a token of a key that is gone is
// refused from that moment on. No keys at all is a ring that refuses everything.
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
	return r.first(func(k Key) bool { return !k.idTokens })
}

// signingID is the key that signs ID tokens in an algorithm, or [ErrNoSigningKey]: the one that is there for them, or that of the
// access tokens where everybody can check what it signs. Without an algorithm it is the latter if it can be, else the former.
func (r *KeyRing) signingID(algorithm Algorithm) (Key, error) {
	if algorithm == "" {
		if k, err := r.signing(); err == nil && k.algorithm != HS256 {
			return k, nil
		}
		algorithm = IDTokenAlgorithm
	}
	k, err := r.first(func(k Key) bool { return k.idTokens && k.algorithm == algorithm })
	if err == nil || algorithm == HS256 {
		return k, err
	}
	if k, err = r.signing(); err == nil && k.algorithm != algorithm {
		err = ErrNoSigningKey
	}
	return k, err
}

// IDTokenAlgorithms are those in which ID tokens can be signed, sorted.
func (r *KeyRing) IDTokenAlgorithms() (list []Algorithm) {
	for _, a := range []Algorithm{ES256, EdDSA, RS256} {
		if _, err := r.signingID(a); err == nil {
			list = append(list, a)
		}
	}
	return list
}

// first is the first of the keys of a kind, or [ErrNoSigningKey] unless it can sign.
func (r *KeyRing) first(is func(Key) bool) (Key, error) {
	keys := r.load().keys
	if i := slices.IndexFunc(keys, is); i >= 0 && keys[i].CanSign() {
		return keys[i], nil
	}
	return Key{}, ErrNoSigningKey
}

// byID is the key with this id.
func (r *KeyRing) byID(id string) (Key, bool) {
	k, ok := r.load().byID[id]
	return k, ok
}
