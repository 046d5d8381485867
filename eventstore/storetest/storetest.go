// Package storetest is the conformance suite and the benchmark suite that every store passes: what package eventstore
// guarantees, tried on a real database, with several processes on it at once where that matters.
//
// A store's test file has this much of it:
//
//	var backend = storetest.Backend{Fresh: migrated, Open: open}
//
//	func TestMain(m *testing.M)    { storetest.Child(backend); os.Exit(m.Run()) }
//	func TestStore(t *testing.T)   { storetest.Run(t, backend) }
//	func BenchmarkStore(b *testing.B) { storetest.Bench(b, backend) }
//
// The flag -soak, or USHER_SOAK=1 in the environment, makes the tests that race and kill go on for far longer.
package storetest

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/google/uuid"

	"usher.example/eventstore"
)

var soak = flag.Bool("soak", os.Getenv("USHER_SOAK") != "", "race and kill for far longer")

// dose is a number of rounds: short by default, many times that with -soak.
func dose(short int) int {
	if *soak {
		return 30 * short
	}
	return short
}

// Database is a store as one process has it open.
type Database interface {
	eventstore.Store
	eventstore.DB
	Close()
}

// Backend is a store under test.
type Backend struct {
	// Fresh makes an empty, migrated database, which is removed at the end of the test, and answers with its name.
	Fresh func(tb testing.TB) string
	// Open opens a database by that name. Each call stands for one more process, and some are made by one.
	Open func(ctx context.Context, name string) (Database, error)
}

// Run runs the suite.
func Run(t *testing.T, b Backend) { run(t, b, suite) }

// Core runs the part of the suite that stands on how statements reach the server, for another way to a store that passes all of it.
func Core(t *testing.T, b Backend) { run(t, b, suite[:core]) }

func run(t *testing.T, b Backend, tests []conformance) {
	for _, c := range tests {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.test(t, b)
		})
	}
}

type conformance struct {
	name string
	test func(*testing.T, Backend)
}

// suite is every test, and first come those of the core.
var suite = []conformance{
	{"Expected", testExpected},
	{"Content", testContent},
	{"Sizes", testSizes},
	{"Batch", testBatch},
	{"GivenAtOnce", testGivenAtOnce},
	{"Reservations", testReservations},
	{"State", testState},
	{"CommandsAtOnce", testCommandsAtOnce},
	{"EraseAtOnce", testEraseAtOnce},
	{"Pages", testPages},
	{"Tail", testTail},
	{"OneWinner", testOneWinner},
	{"CancelledAfterSent", testCancelledAfterSent},
	{"Transact", testTransact},
	{"Lease", testLease},
	{"Killed", testKilled},

	{"SeveralEvents", testSeveralEvents},
	{"RecordedAt", testRecordedAt},
	{"Invalid", testInvalid},
	{"ClosedStreams", testClosedStreams},
	{"Given", testGiven},
	{"GivenInABatch", testGivenInABatch},
	{"StateOfFailedAppends", testStateOfFailedAppends},
	{"StateRules", testStateRules},
	{"Commands", testCommands},
	{"SealedAtRest", testSealedAtRest},
	{"Tampered", testTampered},
	{"Forgotten", testForgotten},
	{"Erase", testErase},
	{"EraseInABatch", testEraseInABatch},
	{"EraseRefused", testEraseRefused},
	{"WrongMasterKey", testWrongMasterKey},
	{"Unlock", testUnlock},
	{"Rotation", testRotation},
	{"RotationNoticed", testRotationNoticed},
	{"RotationGoesOn", testRotationGoesOn},
	{"AnyVersionSealed", testAnyVersionSealed},
	{"LargeParts", testLargeParts},
	{"Head", testHead},
	{"Confirm", testConfirm},
	{"Anchor", testAnchor},
	{"Upcast", testUpcast},
	{"OneEmail", testOneEmail},
	{"BadNeighbour", testBadNeighbour},
	{"CancelledWhileWaiting", testCancelledWhileWaiting},
	{"Overload", testOverload},
	{"Close", testClose},
}

// core is how many of them there are.
const core = 16

// process is the log as one process has it.
type process struct {
	*eventstore.Log
	db Database
}

// deployment is a database and the master key that belongs to it.
type deployment struct {
	backend Backend
	name    string
	master  eventstore.MasterKey
}

func deploy(tb testing.TB, b Backend) deployment {
	tb.Helper()
	master, _ := eventstore.NewMasterKey()
	return deployment{b, b.Fresh(tb), master}
}

func (d deployment) open(tb testing.TB) Database {
	tb.Helper()
	db, err := d.backend.Open(tb.Context(), d.name)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(db.Close)
	return db
}

func (d deployment) process(tb testing.TB) process {
	tb.Helper()
	return d.processOn(tb, d.open(tb), eventstore.Options{})
}

func (d deployment) processOn(tb testing.TB, db Database, o eventstore.Options) process {
	tb.Helper()
	log := eventstore.New(db, d.master, o)
	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(tb.Context()), 30*time.Second)
		defer cancel()
		if err := log.Close(ctx); err != nil {
			tb.Error(err)
		}
	})
	return process{log, db}
}

// setup is a process alone on a fresh database.
func setup(tb testing.TB, b Backend) process {
	tb.Helper()
	return deploy(tb, b).process(tb)
}

// newID makes a UUIDv7.
func newID() uuid.UUID { return uuid.Must(uuid.NewV7()) }

// fact is an event without personal fields that tells n.
func fact(n int) eventstore.NewEvent {
	return eventstore.NewEvent{Type: "thing.happened", Data: fmt.Appendf(nil, `{"n": %d}`, n)}
}

// facts is an append of one fact to a stream, whatever its version.
func facts(stream eventstore.Stream) eventstore.Append {
	return eventstore.Append{Stream: stream, Expected: eventstore.AnyVersion, Events: []eventstore.NewEvent{fact(1)}}
}

// registration is what the registration of a user appends: every kind of row at once.
func registration(user uuid.UUID, email string) eventstore.Append {
	personal, err := json.Marshal(map[string]string{"email": email, "name": "Ada " + email})
	if err != nil {
		panic(err)
	}
	return eventstore.Append{
		Stream: eventstore.UserStream(user),
		Events: []eventstore.NewEvent{{Type: "user.registered", Data: json.RawMessage(`{"roles": ["user"]}`), Personal: personal}},
		Metadata: eventstore.Metadata{
			Correlation: user, Actor: "anonymous", Address: "192.0.2.7", UserAgent: "Browser/1.0",
		},
		Reserve:   []eventstore.Reservation{{Scope: "email", Value: email}},
		State:     []eventstore.StateChange{credential(user, "hash of "+email)},
		CreateKey: true,
	}
}

func credential(user uuid.UUID, hash string) eventstore.StateChange {
	return stateRow("credentials", map[string]any{"user_id": user, "hash": hash, "changed_at": "2026-03-01T12:00:00.123456Z"})
}

func stateRow(table string, columns map[string]any) eventstore.StateChange {
	row, err := json.Marshal(columns)
	if err != nil {
		panic(err)
	}
	return eventstore.StateChange{Table: table, Row: row}
}

// mustAppend appends, and ends the test where that fails.
func mustAppend(tb testing.TB, log interface {
	Append(context.Context, eventstore.Append) (eventstore.Result, error)
}, a eventstore.Append) eventstore.Result {
	tb.Helper()
	r, err := log.Append(tb.Context(), a)
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

// wantError fails the test unless err is the one wanted.
func wantError(tb testing.TB, what string, err, want error) {
	tb.Helper()
	if !errors.Is(err, want) {
		tb.Errorf("%s: %v, want %v", what, err, want)
	}
}

// wantHead fails the test unless the log ends at a position.
func wantHead(tb testing.TB, s eventstore.Store, want int64) {
	tb.Helper()
	if head, err := s.Head(tb.Context()); head != want || err != nil {
		tb.Errorf("Head = %d, %v, want %d", head, err, want)
	}
}

// wantRows fails the test unless a query counts so many rows.
func wantRows(tb testing.TB, db eventstore.DB, want int, query string, args ...any) {
	tb.Helper()
	var n int
	if err := db.QueryRow(tb.Context(), query, args...).Scan(&n); err != nil {
		tb.Fatalf("%s: %v", query, err)
	}
	if n != want {
		tb.Errorf("%s: %d rows, want %d", query, n, want)
	}
}

// change runs a statement beside the log.
func change(tb testing.TB, db eventstore.DB, statement string, args ...any) {
	tb.Helper()
	if _, err := db.Exec(tb.Context(), statement, args...); err != nil {
		tb.Fatalf("%s: %v", statement, err)
	}
}

// readAll reads the whole log.
func readAll(tb testing.TB, log *eventstore.Log) []eventstore.Event {
	tb.Helper()
	var all []eventstore.Event
	for {
		page, err := log.ReadAll(tb.Context(), int64(len(all)), 1000)
		if err != nil {
			tb.Fatal(err)
		}
		if len(page) == 0 {
			return all
		}
		all = append(all, page...)
	}
}
