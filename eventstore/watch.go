package eventstore

import "sync"

// watchers are those who want to know when something happens. The zero value is ready.
type watchers struct {
	mu   sync.Mutex
	list map[chan struct{}]struct{}
}

// watch answers with a channel that is signalled when it happens (several times may share a signal), until stop is called.
func (w *watchers) watch() (happened <-chan struct{}, stop func()) {
	ch := make(chan struct{}, 1)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.list == nil {
		w.list = map[chan struct{}]struct{}{}
	}
	w.list[ch] = struct{}{}
	return ch, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.list, ch)
	}
}

func (w *watchers) signal() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for ch := range w.list {
		select {
		case ch <- struct{}{}:
		default:
		}
	}
}
