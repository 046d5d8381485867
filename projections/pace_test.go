package projections

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"usher.example/eventstore"
)

// busyLog is a log that somebody else appends to, every so often until a time.
type busyLog struct {
	Log
	began, until time.Time
	every        time.Duration
}

func (l busyLog) Head(context.Context) (int64, error) {
	now := time.Now()
	if now.After(l.until) {
		now = l.until
	}
	return int64(now.Sub(l.began) / l.every), nil
}

// A rebuild works half of the time while somebody appends, and all of it otherwise.
func TestPace(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		busy time.Duration // from the beginning on
		want time.Duration // that 100 turns of 10 ms take, with one more or less
	}{
		"nobody appends":           {0, time.Second + restFor/2},
		"somebody does":            {time.Hour, 2 * time.Second},
		"somebody does for a time": {time.Second, time.Second + (time.Second+restFor)/2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				p := newPace(busyLog{began: began, until: began.Add(c.busy), every: 5 * time.Millisecond})
				err := p.during(t.Context(), func() error {
					for range 100 {
						if err := p.work(t.Context(), func() error { return eventstore.Pause(t.Context(), 10*time.Millisecond) }); err != nil {
							return err
						}
					}
					return nil
				})
				if err != nil {
					t.Fatal(err)
				}
				if took := time.Since(began); took < c.want-20*time.Millisecond || took > c.want+20*time.Millisecond {
					t.Errorf("100 turns took %v, want %v", took, c.want)
				}
			})
		})
	}
}
