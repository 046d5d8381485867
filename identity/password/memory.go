package password

// maxMemory is the most that computations hold at the same time, in one pool
// and for one hash: what argon2 and scrypt fill, on purpose, to be dear. It is
// taken from the system for each computation and given back at its end.
const maxMemory = 256 << 20
