package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"usher.example/internal/devstack"
)

// program is the usher binary that these tests run.
var program string

func TestMain(m *testing.M) {
	devstack.RunIfChild()
	os.Exit(runWithProgram(m))
}

func runWithProgram(m *testing.M) int {
	dir, err := os.MkdirTemp("", "usher-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a temporary directory
	program = filepath.Join(dir, "usher")
	if out, err := exec.Command("go", "build", "-o", program, "usher.example/cmd/usher").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build usher: %v\n%s", err, out)
		return 1
	}
	return devstack.Main(m)
}
