package userfile

import (
	"context"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sync/errgroup"

	"usher.example/eventstore"
	"usher.example/identity"
)

// Outcome is what became of a line.
type Outcome string

// The outcomes.
const (
	Imported Outcome = "imported"
	Already  Outcome = "already" // imported before: see identity.Service.ImportUser
	Refused  Outcome = "refused"
)

// Result is the outcome of a line.
type Result struct {
	Line    int     `json:"line"`
	Outcome Outcome `json:"-"`
	Reason  string  `json:"reason"` // why it was refused; nothing of the line is in it
}

// String is the result of a line that was refused, as people read it.
func (r Result) String() string { return fmt.Sprintf("line %d: %s", r.Line, r.Reason) }

// atOnce is how many users are brought in at the same time: they share commits, and commits are what takes time.
const atOnce = 1024

// Import brings in the users of a file, many at a time, and tells the outcome of each line in the order of the lines. With
// dry it tells what it would do, and does nothing.
//
// It fails where the file can't be read any further or the database can't be reached, or with the cause of ctx's end. The
// lines of which an outcome was told are done; an import that is begun anew goes on after them.
func Import(ctx context.Context, users *identity.Service, file *Reader, m eventstore.Metadata, dry bool, tell func(Result)) error {
	do := func(ctx context.Context, u identity.ImportedUser) (bool, error) { return users.ImportUser(ctx, u, m) }
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
		for {
			l, err := file.Next()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
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
		for p := range order {
			select {
			case result := <-p:
				tell(result)
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		return nil
	})
	return group.Wait()
}

func outcome(ctx context.Context, l Line, do func(context.Context, identity.ImportedUser) (bool, error)) (Result, error) {
	r := Result{Line: l.Number, Outcome: Refused}
	if l.Err != nil {
		r.Reason = l.Err.Error()
		return r, nil
	}
	done, err := do(ctx, l.User)
	var refusal *identity.Error
	switch {
	case errors.As(err, &refusal):
		r.Reason = refusal.Detail
	case err != nil:
		return r, err
	case done:
		r.Outcome = Imported
	default:
		r.Outcome = Already
	}
	return r, nil
}
