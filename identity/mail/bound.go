package mail

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"usher.example/eventstore"
	"usher.example/identity"
)

// bound is how many mails of a kind one address gets. They are counted by the address that they go to, whoever asked for them
// and by whatever route: many users could each ask for one to somebody who has nothing to do with usher.
type bound struct {
	pause time.Duration // between two
	limit int           // within boundWindow
}

var (
	codeBound   = bound{time.Minute, 5}
	noticeBound = bound{0, 10} // more than anybody does to an account of their own
)

const (
	boundWindow = time.Hour
	// patience is how long a mail waits for its turn; one that would have to wait longer is not sent.
	patience = 2 * time.Minute
)

func (k kind) bound() bound {
	switch k {
	case kindVerify, kindReset, kindEmail, kindRegisteredAgain:
		return codeBound
	}
	return noticeBound
}

// wait is how long the next mail has to wait, given when those before it were sent, the oldest first.
func (b bound) wait(sent []time.Time, now time.Time) (wait time.Duration) {
	if n := len(sent); n > 0 {
		wait = sent[n-1].Add(b.pause).Sub(now)
		if n >= b.limit {
			wait = max(wait, sent[n-b.limit].Add(boundWindow).Sub(now))
		}
	}
	return max(wait, 0)
}

// sentTo is when mails of a kind were sent to an address of late, the oldest first.
func (m *Mailer) sentTo(ctx context.Context, k kind, to identity.Email) (sent []time.Time, err error) {
	var raw json.RawMessage
	err = m.DB.QueryRow(ctx, `SELECT sent FROM mail_targets WHERE target = $1 AND forget_at > $2`, m.target(k, to), m.now()).Scan(&raw)
	if errors.Is(err, eventstore.ErrNoRows) {
		return nil, nil
	}
	if err == nil {
		err = json.Unmarshal(raw, &sent)
	}
	if err != nil {
		return nil, fmt.Errorf("count mails to an address: %w", err)
	}
	return sent, nil
}

// countTo notes that one more mail was sent to an address, and forgets what is too old to matter, of whatever address.
func (m *Mailer) countTo(ctx context.Context, k kind, to identity.Email, before []time.Time) error {
	now := m.now()
	sent := append(before, now)
	sent = sent[max(0, len(sent)-k.bound().limit):]
	raw, err := json.Marshal(sent)
	if err != nil {
		return err
	}
	_, err = m.DB.Exec(ctx, `
		INSERT INTO mail_targets (target, sent, forget_at) VALUES ($1, $2, $3)
		ON CONFLICT (target) DO UPDATE SET sent = excluded.sent, forget_at = excluded.forget_at`, m.target(k, to), string(raw), now.Add(boundWindow))
	if err == nil {
		_, err = m.DB.Exec(ctx, `DELETE FROM mail_targets WHERE forget_at <= $1`, now)
	}
	if err != nil {
		return fmt.Errorf("count mails to an address: %w", err)
	}
	return nil
}

// target is what is stored of an address: it can't be told from it which one it is.
func (m *Mailer) target(k kind, to identity.Email) []byte {
	mac := hmac.New(sha256.New, m.DeviceKey)
	mac.Write([]byte("target"))
	mac.Write([]byte{0})
	mac.Write([]byte(k))
	mac.Write([]byte{0})
	mac.Write([]byte(to.Key()))
	return mac.Sum(nil)
}
