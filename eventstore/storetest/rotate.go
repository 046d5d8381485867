package storetest

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"usher.example/eventstore"
)

// signingKeys is a column that identity seals.
var signingKeys = eventstore.SealedColumn{
	Table: "signing_keys", Column: "private", Key: []string{"kid"},
	Scan:  func() []any { return []any{new(string)} },
	Place: func(row []any) string { return "signing_keys/" + *row[0].(*string) },
}

// unlocked is a process that was given some master keys.
func (d deployment) unlocked(tb testing.TB, given ...eventstore.MasterKey) process {
	tb.Helper()
	db := d.open(tb)
	master, err := eventstore.Unlock(tb.Context(), db, given...)
	if err != nil {
		tb.Fatal(err)
	}
	d.master = master
	return d.processOn(tb, db, eventstore.Options{})
}

// putSigningKey keeps a secret in a state table, sealed by a process.
func putSigningKey(tb testing.TB, p process, kid string) {
	tb.Helper()
	change(tb, p.db, `INSERT INTO signing_keys (kid, algorithm, private, created_at, signs_from, token_seconds) VALUES ($1, 'ES256', $2, $3, $3, 60)`,
		kid, p.Sealer().SealState("signing_keys/"+kid, []byte("secret of "+kid)), time.Now().UTC())
}

func wantSigningKey(tb testing.TB, p process, kid string) {
	tb.Helper()
	var sealed []byte
	if err := p.db.QueryRow(tb.Context(), `SELECT private FROM signing_keys WHERE kid = $1`, kid).Scan(&sealed); err != nil {
		tb.Fatal(err)
	}
	if plain, err := p.Sealer().OpenState("signing_keys/"+kid, sealed); err != nil || string(plain) != "secret of "+kid {
		tb.Errorf("the secret of %s is %q, %v", kid, plain, err)
	}
}

// wantUsers fails the test unless a process can open all registrations, which are so many at least.
func wantUsers(tb testing.TB, p process, want int) {
	tb.Helper()
	all, opened := 0, 0
	for _, e := range readAll(tb, p.Log) {
		if e.Type == "user.registered" {
			all++
		}
		if len(e.Personal) > 0 {
			opened++
		}
	}
	if opened != all || all < want {
		tb.Errorf("%d of %d registrations can be opened, want %d at least", opened, all, want)
	}
}

// idOf is a master key's id as tables have it.
func idOf(tb testing.TB, m eventstore.MasterKey) []byte {
	tb.Helper()
	id, err := hex.DecodeString(m.ID())
	if err != nil {
		tb.Fatal(err)
	}
	return id
}

// Everything that one master key seals is sealed under another while users come and go; then the old key is good for nothing.
func testRotation(t *testing.T, b Backend) {
	d := deploy(t, b)
	from, _ := eventstore.NewMasterKey()
	to, _ := eventstore.NewMasterKey()
	before := d.unlocked(t, from)
	const users = 600 // two batches
	var group errgroup.Group
	group.SetLimit(32)
	for i := range users {
		group.Go(func() error {
			_, err := before.Append(t.Context(), registration(newID(), fmt.Sprintf("u%d@example.org", i)))
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	putSigningKey(t, before, "k1")
	held := before.Sealer().ReservationKey(eventstore.Reservation{Scope: "email", Value: "u7@example.org"})

	both := d.unlocked(t, to, from) // a process that was started for the rotation
	var appended atomic.Int64
	ctx, stop := context.WithCancel(t.Context())
	var beside errgroup.Group
	for w := range 2 {
		beside.Go(func() error {
			for i := 0; ctx.Err() == nil; i++ {
				if _, err := both.Append(t.Context(), registration(newID(), fmt.Sprintf("w%d-%d@example.org", w, i))); err != nil {
					return err
				}
				appended.Add(1)
			}
			return nil
		})
	}
	// One that is cut short after its first batch, then two at once, of which one may find nothing left to do.
	cut, cancel := context.WithCancel(t.Context())
	rotation := eventstore.Rotation{DB: d.open(t), From: from, To: to, Columns: []eventstore.SealedColumn{signingKeys}, Settle: time.Millisecond}
	first := rotation
	first.Progress = func(int) { cancel() }
	if _, err := first.Run(cut); !errors.Is(err, context.Canceled) {
		t.Fatalf("cut short: %v", err)
	}
	wantUsers(t, both, users+int(appended.Load()))
	var done atomic.Int64
	var rotations errgroup.Group
	for range 2 {
		again := rotation
		again.DB = d.open(t)
		rotations.Go(func() error {
			changed, err := again.Run(t.Context())
			if changed {
				done.Add(1)
			}
			return err
		})
	}
	err := rotations.Wait()
	stop()
	if err := errors.Join(err, beside.Wait()); err != nil {
		t.Fatal(err)
	}
	if done.Load() == 0 {
		t.Error("neither rotation says that it is done")
	}
	if changed, err := rotation.Run(t.Context()); changed || err != nil {
		t.Errorf("once more: %v, %v, want nothing to do", changed, err)
	}

	after := d.unlocked(t, to)
	for _, p := range []process{after, both} {
		wantUsers(t, p, users+int(appended.Load()))
		wantSigningKey(t, p, "k1")
		if key := p.Sealer().ReservationKey(eventstore.Reservation{Scope: "email", Value: "u7@example.org"}); string(key) != string(held) {
			t.Error("addresses are looked up by another key")
		}
	}
	wantRows(t, after.db, 0, `SELECT count(*) FROM user_keys WHERE substr(wrapped, 2, 8) <> $1`, idOf(t, to))
	if _, err := eventstore.Unlock(t.Context(), d.open(t), from); !errors.Is(err, eventstore.ErrWrongMasterKey) {
		t.Errorf("with the old key: %v, want ErrWrongMasterKey", err)
	}

	// A process that knows nothing of it can't lose anything: what it would seal under the old key is refused.
	_, err = before.Append(t.Context(), registration(newID(), "late@example.org"))
	wantError(t, "append under the old key", err, eventstore.ErrMasterKeyRetired)
	wantRows(t, after.db, 0, `SELECT count(*) FROM reservations WHERE key = $1`,
		after.Sealer().ReservationKey(eventstore.Reservation{Scope: "email", Value: "late@example.org"}))
	_, err = before.db.Exec(t.Context(), `UPDATE signing_keys SET private = $1`, before.Sealer().SealState("signing_keys/k1", []byte("x")))
	wantError(t, "state under the old key", err, eventstore.ErrMasterKeyRetired)

	back := eventstore.Rotation{DB: d.open(t), From: to, To: from, Settle: time.Millisecond}
	_, err = back.Run(t.Context())
	wantError(t, "back to a retired key", err, eventstore.ErrRotation)
}

// A process that seals under the old key at the moment it is refused notices, and seals under the new one.
func testRotationNoticed(t *testing.T, b Backend) {
	d := deploy(t, b)
	from, _ := eventstore.NewMasterKey()
	to, _ := eventstore.NewMasterKey()
	mustAppend(t, d.unlocked(t, from), registration(newID(), "ada@example.org"))
	both := d.unlocked(t, to, from) // looks again only after seconds
	rotation := eventstore.Rotation{DB: d.open(t), From: from, To: to, Settle: time.Millisecond}
	if changed, err := rotation.Run(t.Context()); !changed || err != nil {
		t.Fatalf("%v, %v", changed, err)
	}
	mustAppend(t, both, registration(newID(), "bob@example.org"))
	wantUsers(t, d.unlocked(t, to), 2)
}

// What can't be opened keeps nothing else from being sealed anew, and the old key from being retired, until somebody sees to it.
func testRotationGoesOn(t *testing.T, b Backend) {
	d := deploy(t, b)
	from, _ := eventstore.NewMasterKey()
	to, _ := eventstore.NewMasterKey()
	before := d.unlocked(t, from)
	for _, kid := range []string{"k1", "k2", "k3"} {
		putSigningKey(t, before, kid)
	}
	read := func(kid string) (sealed []byte) {
		t.Helper()
		if err := before.db.QueryRow(t.Context(), `SELECT private FROM signing_keys WHERE kid = $1`, kid).Scan(&sealed); err != nil {
			t.Fatal(err)
		}
		return sealed
	}
	whole := read("k2")
	change(t, before.db, `UPDATE signing_keys SET private = $1 WHERE kid = 'k2'`, whole[:len(whole)-1])
	rotation := eventstore.Rotation{DB: d.open(t), From: from, To: to, Columns: []eventstore.SealedColumn{signingKeys}, Settle: time.Millisecond}
	if changed, err := rotation.Run(t.Context()); changed || err == nil || !strings.Contains(err.Error(), "open signing_keys/k2") {
		t.Errorf("Run() = %v, %v, want what of k2", changed, err)
	}
	for kid, under := range map[string]eventstore.MasterKey{"k1": to, "k2": from, "k3": to} {
		if !bytes.Contains(read(kid)[:16], idOf(t, under)) {
			t.Errorf("%s is not sealed under the key that it should be", kid)
		}
	}
	change(t, before.db, `UPDATE signing_keys SET private = $1 WHERE kid = 'k2'`, whole)
	if changed, err := rotation.Run(t.Context()); !changed || err != nil {
		t.Errorf("Run() = %v, %v, want that it is done", changed, err)
	}
	after := d.unlocked(t, to)
	for _, kid := range []string{"k1", "k2", "k3"} {
		wantSigningKey(t, after, kid)
	}
}

// A database says which of the keys it needs.
func testUnlock(t *testing.T, b Backend) {
	d := deploy(t, b)
	from, _ := eventstore.NewMasterKey()
	to, _ := eventstore.NewMasterKey()
	other, _ := eventstore.NewMasterKey()
	var group errgroup.Group // several that begin at once agree on one root
	roots := make([]string, 4)
	for i := range roots {
		db := d.open(t)
		group.Go(func() error {
			m, err := eventstore.Unlock(t.Context(), db, from)
			roots[i] = string(m.Derive("x"))
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	db := d.open(t)
	unlock := func(want error, keys ...eventstore.MasterKey) {
		t.Helper()
		m, err := eventstore.Unlock(t.Context(), db, keys...)
		wantError(t, "Unlock", err, want)
		if want == nil && string(m.Derive("x")) != roots[0] {
			t.Error("the root is another")
		}
	}
	unlock(nil, from)
	unlock(nil, to, from) // before the rotation begins
	unlock(eventstore.ErrWrongMasterKey, other)
	cut, cancel := context.WithCancel(t.Context())
	mustAppend(t, d.unlocked(t, from), registration(newID(), "ada@example.org"))
	rotation := eventstore.Rotation{DB: db, From: from, To: to, Progress: func(int) { cancel() }, Settle: time.Hour}
	if _, err := rotation.Run(cut); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	unlock(nil, to, from)
	unlock(eventstore.ErrWrongMasterKey, to)
	unlock(eventstore.ErrWrongMasterKey, from)
	rotation.From, rotation.To = to, other
	_, err := rotation.Run(t.Context())
	wantError(t, "a second rotation meanwhile", err, eventstore.ErrRotation)
}
