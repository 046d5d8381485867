package mail

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
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
	// mailboxBound is more than the codes of every kind that one address gets, so it is only reached with several.
	mailboxBound = bound{0, 30}
)

const (
	boundWindow = time.Hour
	// patience is how long a mail waits for its turn; one that would have to wait longer is not sent.
	patience = 2 * time.Minute
)

func (k kind) bound() bound {
	if k.carriesCode() || k == kindRegisteredAgain {
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

// count is what was sent of late of what counts together, the oldest first.
type count struct {
	bound  bound
	target []byte
	sent   []time.Time
}

// counts are those that a mail of a kind to an address belongs to: that of the kind and the address and, for what strangers can ask
// for, that of the mailbox, which many addresses may lead to.
func (m *Mailer) counts(ctx context.Context, k kind, to identity.Email) ([]count, error) {
	list := []count{{bound: k.bound(), target: m.target(string(k), to.Key())}}
	if k.bound() == codeBound {
		list = append(list, count{bound: mailboxBound, target: m.target("mailbox", untagged(to.Key()))})
	}
	for i := range list {
		var raw json.RawMessage
		err := m.DB.QueryRow(ctx, `SELECT sent FROM mail_targets WHERE target = $1 AND forget_at > $2`, list[i].target, m.now()).Scan(&raw)
		if errors.Is(err, eventstore.ErrNoRows) {
			continue
		}
		if err == nil {
			err = json.Unmarshal(raw, &list[i].sent)
		}
		if err != nil {
			return nil, fmt.Errorf("count mails to an address: %w", err)
		}
	}
	return list, nil
}

// untagged is an address without what its local part has after a plus sign, which many servers deliver to the same mailbox.
func untagged(address string) string {
	at := strings.LastIndexByte(address, '@')
	local, _, _ := strings.Cut(address[:at], "+")
	return local + address[at:]
}

// counted notes that one more mail was sent, also where ctx has ended, and forgets what is too old to matter, of whatever address.
func (m *Mailer) counted(ctx context.Context, list []count) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), noteTimeout)
	defer cancel()
	now := m.now()
	for _, c := range list {
		sent := append(c.sent, now)
		raw, err := json.Marshal(sent[max(0, len(sent)-c.bound.limit):])
		if err == nil {
			_, err = m.DB.Exec(ctx, `
				INSERT INTO mail_targets (target, sent, forget_at) VALUES ($1, $2, $3)
				ON CONFLICT (target) DO UPDATE SET sent = excluded.sent, forget_at = excluded.forget_at`, c.target, string(raw), now.Add(boundWindow))
		}
		if err != nil {
			return fmt.Errorf("count mails to an address: %w", err)
		}
	}
	if _, err := m.DB.Exec(ctx, `DELETE FROM mail_targets WHERE forget_at <= $1`, now); err != nil {
		return fmt.Errorf("count mails to an address: %w", err)
	}
	return nil
}

// target is what is stored of an address: it can't be told from it which one it is.
func (m *Mailer) target(what, address string) []byte {
	mac := hmac.New(sha256.New, m.DeviceKey)
	for _, part := range []string{"target", what} {
		mac.Write([]byte(part))
		mac.Write([]byte{0})
	}
	mac.Write([]byte(address))
	return mac.Sum(nil)
}
