package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
)

// forceFlag lets a command write over a file that is there already. Without it none does.
func forceFlag(c *cobra.Command) *bool {
	return c.Flags().Bool("force", false, "write over a file that is there already")
}

// createNew makes a file that only its owner can read, and fails where one is there already, unless it may be emptied. What is no
// file, as a pipe, has nothing to lose and is opened as it is.
func createNew(path string, force bool) (*os.File, error) {
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return os.OpenFile(path, os.O_WRONLY, 0)
	}
	if force {
		return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		err = fmt.Errorf("%s is there already, and was left as it is; --force writes over it", path)
	}
	return f, err
}

// writeNew is createNew for what is of use as a whole only: where it can't be written to its end nothing is left of it, and what
// it was to replace is as it was.
func writeNew(path string, force bool, write func(io.Writer) error) error {
	target := path
	info, err := os.Stat(path)
	if replaces := err == nil && info.Mode().IsRegular() && force; replaces {
		target = filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".new")
	}
	f, err := createNew(target, force)
	if err != nil {
		return err
	}
	special := info != nil && !info.Mode().IsRegular()
	if special {
		return errors.Join(write(f), f.Close())
	}
	if err = errors.Join(write(f), f.Sync(), f.Close()); err == nil && target != path {
		err = os.Rename(target, path)
	}
	if err != nil {
		err = errors.Join(err, os.Remove(target))
	}
	return err
}
