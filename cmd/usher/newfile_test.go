package main

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// What can't be written to its end leaves no half of itself, and nothing missing of what it was to replace.
func TestWriteNewThatFails(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	half := func(w io.Writer) error {
		_, err := io.WriteString(w, "half")
		return errors.Join(err, broken)
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "users.csv")
	if err := writeNew(path, false, half); !errors.Is(err, broken) {
		t.Errorf("writeNew() = %v", err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("half of it is left: %v", err)
	}
	if err := os.WriteFile(path, []byte("whole"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := writeNew(path, true, half); !errors.Is(err, broken) {
		t.Errorf("writeNew() = %v", err)
	}
	if is, err := os.ReadFile(path); err != nil || string(is) != "whole" {
		t.Errorf("the file is %q, %v", is, err)
	}
	if there, err := os.ReadDir(dir); err != nil || len(there) != 1 {
		t.Errorf("there are %v, %v", there, err)
	}
}
