package password

import (
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
)

// mapped is how many bytes of address space the process has.
func mapped(t *testing.T) int {
	t.Helper()
	statm, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(statm))[0])
	if err != nil {
		t.Fatal(err)
	}
	return pages * os.Getpagesize()
}

func TestMemoryIsTakenFromTheSystemAndGivenBack(t *testing.T) {
	// Not parallel: it looks at the memory of the process.
	const size, noise = 64 << 20, 8 << 20
	for _, m := range []method{
		argon2Method{mode: argon2id, blocks: size / 1024, passes: 1, lanes: 1, salt: []byte("somesalt"), length: 32},
		scryptMethod{n: size / 1024, r: 8, p: 1, salt: []byte("somesalt"), length: 32},
	} {
		if m.memory() != size {
			t.Fatalf("%T: memory = %d, want %d", m, m.memory(), size)
		}
		var heapBefore, heapAfter runtime.MemStats
		runtime.ReadMemStats(&heapBefore)
		before := mapped(t)
		run := begin(t, m, "correct horse")
		if took := mapped(t) - before; took < size || took > size+noise {
			t.Errorf("%T takes %d bytes, want %d", m, took, size)
		}
		finish(t, run, 2)
		if left := mapped(t) - before; left > noise {
			t.Errorf("%T leaves %d bytes", m, left)
		}
		runtime.ReadMemStats(&heapAfter)
		if allocated := heapAfter.TotalAlloc - heapBefore.TotalAlloc; allocated > 1<<20 {
			t.Errorf("%T allocates %d bytes on the heap", m, allocated)
		}
	}
}
