package eventstore

import (
	"context"
	"errors"
	"fmt"
)

// Failures is what failed of many things that are done one after the other, of which none is to hold up the others: it counts
// them, and keeps the first few. The zero value has none. It is not safe for concurrent use.
type Failures struct {
	count    int
	first    []error
	hopeless int // in a row
}

const (
	// failuresKept bounds what is told of: one cause may have a million failures.
	failuresKept = 5
	// maxHopeless is how many failures in a row that are no fault of what was done mean that nothing else will do either. It is
	// more than one, since a single thing can take its time for ever too.
	maxHopeless = 3
)

// Add notes how one of the things went, nil for well, and says whether the others are worth a try: not once ctx has ended, or
// several in a row failed with what is [General].
func (f *Failures) Add(ctx context.Context, err error) (goOn bool) {
	if err == nil {
		f.hopeless = 0
		return true
	}
	f.count++
	if len(f.first) < failuresKept {
		f.first = append(f.first, err)
	}
	f.hopeless++
	if !General(err) {
		f.hopeless = 0
	}
	return ctx.Err() == nil && f.hopeless < maxHopeless
}

// Err says how many failed, and wraps the first few; nil where all went well.
func (f *Failures) Err() error {
	switch f.count {
	case 0:
		return nil
	case 1:
		return f.first[0]
	case len(f.first):
		return fmt.Errorf("%d failed: %w", f.count, errors.Join(f.first...))
	}
	return fmt.Errorf("%d failed, the first %d of them: %w", f.count, len(f.first), errors.Join(f.first...))
}

// General says whether an error is no fault of what was asked for, so that others are as likely to meet with it: the database can't
// be reached, the log takes nothing, or this process may not write to it.
func General(err error) bool {
	for _, general := range []error{ErrUnavailable, ErrOutcomeUnknown, ErrOverloaded, ErrClosed, ErrNotPermitted, ErrMasterKeyRetired} {
		if errors.Is(err, general) {
			return true
		}
	}
	return false
}
