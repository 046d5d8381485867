package main

import (
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"

	"usher.example/projections"
)

// bar is a progress bar on a terminal, with room for lines above it. It is safe for concurrent use.
type bar struct {
	*progressbar.ProgressBar
	screen *screen
}

// newBar makes a bar, of -1 where nobody knows how much there is to do.
func newBar(terminal io.Writer, most int64, options ...progressbar.Option) *bar {
	s := &screen{w: terminal}
	options = append([]progressbar.Option{progressbar.OptionSetWriter(s), progressbar.OptionFullWidth(), progressbar.OptionSetPredictTime(true)}, options...)
	return &bar{progressbar.NewOptions64(most, options...), s}
}

// end leaves the bar as it is, and what is printed next begins a line of its own.
func (b *bar) end() {
	_ = b.Exit() // what it shows is done, whatever becomes of the terminal
	b.screen.endLine()
}

// screen is where a bar is drawn.
type screen struct {
	mu     sync.Mutex
	w      io.Writer
	within bool // the bar's line
}

// Write draws the bar.
func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.within = true
	return s.w.Write(p)
}

// above prints a line in the place of the bar, which is drawn again below it. to is where it goes, on the same terminal.
func (s *screen) above(to io.Writer, line string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := fmt.Fprint(s.w, "\r\x1b[2K"); err != nil {
		return err
	}
	s.within = false
	_, err := fmt.Fprintln(to, line)
	return err
}

func (s *screen) endLine() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.within {
		fmt.Fprintln(s.w)
	}
	s.within = false
}

// progress shows how a rebuild is.
type progress interface {
	tell(projections.Rebuild)
	end()
}

// showProgress shows a bar on a terminal, and otherwise a line now and then. Programs are not told.
func showProgress(w io.Writer, forPrograms bool) progress {
	if forPrograms {
		w = io.Discard
	}
	if f := terminal(w); f != nil {
		return newRebuildBar(f)
	}
	return &lines{w: w}
}

type rebuildBar struct {
	*bar
	state projections.RebuildState
}

func newRebuildBar(terminal io.Writer) *rebuildBar {
	return &rebuildBar{bar: newBar(terminal, 1, progressbar.OptionShowCount(), progressbar.OptionShowIts(), progressbar.OptionSetItsString("events"))}
}

func (b *rebuildBar) tell(r projections.Rebuild) {
	b.ChangeMax64(max(r.Target, 1))
	_ = b.Set64(r.Position) // the rebuild goes on, whatever becomes of the terminal
	if r.State != b.state {
		b.state = r.State
		b.Describe(string(r.State))
	}
}

// lineEvery is how often a line says how far a rebuild is.
const lineEvery = 5 * time.Second

type lines struct {
	w     io.Writer
	state projections.RebuildState
	last  time.Time
}

func (l *lines) tell(r projections.Rebuild) {
	if r.State == l.state && time.Since(l.last) < lineEvery {
		return
	}
	l.state, l.last = r.State, time.Now()
	fmt.Fprintln(l.w, describeProgress(r))
}

func (l *lines) end() {}

func describeProgress(r projections.Rebuild) string {
	text := fmt.Sprintf("%s: %d of %d", r.State, r.Position, r.Target)
	if r.State == projections.RebuildLoading && r.ETA != nil {
		text += fmt.Sprintf(", %.0f events/s, %v left", r.Rate, time.Duration(*r.ETA)*time.Second)
	}
	if r.Elsewhere {
		text += " (in another process)"
	}
	return text
}
