package password

import (
	"encoding/base64"
	"fmt"
	"strings"

	"golang.org/x/crypto/scrypt"
)

// Limits of an scrypt hash, beside maxMemory. Work is counted in bytes that are
// filled: memory times p. At the upper end it takes about two seconds.
const (
	maxScryptBytes = 1 << 29
	maxScryptLogN  = 20
	maxScryptR     = 32
	maxScryptP     = 64
)

// scryptMethod is scrypt (RFC 7914).
type scryptMethod struct {
	n, r, p int
	salt    []byte
	length  int // of the digest
}

// parseScrypt reads what follows the name in the PHC string format:
// ln=16,r=8,p=1$<salt>$<digest>.
func parseScrypt(text string) (stored, error) {
	parts := strings.Split(text, "$")
	if len(parts) != 3 {
		return stored{}, ErrUnknownScheme
	}
	salt, digest, err := decodeSaltAndDigest(base64.RawStdEncoding, parts[1], parts[2])
	if err != nil {
		return stored{}, err
	}
	p, err := parameters(parts[0], "ln", "r", "p")
	if err != nil {
		return stored{}, err
	}
	if p[0] > maxScryptLogN {
		return stored{}, ErrCost
	}
	return newScrypt(1<<p[0], p[1], p[2], salt, digest)
}

// parseDjangoScrypt reads what follows Django's name: N$<salt>$r$p$<digest>.
func parseDjangoScrypt(text string) (stored, error) {
	parts := strings.Split(text, "$")
	if len(parts) != 5 {
		return stored{}, ErrUnknownScheme
	}
	digest, err := decodeDjango(parts[1], parts[4])
	if err != nil {
		return stored{}, err
	}
	var cost [3]int
	for i, part := range []string{parts[0], parts[2], parts[3]} {
		if cost[i], err = number(part); err != nil {
			return stored{}, err
		}
	}
	if cost[0] > 1<<maxScryptLogN || cost[0]&(cost[0]-1) != 0 {
		return stored{}, ErrCost
	}
	return newScrypt(cost[0], cost[1], cost[2], []byte(parts[1]), digest)
}

func newScrypt(n, r, p int, salt, digest []byte) (stored, error) {
	m := scryptMethod{n: n, r: r, p: p, salt: salt, length: len(digest)}
	if n < 2 || r < 1 || r > maxScryptR || p < 1 || p > maxScryptP || m.memory() > maxMemory || p > maxScryptBytes/m.memory() {
		return stored{}, ErrCost
	}
	return stored{method: m, digest: string(digest)}, nil
}

func (m scryptMethod) memory() int { return m.n * 128 * m.r }

// begin hashes the bytes as they were typed.
func (m scryptMethod) begin(password Password) (computation, error) {
	digest, err := scrypt.Key([]byte(password), m.salt, m.n, m.r, m.p, m.length)
	if err != nil {
		return nil, fmt.Errorf("compute scrypt: %w", err)
	}
	return whole(digest), nil
}
