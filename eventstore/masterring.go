package eventstore

import (
	"context"
	"crypto/cipher"
	"encoding/hex"
	"fmt"
	"sync/atomic"
	"time"
)

// masterID names a master key.
type masterID [8]byte

func (id masterID) String() string { return hex.EncodeToString(id[:]) }

// masterRing is the master keys that a process accepts, and which of them it seals with. What is sealed under a master key
// is: format (1 byte, 2), the key's id (8 bytes), and then as any sealed value: nonce, ciphertext and tag.
type masterRing struct {
	keys    map[masterID]*masterCiphers
	current atomic.Pointer[masterCiphers]
	// reload reads which key to seal with. It is nil for a key that stands alone.
	reload func(context.Context) (masterID, error)
	read   atomic.Int64 // when it was last read, in nanoseconds
}

// masterCiphers are what one master key seals with, for each use.
type masterCiphers struct {
	id    masterID
	aeads [3]cipher.AEAD
}

// masterUse is what is sealed under a master key.
type masterUse int

const (
	forState masterUse = iota
	forDataKeys
	forRoot
)

const (
	masterFormat = 2
	masterPrefix = 1 + len(masterID{})
	// ringFor is how long a process that accepts two master keys goes on with the one that it seals with before it looks
	// whether it is still the right one.
	ringFor  = 5 * time.Second
	ringWait = time.Second // for that look
)

func newMasterRing(keys ...MasterKey) *masterRing {
	r := &masterRing{keys: make(map[masterID]*masterCiphers, len(keys))}
	for _, m := range keys {
		k := &masterCiphers{id: m.id()}
		for use, purpose := range []string{forDataKeys: "data-keys", forState: "state", forRoot: "root"} {
			k.aeads[use] = newAEAD(derive(m.key, purpose))
		}
		r.keys[k.id] = k
	}
	r.current.Store(r.keys[keys[0].id()])
	return r
}

// use has the ring seal with one of its keys, or fails with ErrWrongMasterKey.
func (r *masterRing) use(id masterID) error {
	k := r.keys[id]
	if k == nil {
		return fmt.Errorf("%w: it was replaced by %s", ErrWrongMasterKey, id)
	}
	r.current.Store(k)
	r.read.Store(time.Now().UnixNano())
	return nil
}

// refresh looks which key to seal with.
func (r *masterRing) refresh(ctx context.Context) error {
	id, err := r.reload(ctx)
	if err != nil {
		return err
	}
	return r.use(id)
}

// seal seals under the key that is to be sealed with. Where there is a choice that was made some time ago it looks again
// first, and goes on with the one it knows if that takes long: the database refuses what is sealed under a retired key.
func (r *masterRing) seal(use masterUse, plain, bind []byte) []byte {
	if len(r.keys) > 1 && r.reload != nil && time.Since(time.Unix(0, r.read.Load())) > ringFor {
		ctx, cancel := context.WithTimeout(context.Background(), ringWait)
		defer cancel()
		_ = r.refresh(ctx)
	}
	return r.current.Load().seal(use, plain, bind)
}

func (k *masterCiphers) seal(use masterUse, plain, bind []byte) []byte {
	body := seal(k.aeads[use], plain, bind)[1:]
	return append(append(make([]byte, 0, masterPrefix+len(body)), k.prefix()...), body...)
}

// prefix is how everything begins that is sealed under the key.
func (k *masterCiphers) prefix() []byte { return append([]byte{masterFormat}, k.id[:]...) }

// open opens what was sealed under any of the keys.
func (r *masterRing) open(use masterUse, sealed, bind []byte) ([]byte, error) {
	if len(sealed) < masterPrefix || sealed[0] != masterFormat {
		return nil, errSealed
	}
	k := r.keys[masterID(sealed[1:masterPrefix])]
	if k == nil {
		return nil, errSealed
	}
	return openBody(k.aeads[use], sealed[masterPrefix:], bind)
}
