package identity

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gofrs/flock"
	"github.com/google/uuid"
)

// Ledger is a file outside the database that says who was erased, so that a database which was restored from a backup
// does not bring anybody back. Several processes may write it at the same time. It only grows: a line for an erasure, and
// more than one where it was recorded again.
type Ledger struct{ Path string }

// Erasure is a line of the ledger.
type Erasure struct {
	User uuid.UUID
	At   time.Time // when it was recorded, in UTC, to the second
}

// A line is a time and an id. All are of one length, so that one which was cut short by a crash can be told apart.
const (
	ledgerTime = "2006-01-02T15:04:05Z"
	ledgerLine = len(ledgerTime) + len(" ") + 36
)

// ledgerWait bounds the wait for another process that writes.
const ledgerWait = 5 * time.Second

// Check says whether the ledger can be written, and makes the file if it is not there.
func (l Ledger) Check() error {
	f, err := l.open()
	if err != nil {
		return fmt.Errorf("write the erasure ledger: %w", err)
	}
	return f.Close()
}

func (l Ledger) open() (*os.File, error) {
	if f, err := os.OpenFile(l.Path, os.O_RDWR|os.O_APPEND, 0); !errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	f, err := os.OpenFile(l.Path, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	dir, err := os.Open(filepath.Dir(l.Path)) // a new file lasts once its directory does
	if err == nil {
		err = errors.Join(dir.Sync(), dir.Close())
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// Record adds erasures, and answers once they are on the disk.
func (l Ledger) Record(ctx context.Context, erasures ...Erasure) (err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, ledgerWait, errors.New("another process holds it"))
	defer cancel()
	defer func() {
		if err != nil {
			err = fmt.Errorf("write the erasure ledger: %w", err)
		}
	}()
	f, err := l.open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	lock := flock.New(l.Path, flock.SetFlag(os.O_RDWR))
	if _, err := lock.TryLockContext(ctx, time.Millisecond); err != nil {
		return errors.Join(context.Cause(ctx), err)
	}
	defer func() { err = errors.Join(err, lock.Unlock()) }()

	var lines bytes.Buffer
	if cut, err := endsInside(f); err != nil {
		return err
	} else if cut { // whoever wrote that line was not answered
		lines.WriteByte('\n')
	}
	for _, e := range erasures {
		fmt.Fprintf(&lines, "%s %s\n", e.At.UTC().Format(ledgerTime), e.User)
	}
	if _, err := f.Write(lines.Bytes()); err != nil {
		return err
	}
	return f.Sync()
}

// endsInside says whether a file ends inside a line.
func endsInside(f *os.File) (bool, error) {
	info, err := f.Stat()
	if err != nil || info.Size() == 0 {
		return false, err
	}
	last := make([]byte, 1)
	if _, err := f.ReadAt(last, info.Size()-1); err != nil {
		return false, err
	}
	return last[0] != '\n', nil
}

// Read reads the ledger, each user once, the first erasure first. A file that is not there is empty. It fails where a line
// is damaged; lines that were cut short are passed over.
func (l Ledger) Read() ([]Erasure, error) {
	raw, err := os.ReadFile(l.Path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read the erasure ledger: %w", err)
	}
	var list []Erasure
	seen := map[uuid.UUID]struct{}{}
	number := 0
	for line := range strings.Lines(string(raw)) {
		number++
		line = strings.TrimSuffix(line, "\n")
		if len(line) < ledgerLine {
			continue
		}
		e, err := parseErasure(line)
		if err != nil {
			return nil, fmt.Errorf("read the erasure ledger: line %d: %w", number, err)
		}
		if _, again := seen[e.User]; !again {
			seen[e.User] = struct{}{}
			list = append(list, e)
		}
	}
	return list, nil
}

func parseErasure(line string) (Erasure, error) {
	at, id, _ := strings.Cut(line, " ")
	user, err := uuid.Parse(id)
	if err != nil || len(id) != 36 {
		return Erasure{}, errors.New("it does not end in the id of a user")
	}
	moment, err := time.Parse(ledgerTime, at)
	if err != nil {
		return Erasure{}, errors.New("it does not begin with a time")
	}
	return Erasure{user, moment}, nil
}

// users are the ids of those in a list of erasures, in ascending order.
func users(list []Erasure) []uuid.UUID {
	ids := make([]uuid.UUID, len(list))
	for i, e := range list {
		ids[i] = e.User
	}
	slices.SortFunc(ids, func(a, b uuid.UUID) int { return bytes.Compare(a[:], b[:]) })
	return ids
}
