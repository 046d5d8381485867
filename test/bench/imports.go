package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"usher.example/eventstore"
	"usher.example/identity"
	"usher.example/identity/password"
	"usher.example/identity/userfile"
)

// importedAtOnce is how many users a round brings in.
const importedAtOnce = 20_000

func importBenches() []bench {
	return []bench{{
		about: fmt.Sprintf("bring in %d users with their password hashes, from a file", importedAtOnce),
		lines: []line{{
			name: "import", subject: usher, yardstick: bare, against: "COPY of the same rows into one table with its keys", show: rate,
			targets: []target{rateAtLeast(0.1)},
		}},
		setup: importSides,
	}}
}

// newcomers is a file of users whom nobody has seen before.
func newcomers() ([]byte, []identity.ImportedUser, error) {
	hash, err := password.New("a long passphrase", password.MinCost)
	if err != nil {
		return nil, nil, err
	}
	var file bytes.Buffer
	w, err := userfile.NewWriter(&file, userfile.JSONLines)
	if err != nil {
		return nil, nil, err
	}
	list := make([]identity.ImportedUser, importedAtOnce)
	for i := range list {
		unique := uuid.New().String()
		list[i] = identity.ImportedUser{Email: "somebody-" + unique + "@example.org", Name: "Some Body " + unique[:4], Hash: hash, EmailVerified: true,
			Roles: []string{"writer"}, Attributes: json.RawMessage(`{"plan":"paid"}`), CreatedAt: time.Date(2019, 3, 1, 10, 0, i%60, 0, time.UTC)}
		if err := w.Write(list[i]); err != nil {
			return nil, nil, err
		}
	}
	err = w.Flush()
	return file.Bytes(), list, err
}

func importSides(s *stage) ([]side, error) {
	l, err := s.openLog(eventstore.Options{})
	if err != nil {
		return nil, err
	}
	pool, err := s.pool(l.dsn, 1)
	if err != nil {
		return nil, err
	}
	_, err = pool.Exec(s.ctx, `CREATE TABLE bare_imports (id uuid PRIMARY KEY, email text UNIQUE, name text, hash text, email_verified boolean,
		roles text[], attributes jsonb, created_at timestamptz)`)
	if err != nil {
		return nil, err
	}
	users := identity.New(identity.Config{Log: l.log, Store: l.store, DB: l.store, Logger: quiet})
	var file []byte
	var list []identity.ImportedUser
	prepare := func(context.Context) (err error) {
		file, list, err = newcomers()
		return err
	}
	return []side{
		{name: usher, prepare: prepare, run: func(ctx context.Context, _ time.Duration) (tally, error) {
			return importFile(ctx, users, file)
		}},
		{name: bare, prepare: prepare, run: func(ctx context.Context, _ time.Duration) (tally, error) {
			return copyUsers(ctx, pool, list)
		}},
	}, nil
}

func importFile(ctx context.Context, users *identity.Service, file []byte) (t tally, err error) {
	r, err := userfile.NewReader(bytes.NewReader(file), "")
	if err != nil {
		return t, err
	}
	var refused error
	err = userfile.Import(ctx, users, r, eventstore.Metadata{Correlation: uuid.New(), Actor: identity.ActorOperator}, false, func(r userfile.Result) {
		if r.Outcome == userfile.Imported {
			t.ops++
		} else if refused == nil {
			refused = fmt.Errorf("line %d: %s: %s", r.Line, r.Outcome, r.Reason)
		}
	})
	return t, errors.Join(err, refused)
}

func copyUsers(ctx context.Context, pool *pgxpool.Pool, list []identity.ImportedUser) (tally, error) {
	columns := []string{"id", "email", "name", "hash", "email_verified", "roles", "attributes", "created_at"}
	n, err := pool.CopyFrom(ctx, pgx.Identifier{"bare_imports"}, columns, pgx.CopyFromSlice(len(list), func(i int) ([]any, error) {
		u := list[i]
		return []any{[16]byte(uuid.New()), u.Email, u.Name, string(u.Hash), u.EmailVerified, u.Roles, string(u.Attributes), u.CreatedAt}, nil
	}))
	return tally{ops: int(n)}, err
}
