package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/google/uuid"

	"usher.example/eventstore"
	"usher.example/eventstore/postgres"
	"usher.example/identity"
	"usher.example/projections"
)

// searched is how many users are searched.
const searched = 1_000_000

// lookup is what is timed of a search, and of its yardstick.
const lookup = "lookup"

func searchBenches() []bench {
	var lines []line
	for _, k := range searchKinds {
		lines = append(lines, line{
			name: "search-" + k.name, subject: k.name, yardstick: bare, against: "a user by primary key, p99", show: quantile("p99", lookup, 0.99), noCPU: true,
			targets: []target{quantileAtMost("p99", 20)},
		})
	}
	return []bench{{
		about: fmt.Sprintf("list and search %d users, 50 a page", searched),
		lines: lines,
		setup: func(s *stage) ([]side, error) {
			p, err := settle(s)
			if err != nil {
				return nil, err
			}
			sides := []side{p.side(bare, func(ctx context.Context) error {
				_, err := p.users.Get(ctx, p.ids[rand.IntN(len(p.ids))])
				return err
			})}
			for _, k := range searchKinds {
				sides = append(sides, p.side(k.name, func(ctx context.Context) error {
					_, err := p.users.List(ctx, k.filter(p))
					return err
				}))
			}
			return sides, nil
		},
	}}
}

// searchKinds are the ways to look for users.
var searchKinds = []struct {
	name   string
	filter func(*population) projections.UserFilter
}{
	{"first", func(*population) projections.UserFilter { return projections.UserFilter{} }},
	{"tenth", func(p *population) projections.UserFilter { return projections.UserFilter{Cursor: p.tenth} }},
	{"prefix", func(p *population) projections.UserFilter {
		text := p.someText()
		return projections.UserFilter{Query: text[:min(len(text), 1+rand.IntN(8))]}
	}},
	{"substring", func(p *population) projections.UserFilter {
		text := p.someText()
		length := min(len(text), 3+rand.IntN(6))
		from := rand.IntN(len(text) - length + 1)
		return projections.UserFilter{Query: text[from : from+length]}
	}},
	// One user in a million, and one in ten thousand.
	{"role", func(*population) projections.UserFilter { return projections.UserFilter{Role: identity.RoleAdmin} }},
	{"locked", func(*population) projections.UserFilter { return projections.UserFilter{Status: identity.StatusLocked} }},
}

// population is a read model of very many users, and what is known of them.
type population struct {
	users projections.Users
	ids   []uuid.UUID
	texts []string // addresses and names of a hundredth of them
	tenth string   // the cursor of the tenth page
}

func (p *population) someText() string { return p.texts[rand.IntN(len(p.texts))] }

// side has one caller look for users over and over.
func (p *population) side(name string, look func(context.Context) error) side {
	return side{name: name, run: func(ctx context.Context, length time.Duration) (tally, error) {
		var times []time.Duration
		t, err := hammer(ctx, 1, length, func(ctx context.Context, _ int) error {
			began := time.Now()
			err := look(ctx)
			times = append(times, time.Since(began))
			return err
		})
		t.times = map[string][]time.Duration{lookup: times}
		return t, err
	}}
}

// syllables make names that are alike in the way that those of people are: some parts are in very many, and some in few.
var syllables = strings.Fields("an be ka lo mi ra so te vi no el ar us in or ma da ri le ja ste phen smi ton ber ger son ley wood field gar mac o'")

func somebody(n int) (email, name string) {
	word := func() string {
		var text strings.Builder
		for range 2 + rand.IntN(2) {
			text.WriteString(syllables[int(float64(len(syllables))*rand.Float64()*rand.Float64())])
		}
		return text.String()
	}
	first, last := word(), word()
	return fmt.Sprintf("%s.%s%d@%s", first, last, n%10_000, []string{"example.org", "example.com", "mail.example.net"}[n%3]), first + " " + last
}

// settle fills the read model as its projection does, from events that no log has.
func settle(s *stage) (*population, error) {
	dsn, err := s.database()
	if err != nil {
		return nil, err
	}
	store, err := postgres.Open(s.ctx, dsn, postgres.Options{})
	if err != nil {
		return nil, err
	}
	s.after(func() error { store.Close(); return nil })
	p := &population{users: projections.Users{DB: store, CursorKey: []byte("of a benchmark")}}
	model := projections.Generation{Dialect: store.Dialect(), Number: 1, Loading: true}
	if err := model.Create(s.ctx, store, projections.UserProjection{}); err != nil {
		return nil, err
	}
	if err := p.fill(s.ctx, store, model); err != nil {
		return nil, err
	}
	if err := model.Index(s.ctx, store, projections.UserProjection{}); err != nil {
		return nil, err
	}
	if err := model.Show(s.ctx, store, projections.UserProjection{}); err != nil {
		return nil, err
	}
	if _, err := store.Exec(s.ctx, "VACUUM ANALYZE "+model.Table(projections.UsersName)); err != nil {
		return nil, err
	}
	for range 9 {
		page, err := p.users.List(s.ctx, projections.UserFilter{Cursor: p.tenth})
		if err != nil {
			return nil, err
		}
		p.tenth = page.NextCursor
	}
	return p, nil
}

func (p *population) fill(ctx context.Context, store eventstore.DB, model projections.Generation) error {
	began := time.Now().Add(-searched * time.Second)
	for n := 0; n < searched; {
		events := make([]eventstore.Event, 0, 2000)
		for ; len(events) < cap(events)-2 && n < searched; n++ {
			events = append(events, p.arrive(n, began.Add(time.Duration(n)*time.Second))...)
		}
		err := store.Transact(ctx, func(tx eventstore.DB) error {
			return projections.Apply(ctx, tx, projections.UserProjection{}, model, events)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// arrive makes the events of one more user.
func (p *population) arrive(n int, at time.Time) []eventstore.Event {
	var first identity.Registered
	first.Personal.Email, first.Personal.Name = somebody(n)
	if n%100 == 0 {
		p.texts = append(p.texts, first.Personal.Email, first.Personal.Name)
	}
	payloads := []identity.Payload{first}
	if n == searched/2 {
		payloads = append(payloads, identity.RoleGranted{Role: identity.RoleAdmin})
	}
	if n%10_000 == 77 {
		payloads = append(payloads, identity.Locked{})
	}
	id := uuid.Must(uuid.NewV7())
	p.ids = append(p.ids, id)
	events := make([]eventstore.Event, len(payloads))
	for i, payload := range payloads {
		data, personal := identity.Encode(payload)
		events[i] = eventstore.Event{
			Position: int64(2*n + i + 1), Stream: eventstore.UserStream(id), Version: i + 1, Type: payload.EventType(), SchemaVersion: 1,
			Data: data, Personal: personal, RecordedAt: at,
		}
	}
	return events
}
