package test

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"

	"usher.example/eventstore"
	"usher.example/identity"
	"usher.example/subscription"
)

// downstreamCopy is a service's copy of all users in a database of its own, which it changes together with its checkpoint.
type downstreamCopy struct{ db *sql.DB }

func newDownstreamCopy(t *testing.T) *downstreamCopy {
	t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(t.TempDir(), "copy.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	db.SetMaxOpenConns(1)
	_, err = db.ExecContext(t.Context(), `
		CREATE TABLE users (id TEXT PRIMARY KEY, email TEXT NOT NULL, name TEXT NOT NULL);
		CREATE TABLE progress (checkpoint INTEGER NOT NULL);
		INSERT INTO progress VALUES (0)`)
	if err != nil {
		t.Fatal(err)
	}
	return &downstreamCopy{db}
}

func (c *downstreamCopy) checkpoint(ctx context.Context) (at int64, err error) {
	err = c.db.QueryRowContext(ctx, "SELECT checkpoint FROM progress").Scan(&at)
	return at, err
}

func (c *downstreamCopy) handle(ctx context.Context, events []eventstore.Event) error {
	tx, err := c.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // after Commit there is nothing to roll back
	for _, e := range events {
		if err := apply(ctx, tx, e); err != nil {
			return err
		}
	}
	moved, err := tx.ExecContext(ctx, "UPDATE progress SET checkpoint = ? WHERE checkpoint = ?", events[len(events)-1].Position, events[0].Position-1)
	if err != nil {
		return err
	}
	if n, err := moved.RowsAffected(); err != nil || n != 1 {
		return fmt.Errorf("the checkpoint is not right before %d (%w)", events[0].Position, err)
	}
	return tx.Commit()
}

func apply(ctx context.Context, tx *sql.Tx, e eventstore.Event) error {
	user := e.Stream.Subject.String()
	var err error
	switch {
	case e.Type == eventstore.TypeErased:
		_, err = tx.ExecContext(ctx, "DELETE FROM users WHERE id = ?", user)
	case e.Forgotten: // its user.erased comes later
	case e.Type == identity.TypeUserRegistered:
		p, failed := identity.Decode[identity.Registered](e)
		if failed != nil {
			return failed
		}
		_, err = tx.ExecContext(ctx, "INSERT INTO users VALUES (?, ?, ?)", user, p.Personal.Email, p.Personal.Name)
	case e.Type == identity.TypeUserProfileUpdated:
		p, failed := identity.Decode[identity.ProfileUpdated](e)
		if failed != nil {
			return failed
		}
		_, err = tx.ExecContext(ctx, "UPDATE users SET name = coalesce(?, name) WHERE id = ?", p.Personal.Name, user)
	}
	return err
}

// wantCopied fails unless the copy has the users of a log that are not erased, and nobody else.
func (c *downstreamCopy) wantCopied(t *testing.T, log []event) {
	t.Helper()
	got := map[string]string{}
	rows, err := c.db.QueryContext(t.Context(), "SELECT id, name FROM users")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var id, name string
		if err := rows.Scan(&id, &name); err != nil {
			t.Fatal(err)
		}
		got[id] = name
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(namesOf(log), got); diff != "" {
		t.Errorf("users by name (-log +copy):\n%s", diff)
	}
}

// follow runs a subscription of the copy until it is where the log is once everything is done that is done meanwhile.
func (c *downstreamCopy) follow(d *deployment, feed *subscription.Feed, meanwhile func()) {
	t := d.t
	t.Helper()
	js, err := jetstream.New(d.connect())
	if err != nil {
		t.Fatal(err)
	}
	s := subscription.Subscription{JetStream: js, Name: "copy", Checkpoint: c.checkpoint, Handle: c.handle, Source: feed, MaxBatch: 20}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	meanwhile()
	log := d.history()
	eventually(t, "the copy is where the log is", func() error {
		at, err := c.checkpoint(t.Context())
		if err == nil && at < int64(len(log)) {
			err = fmt.Errorf("it is at %d of %d", at, len(log))
		}
		return err
	})
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run() = %v, want nil", err)
	}
	c.wantCopied(t, log)
}

// A service copies all users from the feed while users register and are erased, and follows the stream from there. It is
// stopped until the limit of the stream has removed what it had not seen, and goes on all the same: users who were erased
// meanwhile, or are being erased, go from the copy as well.
func TestCopyOfAllUsers(t *testing.T) {
	t.Parallel()
	d, _ := newRunningServer(t)
	p, c := d.startServe("--with", "publisher")
	name, value := bearer(c.login(t, d.admin))
	erase := func(r registration) {
		c.want(t, http.StatusNoContent, "DELETE", "/v1/users/"+r.ID, nil, name, value)
	}
	register := func(kind string, n int) (list []registration) {
		for i := range n {
			list = append(list, c.mustRegister(t, fmt.Sprintf("%s%d@example.org", kind, i)))
		}
		return list
	}
	var own confidential // the service's, with no more rights than it needs
	if err := json.Unmarshal([]byte(d.command("clients", "add", "copy", "--scope", "events:read users:read", "--json")), &own); err != nil {
		t.Fatal(err)
	}
	feed := func() *subscription.Feed {
		return &subscription.Feed{URL: c.base, Client: &subscription.ClientCredentials{ID: own.ID, Secret: subscription.Secret(own.Secret)}}
	}
	users := newDownstreamCopy(t)

	early := register("early", 30)
	erase(early[0])
	erase(early[1])
	var meanwhile sync.WaitGroup
	meanwhile.Go(func() {
		for i, r := range register("meanwhile", 10) {
			erase(early[2+i])
			if i%3 == 0 {
				erase(r)
			}
		}
	})
	read := 0
	for from := feed(); ; {
		at, err := users.checkpoint(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		events, err := from.ReadAll(t.Context(), at, 7)
		if err != nil {
			t.Fatal(err)
		}
		if len(events) == 0 {
			break
		}
		if err := users.handle(t.Context(), events); err != nil {
			t.Fatal(err)
		}
		read += len(events)
	}
	if read < 30 {
		t.Errorf("%d events were read from the feed", read)
	}
	users.follow(d, feed(), func() {
		meanwhile.Wait()
		erase(early[12])
		c.want(t, http.StatusOK, "PATCH", "/v1/users/"+early[13].ID, map[string]string{"name": "Another"}, name, value)
	})
	at, err := users.checkpoint(t.Context())
	if err != nil {
		t.Fatal(err)
	}

	p.stop(t)
	d.env = append(d.env, "STREAM_MAX_BYTES=16384")
	_, c = d.startServe("--with", "publisher")
	erase(early[14])
	c.want(t, http.StatusOK, "PATCH", "/v1/users/"+early[15].ID, map[string]string{"name": "Yet another"}, name, value)
	late := register("late", 40)
	js, err := jetstream.New(d.connect())
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the stream has lost what the copy needs next", func() error {
		stream, err := js.Stream(t.Context(), "USHER")
		if err == nil && stream.CachedInfo().State.FirstSeq <= uint64(at)+10 {
			err = fmt.Errorf("it begins at %d, and the copy is at %d", stream.CachedInfo().State.FirstSeq, at)
		}
		return err
	})
	alone := subscription.Subscription{JetStream: js, Name: "alone", Checkpoint: users.checkpoint, Handle: users.handle}
	if err := alone.Run(t.Context()); !errors.Is(err, subscription.ErrGap) {
		t.Errorf("without the feed Run() = %v, want %v", err, subscription.ErrGap)
	}
	users.follow(d, feed(), func() {
		erase(early[16])
		erase(late[0])
		erase(late[39])
	})
}
