package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"usher.example/eventstore"
)

// masterKeyTime is how long a MASTER_KEY_COMMAND may take, and masterKeyBytes how much it may print.
const (
	masterKeyTime  = 30 * time.Second
	masterKeyBytes = 4096
)

// masterKeys are the master keys that this process is given: by one of the settings or, in a directory of `usher dev` with none
// of them, by the file there. There are two while one takes the place of the other.
func (c *config) masterKeys(ctx context.Context, dir string) ([]eventstore.MasterKey, error) {
	text, from, err := string(c.MasterKey), "MASTER_KEY", error(nil)
	switch {
	case c.MasterKeyCommand != "":
		from = "MASTER_KEY_COMMAND"
		text, err = printedKey(ctx, strings.Fields(c.MasterKeyCommand))
	case c.MasterKeyFile != "":
		from = "MASTER_KEY_FILE"
		text, err = keyFile(c.MasterKeyFile)
	case text == "" && dir != "":
		from = filepath.Join(dir, masterKeyFile)
		text, err = keyFile(from)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", from, err)
	}
	if dir == "" && isPlaceholder(text) {
		return nil, fmt.Errorf("%s has a value for development; make a secret one, for example with `openssl rand -base64 32`", from)
	}
	keys, err := eventstore.ParseMasterKeys(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", from, err)
	}
	return keys, nil
}

func keyFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	raw := make([]byte, masterKeyBytes)
	n, err := f.Read(raw)
	if err != nil {
		return "", fmt.Errorf("read it: %w", err)
	}
	return string(raw[:n]), nil
}

// printedKey runs a command for what it prints. What it says on its standard error is part of the error, what it prints never.
func printedKey(ctx context.Context, command []string) (string, error) {
	if len(command) == 0 {
		return "", errors.New("it names no program")
	}
	ctx, cancel := context.WithTimeout(ctx, masterKeyTime)
	defer cancel()
	run := exec.CommandContext(ctx, command[0], command[1:]...)
	var out, complaint bytes.Buffer
	run.Stdout, run.Stderr = &out, &complaint
	run.WaitDelay = time.Second
	if err := run.Run(); err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("it has not ended after %v", masterKeyTime)
		}
		said, _, _ := strings.Cut(strings.TrimSpace(complaint.String()), "\n")
		return "", fmt.Errorf("%w: %.200q", err, said)
	}
	if out.Len() > masterKeyBytes {
		return "", errors.New("it prints more than a key")
	}
	return out.String(), nil
}
