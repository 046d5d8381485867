package password

import (
	"encoding/base64"
	"strings"
)

// Limits of an argon2 hash, beside maxMemory. Work is counted in blocks of
// 1 KiB: memory times passes. At the upper end it takes about two seconds.
const (
	maxArgon2Blocks = 1 << 20
	maxArgon2Lanes  = 64
	argon2Quarters  = 4 // of a lane
)

// argon2Method is argon2i or argon2id (RFC 9106), version 1.3. Software that
// still writes 1.0 is not known, and argon2d is not meant for passwords.
type argon2Method struct {
	key    argon2Key
	blocks int // the memory, in KiB
	passes int
	lanes  int
	salt   []byte
	length int // of the digest
}

// argon2Key is argon2.Key, which is argon2i, or argon2.IDKey.
type argon2Key func(password, salt []byte, time, memory uint32, threads uint8, keyLen uint32) []byte

// parseArgon2 reads what follows the name in the PHC string format:
// v=19$m=65536,t=3,p=4$<salt>$<digest>.
func parseArgon2(key argon2Key, text string) (stored, error) {
	parts := strings.Split(text, "$")
	if len(parts) != 4 || parts[0] != "v=19" {
		return stored{}, ErrUnknownScheme
	}
	salt, digest, err := decodeSaltAndDigest(base64.RawStdEncoding, parts[2], parts[3])
	if err != nil {
		return stored{}, err
	}
	p, err := parameters(parts[1], "m", "t", "p")
	if err != nil {
		return stored{}, err
	}
	m := argon2Method{key: key, blocks: p[0], passes: p[1], lanes: p[2], salt: salt, length: len(digest)}
	if m.passes < 1 || m.lanes < 1 || m.lanes > maxArgon2Lanes || m.blocks < 2*argon2Quarters*m.lanes ||
		m.memory() > maxMemory || m.passes > maxArgon2Blocks/m.blocks {
		return stored{}, ErrCost
	}
	return stored{method: m, digest: string(digest)}, nil
}

// memory rounds down to whole quarters of lanes, as the algorithm does.
func (m argon2Method) memory() int {
	quarters := argon2Quarters * m.lanes
	return m.blocks / quarters * quarters << 10
}

// begin hashes the bytes as they were typed. The lanes are goroutines of ordinary
// priority, even a single one: while they compute, this worker's thread, which
// gives way, waits, and requests share the processors with them. That is bounded
// by the limits of a hash and by those of the pool, and an imported hash is
// replaced at its user's first login.
func (m argon2Method) begin(password Password) (computation, error) {
	return whole(m.key([]byte(password), m.salt, uint32(m.passes), uint32(m.blocks), uint8(m.lanes), uint32(m.length))), nil
}
