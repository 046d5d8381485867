package password

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// start runs a pool until the test ends or stop is called; stop waits for Run's return.
func start(t *testing.T, config PoolConfig) (p *Pool, stop func()) {
	t.Helper()
	p, err := NewPool(config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v, want nil", err)
		}
	})
	t.Cleanup(stop)
	return p, stop
}

// fake is a method whose computation doesn't depend on a password.
type fake struct {
	taken int // bytes
	begun func() (computation, error)
}

func (f fake) memory() int                         { return f.taken }
func (f fake) begin(Password) (computation, error) { return f.begun() }

// occupy makes one worker busy until release is called.
func occupy(t *testing.T, p *Pool) (release func() error) {
	t.Helper()
	taken, gate, done := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		_, err := p.compute(context.Background(), Caller{}, fake{begun: func() (computation, error) {
			close(taken)
			<-gate
			return newBcryptRun("", [saltBytes]byte{}, MinCost), nil
		}}, "")
		done <- err
	}()
	select {
	case <-taken:
	case err := <-done:
		t.Fatalf("compute = %v", err)
	}
	release = sync.OnceValue(func() error { close(gate); return <-done })
	t.Cleanup(func() { _ = release() })
	return release
}

// await waits for a condition.
func await(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline, again := time.After(20*time.Second), time.NewTicker(time.Millisecond)
	defer again.Stop()
	for !condition() {
		select {
		case <-again.C:
		case <-deadline:
			t.Fatalf("waited in vain for: %s", what)
		}
	}
}

func TestPoolHashesAndVerifies(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	p, _ := start(t, PoolConfig{Cost: MinCost})
	h, err := p.Hash(ctx, Caller{}, "correct horse")
	if err != nil {
		t.Fatal(err)
	}
	older, err := New("correct horse", MinCost+1)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name          string
		hash          Hash
		password      Password
		match, rehash bool
	}{
		{"right", h, "correct horse", true, false},
		{"wrong", h, "battery staple", false, false},
		{"right, other cost", older, "correct horse", true, true},
		{"wrong, other cost", older, "battery staple", false, false},
	} {
		match, rehash, err := p.Verify(ctx, Caller{}, test.hash, test.password)
		if match != test.match || rehash != test.rehash || err != nil {
			t.Errorf("%s: Verify = %v, %v, %v, want %v, %v, nil", test.name, match, rehash, err, test.match, test.rehash)
		}
	}
	if err := p.VerifyUnknown(ctx, Caller{}, "correct horse"); err != nil {
		t.Errorf("VerifyUnknown = %v, want nil", err)
	}
	if _, _, err := p.Verify(ctx, Caller{}, "nonsense", "correct horse"); !errors.Is(err, ErrUnknownScheme) {
		t.Errorf("Verify(nonsense) = %v, want %v", err, ErrUnknownScheme)
	}
	_, onHash := p.Hash(ctx, Caller{}, "a\x00b")
	_, _, onVerify := p.Verify(ctx, Caller{}, h, "a\x00b")
	for _, err := range []error{onHash, onVerify, p.VerifyUnknown(ctx, Caller{}, "a\x00b")} {
		if !errors.Is(err, ErrRefused) {
			t.Errorf("error for a NUL = %v, want %v", err, ErrRefused)
		}
	}
}

func TestReused(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	p, stop := start(t, PoolConfig{Cost: MinCost, Workers: 1})
	of := func(passwords ...Password) (hashes []Hash) {
		for _, password := range passwords {
			hashes = append(hashes, hashed(t, password))
		}
		return hashes
	}
	var many []Hash
	for range MaxHistory {
		many = append(many, hashed(t, "battery staple"))
	}
	for _, test := range []struct {
		name   string
		hashes []Hash
		want   bool
		rounds int
	}{
		{"none", nil, false, 0},
		{"others", of("a", "b", "c"), false, 3 << MinCost},
		{"the present one", of("correct horse", "b", "c"), true, 1 << MinCost},
		{"the last one", of("a", "b", "correct horse"), true, 3 << MinCost},
		{"after one that can't be read", append([]Hash{"nonsense", "$2b$31$" + Hash(strings.Repeat(".", 53))}, of("correct horse")...), true, 1 << MinCost},
		{"past the bound", append(many, of("correct horse")...), false, MaxHistory << MinCost},
	} {
		var got bool
		did := rounds(t, p, func() (err error) {
			got, err = p.Reused(ctx, Caller{}, test.hashes, "correct horse")
			return err
		})
		if got != test.want || did != test.rounds {
			t.Errorf("%s: Reused = %v in %d rounds, want %v in %d", test.name, got, did, test.want, test.rounds)
		}
	}
	if _, err := p.Reused(ctx, Caller{}, many, "a\x00b"); !errors.Is(err, ErrRefused) {
		t.Errorf("Reused for a NUL = %v, want %v", err, ErrRefused)
	}
	stop()
	if _, err := p.Reused(ctx, Caller{}, many, "correct horse"); !errors.Is(err, ErrStopped) {
		t.Errorf("Reused on a stopped pool = %v, want %v", err, ErrStopped)
	}
}

// rounds counts the bcrypt rounds that f makes the pool do.
func rounds(t *testing.T, p *Pool, f func() error) int {
	t.Helper()
	var total int
	p.observe = func(run computation) { total += run.(*bcryptRun).left }
	if err := f(); err != nil {
		t.Fatal(err)
	}
	return total
}

func TestWorkOfALogin(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	p, _ := start(t, PoolConfig{Cost: 6, Workers: 1})
	current, err := New("correct horse", 6)
	if err != nil {
		t.Fatal(err)
	}
	older, err := New("correct horse", 5)
	if err != nil {
		t.Fatal(err)
	}
	verify := func(h Hash, password Password) func() error {
		return func() error { _, _, err := p.Verify(ctx, Caller{}, h, password); return err }
	}
	for _, test := range []struct {
		name string
		call func() error
		want int
	}{
		{"right", verify(current, "correct horse"), 1 << 6},
		{"wrong", verify(current, "battery staple"), 1 << 6},
		{"unknown", func() error { return p.VerifyUnknown(ctx, Caller{}, "battery staple") }, 1 << 6},
		{"wrong, other cost", verify(older, "battery staple"), 1 << 5},
		{"right, other cost", verify(older, "correct horse"), 1 << 5},
	} {
		if got := rounds(t, p, test.call); got != test.want {
			t.Errorf("%s: %d rounds, want %d", test.name, got, test.want)
		}
	}
}

func TestLoginWithAForeignHash(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	p, _ := start(t, PoolConfig{Cost: MinCost, Workers: 2})
	quick := []string{"$2a$05", "bcrypt$$2b$05", "$argon2i$", "argon2$argon2i$", "scrypt$16384$seasalt$", "$pbkdf2", "pbkdf2_sha1"}
	computations := 0
	var mu sync.Mutex
	p.observe = func(computation) { mu.Lock(); computations++; mu.Unlock() }
	for _, test := range foreign {
		if !slices.ContainsFunc(quick, func(prefix string) bool { return strings.HasPrefix(string(test.hash), prefix) }) {
			continue
		}
		for password, want := range map[Password]bool{test.password: true, test.password + "x": false} {
			computations = 0
			match, rehash, err := p.Verify(ctx, Caller{}, test.hash, password)
			if match != want || rehash != want || err != nil {
				t.Errorf("%s: Verify = %v, %v, %v, want %v, %v, nil", test.origin, match, rehash, err, want, want)
			}
			if computations != 1 {
				t.Errorf("%s: %d computations, want 1", test.origin, computations)
			}
		}
	}
}

func TestPoolOverload(t *testing.T) {
	t.Parallel()
	p, _ := start(t, PoolConfig{Cost: MinCost, Workers: 1, Queue: 3})
	release := occupy(t, p)
	if p.Busy() != 1 || p.Queued() != 0 || p.Workers() != 1 {
		t.Errorf("Busy, Queued, Workers = %d, %d, %d, want 1, 0, 1", p.Busy(), p.Queued(), p.Workers())
	}
	results := make(chan error, 3)
	for range 3 {
		go func() { _, err := p.Hash(context.Background(), Caller{}, "correct horse"); results <- err }()
	}
	await(t, "three queued", func() bool { return p.Queued() == 3 })

	_, err := p.Hash(context.Background(), Caller{}, "correct horse")
	var overloaded *OverloadedError
	if !errors.As(err, &overloaded) || !errors.Is(err, ErrOverloaded) || overloaded.RetryAfter < time.Second {
		t.Errorf("Hash past the bound = %v, want an OverloadedError of a second or more", err)
	}
	if err := release(); err != nil {
		t.Errorf("the occupying job: %v", err)
	}
	for range 3 {
		if err := <-results; err != nil {
			t.Errorf("queued Hash = %v, want nil", err)
		}
	}
	await(t, "idle", func() bool { return p.Busy() == 0 && p.Queued() == 0 })
}

func TestRetryAfterIsTheTimeOfTheQueue(t *testing.T) {
	t.Parallel()
	p, err := NewPool(PoolConfig{Workers: 2})
	if err != nil {
		t.Fatal(err)
	}
	p.average = 250 * time.Millisecond
	for n, want := range map[int]time.Duration{0: time.Second, 8: time.Second, 9: 2 * time.Second, 64: 8 * time.Second} {
		p.queue = share{}
		for range n {
			p.queue.push(&job{}, Caller{}.path())
		}
		if got := p.overloaded().RetryAfter; got != want {
			t.Errorf("RetryAfter of %d = %v, want %v", n, got, want)
		}
	}
}

func TestCallerWhoGivesUpWhileQueued(t *testing.T) {
	t.Parallel()
	p, _ := start(t, PoolConfig{Cost: MinCost, Workers: 1, Queue: 1})
	release := occupy(t, p)
	gone := errors.New("the caller went away")
	ctx, cancel := context.WithCancelCause(context.Background())
	result, computed := make(chan error, 1), false
	go func() {
		_, err := p.compute(ctx, Caller{}, fake{begun: func() (computation, error) { computed = true; return newBcryptRun("", [saltBytes]byte{}, MinCost), nil }}, "")
		result <- err
	}()
	await(t, "queued", func() bool { return p.Queued() == 1 })
	cancel(gone)
	if err := <-result; !errors.Is(err, gone) {
		t.Errorf("error = %v, want %v", err, gone)
	}
	if p.Queued() != 0 {
		t.Errorf("Queued = %d, want 0: the place was not freed", p.Queued())
	}
	// The freed place is good for another caller, who comes after the one who left.
	next := make(chan error, 1)
	go func() { next <- p.VerifyUnknown(context.Background(), Caller{}, "correct horse") }()
	await(t, "next queued", func() bool { return p.Queued() == 1 })
	if err := release(); err != nil {
		t.Error(err)
	}
	if err := <-next; err != nil {
		t.Errorf("next caller: %v", err)
	}
	if computed {
		t.Error("the work of a caller who had left was done")
	}
	if _, err := p.Hash(ctx, Caller{}, "correct horse"); !errors.Is(err, gone) {
		t.Errorf("Hash with an ended context = %v, want %v", err, gone)
	}
}

func TestCallerWhoGivesUpWhileHashed(t *testing.T) {
	t.Parallel()
	p, _ := start(t, PoolConfig{Cost: MinCost, Workers: 1})
	ctx, cancel := context.WithCancel(context.Background())
	gate, taken, result := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		_, err := p.compute(ctx, Caller{}, fake{begun: func() (computation, error) {
			close(taken)
			<-gate
			return newBcryptRun("", [saltBytes]byte{}, MinCost), nil
		}}, "")
		result <- err
	}()
	<-taken
	cancel()
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Errorf("error = %v, want %v", err, context.Canceled)
	}
	close(gate)
	if _, err := p.Hash(context.Background(), Caller{}, "correct horse"); err != nil {
		t.Errorf("Hash after it = %v, want nil", err)
	}
	await(t, "idle", func() bool { return p.Busy() == 0 })
}

func TestStop(t *testing.T) {
	t.Parallel()
	p, stop := start(t, PoolConfig{Cost: MinCost, Workers: 1})
	release := occupy(t, p)
	queued := make(chan error, 2)
	for range 2 {
		go func() { _, err := p.Hash(context.Background(), Caller{}, "correct horse"); queued <- err }()
	}
	await(t, "two queued", func() bool { return p.Queued() == 2 })

	stopped := make(chan struct{})
	go func() { stop(); close(stopped) }()
	for range 2 {
		if err := <-queued; !errors.Is(err, ErrStopped) {
			t.Errorf("queued Hash = %v, want %v", err, ErrStopped)
		}
	}
	select {
	case <-stopped:
		t.Error("Run returned while a job was being hashed")
	default:
	}
	if err := release(); err != nil {
		t.Errorf("job in work = %v, want nil", err)
	}
	<-stopped
	if _, err := p.Hash(context.Background(), Caller{}, "correct horse"); !errors.Is(err, ErrStopped) {
		t.Errorf("Hash on a stopped pool = %v, want %v", err, ErrStopped)
	}
	if err := p.Run(context.Background()); !errors.Is(err, ErrStopped) {
		t.Errorf("second Run = %v, want %v", err, ErrStopped)
	}
}

func TestProcessorsAreRestored(t *testing.T) {
	// Not parallel: it looks at GOMAXPROCS, which the pools of other tests change.
	before := runtime.GOMAXPROCS(0)
	first, stopFirst := start(t, PoolConfig{Cost: MinCost, Workers: 2})
	second, stopSecond := start(t, PoolConfig{Cost: MinCost, Workers: 3})
	for _, p := range []*Pool{first, second} {
		if err := p.VerifyUnknown(context.Background(), Caller{}, "correct horse"); err != nil {
			t.Fatal(err)
		}
	}
	if got := runtime.GOMAXPROCS(0); got != before+5 {
		t.Errorf("GOMAXPROCS = %d, want %d", got, before+5)
	}
	if third, err := NewPool(PoolConfig{}); err != nil || third.Workers() != before || third.Cost() != DefaultCost {
		t.Errorf("NewPool = %d workers, %v, want %d", third.Workers(), err, before)
	}
	stopFirst()
	stopSecond()
	if got := runtime.GOMAXPROCS(0); got != before {
		t.Errorf("GOMAXPROCS after stop = %d, want %d", got, before)
	}
}

func TestNewPoolRefuses(t *testing.T) {
	t.Parallel()
	for _, cost := range []int{-1, 3, 16} {
		if _, err := NewPool(PoolConfig{Cost: cost}); !errors.Is(err, ErrCost) {
			t.Errorf("NewPool with cost %d = %v, want %v", cost, err, ErrCost)
		}
	}
	for _, config := range []PoolConfig{{Workers: -1}, {Queue: -1}} {
		if _, err := NewPool(config); err == nil {
			t.Errorf("NewPool(%+v) = nil, want an error", config)
		}
	}
}

func TestManyCallers(t *testing.T) {
	t.Parallel()
	p, _ := start(t, PoolConfig{Cost: MinCost, Workers: 3, Queue: 20})
	h := hashed(t, "correct horse")
	var callers sync.WaitGroup
	for i := range 40 {
		callers.Go(func() {
			for range 10 {
				ctx, cancel := context.WithCancel(context.Background())
				if i%4 == 0 {
					go cancel()
				}
				match, _, err := p.Verify(ctx, Caller{}, h, "correct horse")
				switch {
				case err == nil && match, errors.Is(err, ErrOverloaded), i%4 == 0 && errors.Is(err, context.Canceled):
				default:
					t.Errorf("Verify = %v, %v", match, err)
				}
				cancel()
			}
		})
	}
	callers.Wait()
	await(t, "idle", func() bool { return p.Busy() == 0 && p.Queued() == 0 })
}

func BenchmarkVerify(b *testing.B) {
	h, err := New("correct horse", 10)
	if err != nil {
		b.Fatal(err)
	}
	p, err := NewPool(PoolConfig{Cost: 10, Queue: 1024})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	stopped := make(chan error, 1)
	go func() { stopped <- p.Run(ctx) }()
	b.Run("pool", func(b *testing.B) {
		b.SetParallelism(8)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if _, _, err := p.Verify(ctx, Caller{}, h, "battery staple"); err != nil {
					b.Error(err)
				}
			}
		})
	})
	cancel()
	if err := <-stopped; err != nil {
		b.Error(err)
	}
	b.Run("bare", func(b *testing.B) {
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if _, err := Verify(h, "battery staple"); err != nil {
					b.Error(err)
				}
			}
		})
	})
}
