package userfile

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"

	"golang.org/x/sync/errgroup"

	"usher.example/eventstore"
	"usher.example/identity"
)

// Outcome is what became of a line.
type Outcome string

// The outcomes.
const (
	Imported = Outcome(identity.ImportMade)
	Updated  = Outcome(identity.ImportUpdated) // imported before, with another hash or status: see identity.Service.ImportUser
	Already  = Outcome(identity.ImportKnown)
	Refused  = Outcome("refused")
)

// Result is the outcome of a line.
type Result struct {
	Line    int     `json:"line"`
	Last    int     `json:"last_line,omitempty"` // where it is about several
	Outcome Outcome `json:"-"`
	Reason  string  `json:"reason"` // why it was refused; nothing of the line is in it
	Err     error   `json:"-"`      // what usher failed with; nil where the line is to blame
}

// String is the result of a line that was refused, as people read it.
func (r Result) String() string {
	if r.Last > 0 {
		return fmt.Sprintf("lines %d to %d: %s", r.Line, r.Last, r.Reason)
	}
	return fmt.Sprintf("line %d: %s", r.Line, r.Reason)
}

// atOnce is how many users are brought in at the same time: they share commits, and commits are what takes time.
const atOnce = 1024

// Import brings in the users of a file, many at a time, and tells the outcome of each line in the order of the lines. With
// dry it tells what it would do, and does nothing.
//
// Of lines with one address the first counts, whatever becomes of it, and the others are refused: which lines those are has
// to be kept in memory, about 30 bytes for each line of the file.
//
// A line on which usher itself fails, as on a user who is there and can't be read, is refused and holds up no other.
//
// It fails where the file can't be read any further or the database can't be reached, where usher fails on many lines in a row, or
// with the cause of ctx's end. The lines of which an outcome was told are done; an import that is begun anew goes on after them.
func Import(ctx context.Context, users *identity.Service, file *Reader, m eventstore.Metadata, dry bool, tell func(Result)) error {
	do := func(ctx context.Context, u identity.ImportedUser) (identity.ImportOutcome, error) {
		return users.ImportUser(ctx, u, m)
	}
	if dry {
		do = users.CheckImport
	}
	// Each line has a place of its own in the order, which is told once it is filled.
	type place chan Result
	type job struct {
		Line
		place
	}
	order, lines := make(chan place, atOnce), make(chan job)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer close(order)
		defer close(lines)
		first := newAddresses()
		for {
			l, err := file.Next()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
			first.check(&l)
			p := make(place, 1)
			select {
			case order <- p:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
			select {
			case lines <- job{l, p}:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
	})
	for range atOnce {
		group.Go(func() error {
			for l := range lines {
				result, err := outcome(ctx, l.Line, do)
				if err != nil {
					return err
				}
				l.place <- result
			}
			return nil
		})
	}
	group.Go(func() error {
		inARow := 0
		for p := range order {
			select {
			case result := <-p:
				tell(result)
				if inARow++; result.Err == nil {
					inARow = 0
				}
				if inARow == maxFailed {
					return result.Err
				}
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		return nil
	})
	return group.Wait()
}

// maxFailed is on how many lines in a row usher may fail until nothing good is expected of the others.
const maxFailed = 100

func outcome(ctx context.Context, l Line, do func(context.Context, identity.ImportedUser) (identity.ImportOutcome, error)) (Result, error) {
	r := Result{Line: l.Number, Last: l.Last, Outcome: Refused}
	if l.Err != nil {
		r.Reason = l.Err.Error()
		return r, nil
	}
	done, err := do(ctx, l.User)
	var refusal *identity.Error
	switch {
	case errors.As(err, &refusal):
		r.Reason = refusal.Detail
	case err != nil && (eventstore.General(err) || ctx.Err() != nil):
		return r, err
	case err != nil:
		r.Reason, r.Err = "usher failed on it: its log says why", err
	default:
		r.Outcome = Outcome(done)
	}
	return r, nil
}

// addresses are those of the lines so far, by a hash that nobody can aim at, with the number of the first line of each.
type addresses struct {
	seed  maphash.Seed
	lines map[uint64]int
}

func newAddresses() addresses { return addresses{maphash.MakeSeed(), map[uint64]int{}} }

// check refuses a line whose address an earlier one has.
func (a addresses) check(l *Line) {
	if l.Err != nil {
		return
	}
	email, err := identity.ParseEmail(l.User.Email)
	if err != nil { // which is told when the user is to be brought in
		return
	}
	hash := maphash.String(a.seed, email.Key())
	if first, there := a.lines[hash]; there {
		l.Err = fmt.Errorf("the address is that of line %d, which counts", first)
		return
	}
	a.lines[hash] = l.Number
}
