package webhook

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"usher.example/eventstore"
	"usher.example/eventstore/sqlite"
	"usher.example/schema"
)

// The example of the specification of Standard Webhooks.
func TestSign(t *testing.T) {
	t.Parallel()
	raw, err := base64.StdEncoding.DecodeString("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	if err != nil {
		t.Fatal(err)
	}
	keys := keyRing{{Number: 1, Secret: raw}}
	got := newSigner(keys).sign("msg_p5jXN8AQM9LWM0D4loKWxJek", time.Unix(1614265330, 0), []byte(`{"test": 2432232314}`))
	if want := "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="; got != want {
		t.Errorf("sign() = %s, want %s", got, want)
	}
}

func TestRotate(t *testing.T) {
	t.Parallel()
	now := time.Now()
	keys := keyRing{newKey(1)}
	first := keys[0].reveal()
	keys, err := keys.rotate(now)
	if err != nil {
		t.Fatal(err)
	}
	second := keys[0].reveal()
	if first == second || !strings.HasPrefix(second.Reveal(), "whsec_") {
		t.Error("the new secret is the old one")
	}
	for _, c := range []struct {
		after      time.Duration
		signatures int
		by         []Secret
		notBy      []Secret
	}{
		{0, 2, []Secret{first, second}, nil},
		{rotationGrace - time.Second, 2, []Secret{first, second}, nil},
		{rotationGrace, 1, []Secret{second}, []Secret{first}},
	} {
		at := now.Add(c.after)
		value := newSigner(keys).sign("id", at, []byte("body"))
		if n := len(strings.Split(value, " ")); n != c.signatures {
			t.Errorf("after %v: %d signatures, want %d: %s", c.after, n, c.signatures, value)
		}
		header := http.Header{}
		header.Set(headerID, "id")
		header.Set(headerTimestamp, fmt.Sprint(at.Unix()))
		header.Set(headerSignature, value)
		for _, s := range append(c.by, c.notBy...) {
			verifier, err := standardwebhooks.NewWebhook(s.Reveal())
			if err != nil {
				t.Fatal(err)
			}
			if err := verifier.VerifyIgnoringTimestamp([]byte("body"), header); (err == nil) != (s == second || len(c.notBy) == 0) {
				t.Errorf("after %v: %v", c.after, err)
			}
		}
	}
	if got, ok := keys.first(now); !ok || got != first {
		t.Error("the first secret is not known any more")
	}
	if _, ok := keys.first(now.Add(rotationGrace)); ok {
		t.Error("the first secret is still there after its time")
	}
	for range maxKeys - 2 {
		if keys, err = keys.rotate(now); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := keys.rotate(now); !errors.Is(err, ErrConflict) {
		t.Errorf("one rotation too many: %v, want ErrConflict", err)
	}
	if keys, err = keys.rotate(now.Add(rotationGrace)); err != nil || len(keys) != 2 {
		t.Errorf("a day later: %d secrets, %v, want 2", len(keys), err)
	}
}

func TestSecretsAreSealed(t *testing.T) {
	t.Parallel()
	master, _ := eventstore.NewMasterKey()
	sealer := eventstore.NewSealer(master, nil)
	id := uuid.Must(uuid.NewV7())
	keys := keyRing{newKey(1)}
	sealed := keys.seal(sealer, id)
	if strings.Contains(string(sealed), base64.StdEncoding.EncodeToString(keys[0].Secret)) {
		t.Error("the secret is stored in the clear")
	}
	opened, err := openKeyRing(sealer, id, sealed)
	if err != nil || opened[0].reveal() != keys[0].reveal() {
		t.Errorf("openKeyRing() = %v", err)
	}
	if _, err := openKeyRing(sealer, uuid.Must(uuid.NewV7()), sealed); err == nil {
		t.Error("the secrets open as those of another webhook")
	}
}

// A rotation of the master key finds whatever is sealed under it.
func TestSealedUnderAnotherMasterKey(t *testing.T) {
	t.Parallel()
	ctx, path := t.Context(), filepath.Join(t.TempDir(), "usher.db")
	m, err := schema.SQLite(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err = m.Up(ctx); errors.Join(err, m.Close()) != nil {
		t.Fatal(err)
	}
	db, err := sqlite.Open(ctx, path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	from, _ := eventstore.NewMasterKey()
	to, _ := eventstore.NewMasterKey()
	master, err := eventstore.Unlock(ctx, db, from)
	if err != nil {
		t.Fatal(err)
	}
	sealer, keys, now := eventstore.NewSealer(master, nil), keyRing{newKey(1)}, time.Now().UTC()
	id, event := uuid.Must(uuid.NewV7()), uuid.Must(uuid.NewV7())
	delivery := deliveryID(id, event, 7)
	if _, err := db.Exec(ctx, `INSERT INTO webhooks (id, url, events, secrets, request, created_at, updated_at) VALUES ($1, 'x', '[]', $2, $3, $4, $4)`,
		id, keys.seal(sealer, id), []byte{}, now); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec(ctx, `INSERT INTO webhook_deliveries (webhook, position, subject, is_user, event_id, type, status, attempts, reason, response, created_at)
		VALUES ($1, 7, $1, false, $2, 'key.rotated', 'dead', 1, 'x', $3, $4)`, id, event, sealer.SealState(responsePlace(delivery), []byte("no")), now); err != nil {
		t.Fatal(err)
	}
	rotation := eventstore.Rotation{DB: db, From: from, To: to, Columns: SealedColumns, Settle: time.Millisecond}
	if changed, err := rotation.Run(ctx); !changed || err != nil {
		t.Fatalf("rotate: %v, %v", changed, err)
	}
	if master, err = eventstore.Unlock(ctx, db, to); err != nil {
		t.Fatal(err)
	}
	sealer = eventstore.NewSealer(master, nil)
	var secrets, response []byte
	if err := db.QueryRow(ctx, `SELECT secrets, response FROM webhooks, webhook_deliveries WHERE id = webhook`).Scan(&secrets, &response); err != nil {
		t.Fatal(err)
	}
	if opened, err := openKeyRing(sealer, id, secrets); err != nil || opened[0].reveal() != keys[0].reveal() {
		t.Errorf("the secrets: %v", err)
	}
	if plain, err := sealer.OpenState(responsePlace(delivery), response); err != nil || string(plain) != "no" {
		t.Errorf("the answer: %q, %v", plain, err)
	}
}

func TestSecretIsNotPrinted(t *testing.T) {
	t.Parallel()
	s := newKey(1).reveal()
	var log strings.Builder
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", slog.Any("secret", s), slog.Any("in", struct{ Secret Secret }{s}))
	raw, err := json.Marshal(map[string]any{"secret": s})
	if err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("%v %+v %#v %s %q", s, s, s, s, []Secret{s}) + log.String() + string(raw)
	if bare := strings.TrimPrefix(s.Reveal(), secretPrefix); strings.Contains(text, bare) || !strings.Contains(text, hidden) {
		t.Errorf("printed as %s", text)
	}
}
