package main

import (
	"context"
	"database/sql"
	"time"

	"usher.example/eventstore"
	"usher.example/eventstore/sqlite"
	"usher.example/schema"
)

func sqliteBench() bench {
	return bench{
		about: "append plain events on SQLite, WAL, synchronous FULL, 32 callers",
		lines: []line{{
			name: "sqlite-32", subject: usher, yardstick: bare, against: "one transaction an event, prepared", show: rate,
			targets: []target{cpuAtMost(0.5)},
		}},
		setup: sqliteSides,
	}
}

func sqliteSides(s *stage) ([]side, error) {
	const callers = 32
	path, err := s.sqliteFile()
	if err != nil {
		return nil, err
	}
	store, err := sqlite.Open(s.ctx, path)
	if err != nil {
		return nil, err
	}
	s.after(func() error { store.Close(); return nil })
	master, _ := eventstore.NewMasterKey()
	log := eventstore.New(store, master, eventstore.Options{})
	writer, err := openBareSQLite(s)
	if err != nil {
		return nil, err
	}
	ours, theirs := plainStreams(callers), plainStreams(callers)
	return []side{
		{name: usher, run: func(ctx context.Context, length time.Duration) (tally, error) {
			return hammer(ctx, callers, length, func(ctx context.Context, caller int) error {
				return ours[caller].append(ctx, log)
			})
		}},
		{name: bare, run: func(ctx context.Context, length time.Duration) (tally, error) {
			return hammer(ctx, callers, length, func(ctx context.Context, caller int) error {
				return writer.write(ctx, &theirs[caller])
			})
		}},
	}, nil
}

// sqliteFile is a new, migrated file.
func (s *stage) sqliteFile() (string, error) {
	path, err := s.file("usher.db")
	if err != nil {
		return "", err
	}
	m, err := schema.SQLite(path)
	if err != nil {
		return "", err
	}
	if _, err := m.Up(s.ctx); err != nil {
		return "", err
	}
	return path, m.Close()
}

// bareSQLite writes one event a transaction, with prepared statements, over the one connection that may write.
type bareSQLite struct {
	db            *sql.DB
	stream, event *sql.Stmt
}

func openBareSQLite(s *stage) (*bareSQLite, error) {
	path, err := s.sqliteFile()
	if err != nil {
		return nil, err
	}
	w := &bareSQLite{}
	w.db, err = sql.Open("sqlite", "file:"+path+"?_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=cache_size(-16384)&_txlock=immediate")
	if err != nil {
		return nil, err
	}
	s.after(w.db.Close)
	w.db.SetMaxOpenConns(1)
	if w.stream, err = w.db.PrepareContext(s.ctx, `INSERT INTO streams (stream, kind, version) VALUES ($1, 'user', $2)
		ON CONFLICT (stream) DO UPDATE SET version = excluded.version`); err != nil {
		return nil, err
	}
	w.event, err = w.db.PrepareContext(s.ctx, `INSERT INTO events (stream, kind, subject, version, event_id, type, schema_version, data, metadata, recorded_at)
		VALUES ($1, 'user', $1, $2, $3, $4, 1, $5, $6, $7)`)
	return w, err
}

func (w *bareSQLite) write(ctx context.Context, p *plainStream) error {
	event, data, meta, err := p.encoded()
	if err != nil {
		return err
	}
	tx, err := w.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	id := p.id.String()
	if _, err := tx.StmtContext(ctx, w.stream).ExecContext(ctx, id, p.version); err != nil {
		return err
	}
	if _, err := tx.StmtContext(ctx, w.event).ExecContext(ctx, id, p.version, event.String(), plainEvent().EventType(),
		string(data), string(meta), time.Now().UTC().Format("2006-01-02 15:04:05.000000")); err != nil {
		return err
	}
	return tx.Commit()
}
