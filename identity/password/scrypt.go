package password

import (
	"crypto/pbkdf2"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math/bits"
	"strings"
)

// Limits of an scrypt hash, beside maxMemory. Work is counted in bytes that are
// filled: memory times p. At the upper end it takes about two seconds.
const (
	maxScryptBytes = 1 << 29
	maxScryptLogN  = 20
	maxScryptR     = 32
	maxScryptP     = 64
	scryptSlice    = 1 << 20 // bytes
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

func (m scryptMethod) memory() int { return m.n * m.blockBytes() }

func (m scryptMethod) blockBytes() int { return 128 * m.r }

// begin hashes the bytes as they were typed.
func (m scryptMethod) begin(password Password) (computation, error) {
	lanes, err := pbkdf2.Key(sha256.New, string(password), m.salt, 1, m.p*m.blockBytes())
	if err != nil {
		return nil, fmt.Errorf("begin scrypt: %w", err)
	}
	table, err := takeMemory(m.memory())
	if err != nil {
		return nil, err
	}
	return &scryptRun{scryptMethod: m, password: string(password), lanes: lanes, table: table, spare: make([]byte, m.blockBytes())}, nil
}

// scryptRun is one scrypt computation that can stop after any step and go on
// later, which golang.org/x/crypto/scrypt can't, and whose memory is not the
// garbage collector's. The tests hold the two against each other.
type scryptRun struct {
	scryptMethod
	password string
	lanes    []byte // p blocks, each mixed by itself
	table    []byte // n states of the block that is mixed
	spare    []byte
	lane     int
	step     int // of a lane; n fill the table, n more look things up in it
}

func (r *scryptRun) advance() bool {
	for range scryptSlice / r.blockBytes() {
		if r.lane == r.p {
			break
		}
		r.mix()
	}
	return r.lane == r.p
}

// mix does one step of scryptROMix of the RFC.
func (r *scryptRun) mix() {
	size := r.blockBytes()
	block := r.lanes[r.lane*size:][:size]
	if r.step < r.n {
		copy(r.table[r.step*size:], block)
	} else {
		last := binary.LittleEndian.Uint32(block[size-64:]) // n is at most 2^20
		subtle.XORBytes(block, block, r.table[int(last)&(r.n-1)*size:][:size])
	}
	scryptBlockMix(r.spare, block)
	copy(block, r.spare)
	if r.step++; r.step == 2*r.n {
		r.step = 0
		r.lane++
	}
}

func (r *scryptRun) digest() string {
	giveBack(r.table)
	digest, err := pbkdf2.Key(sha256.New, r.password, r.lanes, 1, r.length)
	if err != nil {
		panic("password: " + err.Error()) // the call in begin was the same
	}
	return string(digest)
}

// scryptBlockMix is scryptBlockMix of the RFC.
func scryptBlockMix(out, in []byte) {
	const size = 64
	var x [16]uint32
	xor := func(b *[size]byte) {
		for i := range x {
			x[i] ^= binary.LittleEndian.Uint32(b[4*i:])
		}
	}
	xor((*[size]byte)(in[len(in)-size:]))
	half := 0 // even blocks go to the first half, odd ones to the second
	for at := 0; at < len(in); at += size {
		xor((*[size]byte)(in[at:]))
		salsa8(&x)
		to := (*[size]byte)(out[half+at/(2*size)*size:])
		for i := range x {
			binary.LittleEndian.PutUint32(to[4*i:], x[i])
		}
		half = len(in)/2 - half
	}
}

// salsa8 is Salsa20/8 Core.
func salsa8(x *[16]uint32) {
	x0, x1, x2, x3, x4, x5, x6, x7 := x[0], x[1], x[2], x[3], x[4], x[5], x[6], x[7]
	x8, x9, x10, x11, x12, x13, x14, x15 := x[8], x[9], x[10], x[11], x[12], x[13], x[14], x[15]
	for range 4 {
		x0, x4, x8, x12 = salsaQuarter(x0, x4, x8, x12)
		x5, x9, x13, x1 = salsaQuarter(x5, x9, x13, x1)
		x10, x14, x2, x6 = salsaQuarter(x10, x14, x2, x6)
		x15, x3, x7, x11 = salsaQuarter(x15, x3, x7, x11)

		x0, x1, x2, x3 = salsaQuarter(x0, x1, x2, x3)
		x5, x6, x7, x4 = salsaQuarter(x5, x6, x7, x4)
		x10, x11, x8, x9 = salsaQuarter(x10, x11, x8, x9)
		x15, x12, x13, x14 = salsaQuarter(x15, x12, x13, x14)
	}
	for i, y := range [16]uint32{x0, x1, x2, x3, x4, x5, x6, x7, x8, x9, x10, x11, x12, x13, x14, x15} {
		x[i] += y
	}
}

func salsaQuarter(a, b, c, d uint32) (uint32, uint32, uint32, uint32) {
	b ^= bits.RotateLeft32(a+d, 7)
	c ^= bits.RotateLeft32(b+a, 9)
	d ^= bits.RotateLeft32(c+b, 13)
	a ^= bits.RotateLeft32(d+c, 18)
	return a, b, c, d
}
