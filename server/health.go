package server

import (
	"context"
	"encoding/json"
	"log/slog"
	"strings"
	"sync"
	"time"

	"usher.example/identity"
)

// livez answers GET /livez: the process answers.
func (s *Server) livez(*Call) (Answer, error) {
	return OK(json.RawMessage(`{"status":"ok"}`)), nil
}

// readyz answers GET /readyz: everything that requests need is there.
func (s *Server) readyz(c *Call) (Answer, error) {
	if failed := s.ready.check(c.echo.Request().Context()); len(failed) > 0 {
		return Answer{}, loggedError{Refuse(identity.CodeUnavailable, "not ready: %s", strings.Join(failed, ", "))}
	}
	return OK(json.RawMessage(`{"status":"ready"}`)), nil
}

// loggedError is an error that was logged where it arose: who probes every second must not fill the log.
type loggedError struct{ error }

func (e loggedError) Unwrap() error { return e.error }

// Check is one thing that has to be well for the server to be ready. Run says what is wrong.
type Check struct {
	Name string // for example "database"
	Run  func(context.Context) error
}

// readiness runs the checks, at most once in readyFor however often it is asked.
type readiness struct {
	checks []Check
	now    func() time.Time
	logger *slog.Logger

	mu      sync.Mutex
	checked time.Time
	failed  []string
}

const (
	readyFor  = time.Second
	checkTime = 2 * time.Second // for all the checks together
)

// check answers with the names of the checks that failed. What they said is logged when that changes.
func (r *readiness) check(ctx context.Context) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if age := r.now().Sub(r.checked); !r.checked.IsZero() && age >= 0 && age < readyFor {
		return r.failed
	}
	// The answer is everybody's: one caller that goes away does not make it bad.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), checkTime)
	defer cancel()
	errs := make([]error, len(r.checks))
	var wg sync.WaitGroup
	for i, c := range r.checks {
		wg.Go(func() { errs[i] = c.Run(ctx) })
	}
	wg.Wait()
	before := strings.Join(r.failed, " ")
	r.failed = nil
	for i, err := range errs {
		if err != nil {
			r.failed = append(r.failed, r.checks[i].Name)
		}
	}
	if strings.Join(r.failed, " ") != before {
		for i, err := range errs {
			if err != nil {
				r.logger.WarnContext(ctx, "not ready", slog.String("check", r.checks[i].Name), slog.Any("error", err))
			}
		}
		if len(r.failed) == 0 {
			r.logger.InfoContext(ctx, "ready again")
		}
	}
	r.checked = r.now()
	return r.failed
}
