//go:build unix

package password

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// takeMemory is not an allocation, because the garbage collector lets the heap
// grow in proportion to what was alive when it last looked: with 256 MiB that
// are soon gone it would wait for hundreds of megabytes of other garbage.
func takeMemory(bytes int) ([]byte, error) {
	memory, err := unix.Mmap(-1, 0, bytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return nil, fmt.Errorf("take %d bytes of memory: %w", bytes, err)
	}
	return memory, nil
}

// giveBack ends the use of what takeMemory gave.
func giveBack(memory []byte) {
	if err := unix.Munmap(memory); err != nil {
		panic("password: " + err.Error()) // it is no memory of ours
	}
}
