package password

import (
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
)

// resident is how many bytes of memory the process has in use.
func resident(t *testing.T) int {
	t.Helper()
	statm, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(statm))[1])
	if err != nil {
		t.Fatal(err)
	}
	return pages * os.Getpagesize()
}

func TestMemoryIsTakenFromTheSystemAndGivenBack(t *testing.T) {
	// Not parallel: it looks at the memory of the process.
	const size, noise = 16 << 20, 4 << 20
	for _, m := range []method{
		argon2Method{mode: argon2id, blocks: size / 1024, passes: 1, lanes: 1, salt: []byte("somesalt"), length: 32},
		scryptMethod{n: size / 1024, r: 8, p: 1, salt: []byte("somesalt"), length: 32},
	} {
		if m.memory() != size {
			t.Fatalf("%T: memory = %d, want %d", m, m.memory(), size)
		}
		var heapBefore, heapAfter runtime.MemStats
		runtime.ReadMemStats(&heapBefore)
		before := resident(t)
		run := begin(t, m, "correct horse")
		for !run.advance() {
		}
		if took := resident(t) - before; took < size-noise || took > size+noise {
			t.Errorf("%T takes %d bytes, want about %d", m, took, size)
		}
		run.digest()
		if left := resident(t) - before; left > noise {
			t.Errorf("%T leaves %d bytes", m, left)
		}
		runtime.ReadMemStats(&heapAfter)
		if allocated := heapAfter.TotalAlloc - heapBefore.TotalAlloc; allocated > noise {
			t.Errorf("%T allocates %d bytes on the heap", m, allocated)
		}
	}
}
