package eventstore_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"usher.example/eventstore"
)

// However much fails, all is counted, and what is told stays short.
func TestFailures(t *testing.T) {
	t.Parallel()
	var f eventstore.Failures
	if err := f.Err(); err != nil {
		t.Errorf("Err() of none = %v", err)
	}
	first := errors.New("user 0 can't be read")
	for i := range 100_000 {
		err := first
		if i > 0 {
			err = fmt.Errorf("user %d can't be read", i)
		}
		if !f.Add(t.Context(), err) {
			t.Fatalf("after %d failures the others are given up", i+1)
		}
	}
	text := f.Err().Error()
	if !errors.Is(f.Err(), first) || !strings.HasPrefix(text, "100000 failed, the first 5 of them: ") || len(text) > 300 {
		t.Errorf("Err() = %q", text)
	}
}

// What is nobody's own fault is not tried with everybody: but one thing that always takes too long is no such case.
func TestFailuresThatAreGeneral(t *testing.T) {
	t.Parallel()
	for _, general := range []error{eventstore.ErrUnavailable, eventstore.ErrOverloaded, eventstore.ErrClosed} {
		var f eventstore.Failures
		err := fmt.Errorf("read a user: %w", general)
		for i, step := range []struct {
			err  error
			goOn bool
		}{{err, true}, {err, true}, {nil, true}, {err, true}, {err, true}, {errors.New("its own"), true}, {err, true}, {err, true}, {err, false}} {
			if goOn := f.Add(t.Context(), step.err); goOn != step.goOn {
				t.Errorf("%v: step %d: Add() = %v, want %v", general, i, goOn, step.goOn)
			}
		}
	}
	ended, end := context.WithCancel(t.Context())
	end()
	var f eventstore.Failures
	if f.Add(ended, context.Canceled) {
		t.Error("after the end of ctx the others are still tried")
	}
}
