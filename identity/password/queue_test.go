package password

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// queueFor queues jobs in a share, as a pool of the bound would, and names those that had to make room.
type queueFor struct {
	bound int
	share share
	names map[*job]string
	count map[string]int
}

// add queues a job of "network/account" and says what became of it.
func (q *queueFor) add(of string) string {
	network, account, _ := strings.Cut(of, "/")
	j := &job{by: Caller{Network: network, Account: account}}
	instead, ok := q.share.admit(q.bound, j.by.path())
	if !ok {
		return "refused"
	}
	if instead != nil {
		q.share.remove(instead, instead.by.path(), false)
	}
	q.share.push(j, j.by.path())
	q.count[of]++
	q.names[j] = fmt.Sprint(of, q.count[of])
	if instead != nil {
		return "instead of " + q.names[instead]
	}
	return "queued"
}

// serve takes the next jobs out.
func (q *queueFor) serve(n int) (order []string) {
	for range n {
		j := q.share.next(func(*job) bool { return true })
		if j == nil {
			break
		}
		q.share.remove(j, j.by.path(), true)
		order = append(order, q.names[j])
	}
	return order
}

func newQueueFor(bound int) *queueFor {
	return &queueFor{bound: bound, names: map[*job]string{}, count: map[string]int{}}
}

// Whoever is alone may fill the queue; whoever comes then gets in all the same, and no share has more than a quarter from
// then on.
func TestSharesOfTheQueue(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		bound int
		adds  []string // each "network/account", or "network/account*n" for n in a row, of which the last is told of
		want  []string
	}{
		{"one alone may have all", 16, []string{"a/1*16", "a/1"}, []string{"queued", "refused"}},
		{"another network gets in, and the crowd no more", 16, []string{"a/1*16", "b/1", "a/1", "b/1"},
			[]string{"queued", "instead of a/116", "refused", "instead of a/115"}},
		{"a quarter while others wait", 16, []string{"b/1", "a/1*4", "a/1", "b/1*3", "b/1", "c/1*4", "c/1", "d/1*4", "d/1", "e/1", "e/1"},
			[]string{"queued", "queued", "refused", "queued", "refused", "queued", "refused", "queued", "refused", "instead of b/14", "instead of a/14"}},
		{"many accounts of one network are one share", 16, []string{"b/1", "a/1", "a/2", "a/3", "a/4", "a/5", "a/6"},
			[]string{"queued", "queued", "queued", "queued", "queued", "refused", "refused"}},
		{"another account of the network takes from who has most", 16, []string{"a/1*16", "a/2", "a/1", "a/2"},
			[]string{"queued", "instead of a/116", "refused", "instead of a/115"}},
		{"nobody takes from who has no more", 4, []string{"a/1", "b/1", "c/1", "d/1", "e/1", "a/1"},
			[]string{"queued", "queued", "queued", "queued", "refused", "refused"}},
		{"a place is a place", 1, []string{"a/1", "b/1"}, []string{"queued", "refused"}},
	} {
		q := newQueueFor(c.bound)
		var got []string
		for _, add := range c.adds {
			of, times, repeated := strings.Cut(add, "*")
			n := 1
			if repeated {
				fmt.Sscan(times, &n)
			}
			last := ""
			for range n {
				last = q.add(of)
			}
			got = append(got, last)
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}

// Networks are served in turn, and so are the accounts of each.
func TestTurnsOfTheQueue(t *testing.T) {
	t.Parallel()
	q := newQueueFor(64)
	for _, of := range []string{"a/1", "a/1", "a/1", "a/2", "a/2", "b/1", "b/1"} {
		q.add(of)
	}
	got := q.serve(2)
	q.add("c/1") // comes after those that wait
	got = append(got, q.serve(10)...)
	want := []string{"a/11", "b/11", "a/21", "b/12", "c/11", "a/12", "a/22", "a/13"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
	if q.share.size != 0 || len(q.share.parts) != 0 {
		t.Errorf("%+v is left", q.share)
	}
}

// A network that fills the queue is told so in favour of one that comes with a single call, which is served next but one.
func TestCrowdMakesRoom(t *testing.T) {
	t.Parallel()
	p, _ := start(t, PoolConfig{Cost: MinCost, Workers: 1, Queue: 8})
	release := occupy(t, p)
	crowd := make(chan error, 8)
	for i := range 8 {
		go func() {
			_, err := p.Hash(context.Background(), Caller{Network: "crowd", Account: fmt.Sprint(i % 4)}, "correct horse")
			crowd <- err
		}()
	}
	await(t, "a full queue", func() bool { return p.Queued() == 8 })
	ada := make(chan error, 1)
	go func() {
		ada <- p.VerifyUnknown(context.Background(), Caller{Network: "elsewhere", Account: "ada"}, "correct horse")
	}()
	var overloaded *OverloadedError
	if err := <-crowd; !errors.As(err, &overloaded) {
		t.Errorf("one of the crowd: %v, want an OverloadedError", err)
	}
	if _, err := p.Hash(context.Background(), Caller{Network: "crowd", Account: "0"}, "correct horse"); !errors.As(err, &overloaded) {
		t.Errorf("one more of the crowd: %v, want an OverloadedError", err)
	}
	if err := release(); err != nil {
		t.Error(err)
	}
	if err := <-ada; err != nil {
		t.Errorf("somebody from elsewhere: %v", err)
	}
	for range 7 {
		if err := <-crowd; err != nil {
			t.Errorf("those of the crowd who had a place: %v", err)
		}
	}
}

// Whoever waits for memory and goes away keeps nobody else from it.
func TestMemoryIsLetGo(t *testing.T) {
	t.Parallel()
	p, _ := start(t, PoolConfig{Cost: MinCost, Workers: 2})
	gate := make(chan struct{})
	results := make(chan error, 3)
	ask := func(ctx context.Context, memory int, gate <-chan struct{}) {
		go func() {
			_, err := p.compute(ctx, Caller{}, fake{memory, func() (computation, error) { return gated{gate}, nil }}, "")
			results <- err
		}()
	}
	ask(context.Background(), maxMemory/2, gate)
	await(t, "half is taken", func() bool { return p.Busy() == 1 })
	ctx, leave := context.WithCancel(context.Background())
	ask(ctx, maxMemory, gate)
	await(t, "one waits for all", func() bool { return p.Queued() == 1 })
	open := make(chan struct{})
	close(open)
	ask(context.Background(), maxMemory/2, open)
	await(t, "another waits behind", func() bool { return p.Queued() == 2 })
	leave()
	if err := <-results; !errors.Is(err, context.Canceled) {
		t.Errorf("the one who left: %v", err)
	}
	if err := <-results; err != nil {
		t.Errorf("the one behind: %v", err)
	}
	close(gate)
	if err := <-results; err != nil {
		t.Errorf("the first: %v", err)
	}
}
