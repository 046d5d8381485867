package password

import (
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"math/bits"
	"strings"

	"golang.org/x/crypto/blake2b"
)

// Limits of an argon2 hash, beside maxMemory. Work is counted in blocks of
// 1 KiB: memory times passes. At the upper end it takes about two seconds.
const (
	maxArgon2Blocks  = 1 << 20
	maxArgon2Lanes   = 64
	argon2Version    = 0x13
	argon2BlockBytes = 1024
	argon2Quarters   = 4 // of a lane; lanes look at each other's finished quarters only
	argon2Given      = 2 // blocks at the start of each lane, made from the password
	argon2Slice      = 2048
)

// argon2Method is argon2i or argon2id (RFC 9106), version 1.3. Software that
// still writes 1.0 is not known, and argon2d is not meant for passwords.
type argon2Method struct {
	mode   argon2Mode
	blocks int // the memory, in KiB
	passes int
	lanes  int
	salt   []byte
	length int // of the digest
}

type argon2Mode uint32

const (
	argon2i  argon2Mode = 1
	argon2id argon2Mode = 2
)

// parseArgon2 reads what follows the name in the PHC string format:
// v=19$m=65536,t=3,p=4$<salt>$<digest>.
func parseArgon2(mode argon2Mode, text string) (stored, error) {
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
	m := argon2Method{mode: mode, blocks: p[0], passes: p[1], lanes: p[2], salt: salt, length: len(digest)}
	if m.passes < 1 || m.lanes < 1 || m.lanes > maxArgon2Lanes || m.blocks < 2*argon2Quarters*m.lanes ||
		m.memory() > maxMemory || m.passes > maxArgon2Blocks/m.blocks {
		return stored{}, ErrCost
	}
	return stored{method: m, digest: string(digest)}, nil
}

// memory rounds down to whole quarters of lanes, as the algorithm does.
func (m argon2Method) memory() int {
	quarters := argon2Quarters * m.lanes
	return m.blocks / quarters * quarters * argon2BlockBytes
}

// begin hashes the bytes as they were typed.
func (m argon2Method) begin(password Password) (computation, error) {
	return m.beginFrom(m.seed(string(password), "", ""))
}

// seed is H0 of the RFC. Hashes of passwords are made without its secret and
// associated data, which the RFC's own examples have.
func (m argon2Method) seed(password, secret, data string) [blake2b.Size]byte {
	var text []byte
	for _, n := range []int{m.lanes, m.length, m.blocks, m.passes, argon2Version, int(m.mode)} {
		text = binary.LittleEndian.AppendUint32(text, uint32(n))
	}
	for _, field := range []string{password, string(m.salt), secret, data} {
		text = binary.LittleEndian.AppendUint32(text, uint32(len(field)))
		text = append(text, field...)
	}
	return blake2b.Sum512(text)
}

func (m argon2Method) beginFrom(seed [blake2b.Size]byte) (computation, error) {
	memory, err := takeMemory(m.memory())
	if err != nil {
		return nil, err
	}
	r := &argon2Run{m: m, blocks: memory, quarter: m.memory() / argon2BlockBytes / m.lanes / argon2Quarters}
	for lane := range m.lanes {
		for column := range argon2Given {
			text := binary.LittleEndian.AppendUint32(seed[:], uint32(column))
			text = binary.LittleEndian.AppendUint32(text, uint32(lane))
			argon2Hash(r.block(lane, column)[:], text)
		}
	}
	r.index = argon2Given
	return r, nil
}

// argon2Run is one argon2 computation that can stop after any block and go on
// later. golang.org/x/crypto/argon2 starts a goroutine for every lane, and even
// for one: they would compute on threads of ordinary priority and hold
// processors that requests need. It also takes its memory from the heap of the
// garbage collector, who would let the heap grow to several times that. So the
// lanes are filled here, in turn; the tests hold the two against each other.
type argon2Run struct {
	m       argon2Method
	blocks  []byte // lane by lane
	quarter int    // blocks of a quarter of a lane

	// Where the next block goes: pass by pass, the first quarter of all lanes,
	// then the second.
	pass, at, lane, index int
	// Where that looks doesn't depend on the password in argon2i, and in the
	// first half of argon2id, but on a pseudorandom stream: 128 words at once.
	stream argon2Block
}

type argon2Block [argon2BlockBytes]byte

func (b *argon2Block) word(i int) uint64 { return binary.LittleEndian.Uint64(b[8*i:]) }

func (b *argon2Block) setWord(i int, w uint64) { binary.LittleEndian.PutUint64(b[8*i:], w) }

func (r *argon2Run) block(lane, column int) *argon2Block {
	return (*argon2Block)(r.blocks[(lane*r.length()+column)*argon2BlockBytes:])
}

// length is the number of blocks of a lane.
func (r *argon2Run) length() int { return argon2Quarters * r.quarter }

func (r *argon2Run) advance() bool {
	for left := argon2Slice; left > 0 && r.pass < r.m.passes; {
		if r.index < r.quarter {
			r.fill()
			r.index++
			left--
			continue
		}
		r.index = 0
		if r.lane++; r.lane < r.m.lanes {
			if r.pass == 0 && r.at == 0 {
				r.index = argon2Given
			}
			continue
		}
		r.lane = 0
		if r.at++; r.at == argon2Quarters {
			r.at = 0
			r.pass++
		}
	}
	return r.pass == r.m.passes
}

// fill makes a block of the one before it in its lane and another.
func (r *argon2Run) fill() {
	column := r.at*r.quarter + r.index
	before := r.block(r.lane, (column+r.length()-1)%r.length())
	var random uint64
	if r.m.mode == argon2i || r.pass == 0 && r.at < argon2Quarters/2 {
		if r.index%128 == 0 || r.pass == 0 && column == argon2Given {
			r.refill()
		}
		random = r.stream.word(r.index % 128)
	} else {
		random = before.word(0)
	}
	argon2Compress(r.block(r.lane, column), before, r.reference(random), r.pass > 0)
}

// refill makes the next words of the stream.
func (r *argon2Run) refill() {
	var input, zero argon2Block
	for i, n := range []int{r.pass, r.lane, r.at, r.m.lanes * r.length(), r.m.passes, int(r.m.mode), r.index/128 + 1} {
		input.setWord(i, uint64(n))
	}
	argon2Compress(&r.stream, &zero, &input, false)
	argon2Compress(&r.stream, &zero, &r.stream, false)
}

// reference is the block that a random word points to: one of those that are
// finished, the near ones more often than the far ones (RFC 9106, 3.4).
func (r *argon2Run) reference(random uint64) *argon2Block {
	lane := int(random >> 32 % uint64(r.m.lanes))
	if r.pass == 0 && r.at == 0 {
		lane = r.lane
	}
	start, area := 0, r.at*r.quarter // the finished quarters
	if r.pass > 0 {
		start, area = (r.at+1)%argon2Quarters*r.quarter, (argon2Quarters-1)*r.quarter
	}
	if lane == r.lane {
		area += r.index - 1 // of this quarter too, but for the block before
	} else if r.index == 0 {
		area--
	}
	x := random & 0xffffffff
	x = x * x >> 32
	x = uint64(area) * x >> 32
	return r.block(lane, (start+area-1-int(x))%r.length())
}

func (r *argon2Run) digest() string {
	last := *r.block(0, r.length()-1)
	for lane := 1; lane < r.m.lanes; lane++ {
		subtle.XORBytes(last[:], last[:], r.block(lane, r.length()-1)[:])
	}
	giveBack(r.blocks)
	digest := make([]byte, r.m.length)
	argon2Hash(digest, last[:])
	return string(digest)
}

// argon2Hash is H' of the RFC: BLAKE2b of any length.
func argon2Hash(out, in []byte) {
	text := append(binary.LittleEndian.AppendUint32(nil, uint32(len(out))), in...)
	for len(out) > blake2b.Size {
		sum := blake2b.Sum512(text)
		out = out[copy(out, sum[:blake2b.Size/2]):]
		text = sum[:]
	}
	h, err := blake2b.New(len(out), nil)
	if err != nil {
		panic("password: " + err.Error()) // the length is 1 to 64
	}
	h.Write(text)
	h.Sum(out[:0])
}

// argon2Compress is G of the RFC: out is made of x and y, and of what it was
// where that is kept. It may be one of them.
func argon2Compress(out, x, y *argon2Block, keep bool) {
	var r, z [128]uint64
	for i := range r {
		r[i] = x.word(i) ^ y.word(i)
	}
	z = r
	for i := 0; i < 128; i += 16 {
		argon2Permute((*[16]uint64)(z[i:]))
	}
	for i := 0; i < 16; i += 2 {
		var v [16]uint64
		for j := range 8 {
			v[2*j], v[2*j+1] = z[16*j+i], z[16*j+i+1]
		}
		argon2Permute(&v)
		for j := range 8 {
			z[16*j+i], z[16*j+i+1] = v[2*j], v[2*j+1]
		}
	}
	for i := range r {
		w := r[i] ^ z[i]
		if keep {
			w ^= out.word(i)
		}
		out.setWord(i, w)
	}
}

// argon2Permute is P of the RFC: a round of BLAKE2b with multiplications.
func argon2Permute(v *[16]uint64) {
	v0, v1, v2, v3, v4, v5, v6, v7 := v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7]
	v8, v9, v10, v11, v12, v13, v14, v15 := v[8], v[9], v[10], v[11], v[12], v[13], v[14], v[15]

	v0, v4, v8, v12 = argon2Mix(v0, v4, v8, v12, 32, 24)
	v1, v5, v9, v13 = argon2Mix(v1, v5, v9, v13, 32, 24)
	v2, v6, v10, v14 = argon2Mix(v2, v6, v10, v14, 32, 24)
	v3, v7, v11, v15 = argon2Mix(v3, v7, v11, v15, 32, 24)
	v0, v4, v8, v12 = argon2Mix(v0, v4, v8, v12, 16, 63)
	v1, v5, v9, v13 = argon2Mix(v1, v5, v9, v13, 16, 63)
	v2, v6, v10, v14 = argon2Mix(v2, v6, v10, v14, 16, 63)
	v3, v7, v11, v15 = argon2Mix(v3, v7, v11, v15, 16, 63)

	v0, v5, v10, v15 = argon2Mix(v0, v5, v10, v15, 32, 24)
	v1, v6, v11, v12 = argon2Mix(v1, v6, v11, v12, 32, 24)
	v2, v7, v8, v13 = argon2Mix(v2, v7, v8, v13, 32, 24)
	v3, v4, v9, v14 = argon2Mix(v3, v4, v9, v14, 32, 24)
	v0, v5, v10, v15 = argon2Mix(v0, v5, v10, v15, 16, 63)
	v1, v6, v11, v12 = argon2Mix(v1, v6, v11, v12, 16, 63)
	v2, v7, v8, v13 = argon2Mix(v2, v7, v8, v13, 16, 63)
	v3, v4, v9, v14 = argon2Mix(v3, v4, v9, v14, 16, 63)

	v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7] = v0, v1, v2, v3, v4, v5, v6, v7
	v[8], v[9], v[10], v[11], v[12], v[13], v[14], v[15] = v8, v9, v10, v11, v12, v13, v14, v15
}

// argon2Mix is half of GB of the RFC.
func argon2Mix(a, b, c, d uint64, right1, right2 int) (uint64, uint64, uint64, uint64) {
	a += b + 2*uint64(uint32(a))*uint64(uint32(b))
	d = bits.RotateLeft64(d^a, -right1)
	c += d + 2*uint64(uint32(c))*uint64(uint32(d))
	b = bits.RotateLeft64(b^c, -right2)
	return a, b, c, d
}
