package main

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"usher.example/eventstore"
	"usher.example/identity"
)

// A stored hash, as long as all are.
const aHash = "$bcrypt-sha256$v=2,t=2b,r=12$abcdefghijklmnopqrstuu$ABCDEFGHIJKLMNOPQRSTUVWXYZ01234"

// registered is the event that begins a new user.
func registered(id uuid.UUID) identity.Registered {
	var p identity.Registered
	p.Personal.Email = "somebody-" + id.String()[24:] + "@example.org"
	p.Personal.Name = "Some Body"
	return p
}

func requestMetadata(id uuid.UUID) eventstore.Metadata {
	return eventstore.Metadata{Correlation: id, Actor: identity.ActorAnonymous, Address: "192.0.2.17", UserAgent: "Mozilla/5.0 (X11; Linux x86_64)"}
}

func credentialRow(id uuid.UUID) ([]byte, error) {
	return json.Marshal(map[string]any{"user_id": id, "hash": aHash, "changed_at": time.Now().UTC()})
}

// registration is what a registration appends once the password is hashed: see identity.Service.Register.
func registration() (eventstore.Append, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return eventstore.Append{}, err
	}
	return registrationOf(id)
}

func registrationOf(id uuid.UUID) (eventstore.Append, error) {
	p := registered(id)
	row, err := credentialRow(id)
	return eventstore.Append{
		Stream:    eventstore.UserStream(id),
		Expected:  eventstore.NoStream,
		Events:    []eventstore.NewEvent{identity.NewEvent(p)},
		Metadata:  requestMetadata(id),
		Reserve:   []eventstore.Reservation{{Scope: "email", Value: p.Personal.Email}},
		State:     []eventstore.StateChange{{Table: "credentials", New: true, Row: row}},
		CreateKey: true,
	}, err
}

// registerBare writes the rows of a registration in one transaction of its own, in one round trip.
func registerBare(ctx context.Context, pool *pgxpool.Pool, sealer *eventstore.Sealer) error {
	id, err := uuid.NewV7()
	if err != nil {
		return err
	}
	event, err := uuid.NewV7()
	if err != nil {
		return err
	}
	p := registered(id)
	data, personal := identity.Encode(p)
	m := requestMetadata(id)
	meta, err := json.Marshal(m)
	if err != nil {
		return err
	}
	origin, err := json.Marshal(map[string]string{"address": m.Address, "user_agent": m.UserAgent})
	if err != nil {
		return err
	}
	sealed, wrapped, err := sealNew(sealer, id, append(personal[:len(personal):len(personal)], origin...))
	if err != nil {
		return err
	}
	var b pgx.Batch
	b.Queue("BEGIN")
	b.Queue("INSERT INTO streams (stream, kind, version) VALUES ($1, 'user', 1)", id)
	b.Queue(`INSERT INTO events (position, stream, kind, subject, version, event_id, type, schema_version, data, personal, metadata, recorded_at)
		VALUES (nextval('bare_position'), $1, 'user', $1, 1, $2, $3, 1, $4, $5, $6, now())`,
		id, event, p.EventType(), string(data), sealed, string(meta))
	b.Queue("INSERT INTO reservations (scope, key, stream) VALUES ('email', $1, $2)",
		sealer.ReservationKey(eventstore.Reservation{Scope: "email", Value: p.Personal.Email}), id)
	b.Queue("INSERT INTO user_keys (user_id, wrapped) VALUES ($1, $2)", id, wrapped)
	b.Queue("INSERT INTO credentials (user_id, hash, changed_at) VALUES ($1, $2, $3)", id, aHash, time.Now().UTC())
	b.Queue("COMMIT")
	if err := pool.SendBatch(ctx, &b).Close(); err != nil {
		return fmt.Errorf("register in a transaction: %w", err)
	}
	return nil
}

// sealNew seals something under a new data key, and wraps the key.
func sealNew(sealer *eventstore.Sealer, id uuid.UUID, plain []byte) (sealed, wrapped []byte, err error) {
	key := make([]byte, 32)
	rand.Read(key)
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, nil, err
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, nil, err
	}
	sealed = make([]byte, aead.NonceSize(), aead.NonceSize()+len(plain)+aead.Overhead())
	rand.Read(sealed)
	return aead.Seal(sealed, sealed, plain, id[:]), sealer.SealState("user_keys/"+id.String(), key), nil
}
