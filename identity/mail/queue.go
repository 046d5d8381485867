package mail

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"

	"usher.example/eventstore"
	"usher.example/identity"
)

// kind says what a mail is about.
type kind string

// The kinds. The first three carry a code.
const (
	kindVerify          = kind(identity.PurposeVerify)
	kindReset           = kind(identity.PurposeReset)
	kindEmail           = kind(identity.PurposeEmail)
	kindPasswordChanged = kind("password_changed")
	kindEmailChanged    = kind("email_changed")
	kindRegisteredAgain = kind("registered_again")
	kindTOTPEnabled     = kind("totp_enabled")
	kindTOTPDisabled    = kind("totp_disabled")
	kindRecoveryCodes   = kind("recovery_codes")
	kindNewDevice       = kind("new_device")
)

// kinds are all of them.
var kinds = []kind{
	kindVerify, kindReset, kindEmail, kindPasswordChanged, kindEmailChanged, kindRegisteredAgain, kindTOTPEnabled, kindTOTPDisabled, kindRecoveryCodes, kindNewDevice,
}

// carriesCode says whether a mail of this kind has a link with a code in it.
func (k kind) carriesCode() bool { return k == kindVerify || k == kindReset || k == kindEmail }

// maxAge is how old an event may be when it is first read, to call for a mail: mail may have been switched off for long.
const maxAge = 3 * 24 * time.Hour

func (m *Mailer) checkpoint(ctx context.Context) (position int64, err error) {
	err = m.DB.QueryRow(ctx, `SELECT checkpoint FROM subscriptions WHERE name = $1`, name).Scan(&position)
	return position, err
}

// errMoved: the checkpoint is not where the events begin. Another process has moved it, or this one, and was not told.
var errMoved = errors.New("the checkpoint was moved")

// handle writes down what a batch of events calls for, in the transaction that moves the checkpoint, if they are the log's.
// It fails with eventstore.ErrForeign.
func (m *Mailer) handle(ctx context.Context, events []eventstore.Event) error {
	from, to := events[0].Position-1, events[len(events)-1].Position
	err := m.DB.Transact(ctx, func(tx eventstore.DB) error {
		moved, err := tx.Exec(ctx, `UPDATE subscriptions SET checkpoint = $3, updated_at = $4 WHERE name = $1 AND checkpoint = $2`,
			name, from, to, m.now())
		if err != nil {
			return err
		}
		if moved != 1 {
			return errMoved
		}
		if err := eventstore.Confirm(ctx, tx, events); err != nil {
			return err
		}
		for _, e := range events {
			if err := m.note(ctx, tx, e); err != nil {
				return fmt.Errorf("note %s at %d: %w", e.Type, e.Position, err)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	select {
	case m.wake <- struct{}{}:
	default:
	}
	return nil
}

// note writes down the mail that an event calls for, if it does.
func (m *Mailer) note(ctx context.Context, tx eventstore.DB, e eventstore.Event) error {
	var k kind
	switch e.Type {
	case identity.TypeUserRegistered, identity.TypeUserEmailVerificationRequested:
		k = kindVerify
	case identity.TypeUserRegisteredAgain:
		k = kindRegisteredAgain
	case identity.TypeUserPasswordResetRequested:
		k = kindReset
	case identity.TypeUserEmailChangeRequested:
		k = kindEmail
	case identity.TypeUserPasswordChanged:
		p, err := identity.Decode[identity.PasswordChanged](e)
		if err != nil { // rather one notice too many, than none for anybody from here on
			m.logger.ErrorContext(ctx, "why a password changed can't be read", slog.Int64("position", e.Position), slog.Any("error", err))
		}
		if p.Reason == identity.ReasonRehash || p.Reason == identity.ReasonImport { // what was changed elsewhere was told there
			return nil
		}
		k = kindPasswordChanged
	case identity.TypeUserEmailChanged:
		k = kindEmailChanged
	case identity.TypeUserTOTPEnabled:
		k = kindTOTPEnabled
	case identity.TypeUserTOTPDisabled:
		k = kindTOTPDisabled
	case identity.TypeUserRecoveryCodesGenerated:
		k = kindRecoveryCodes
	case identity.TypeSessionStarted:
		if fresh, err := m.seen(ctx, tx, e); err != nil || !fresh {
			return err
		}
		k = kindNewDevice
	case identity.TypeUserErased:
		return forget(ctx, tx, e.Stream.Subject)
	default:
		return nil
	}
	if m.Now().Sub(e.RecordedAt) > maxAge {
		m.sent.WithLabelValues(string(k), outcomeStale).Inc()
		return nil
	}
	if k.carriesCode() { // a code that was not sent yet would be of no use after this one
		if _, err := tx.Exec(ctx, `DELETE FROM mails WHERE user_id = $1 AND kind = $2`, e.Stream.Subject, string(k)); err != nil {
			return err
		}
	}
	_, err := tx.Exec(ctx, `INSERT INTO mails (position, user_id, kind, due_at, attempts, claimed) VALUES ($1, $2, $3, $4, 0, false)`,
		e.Position, e.Stream.Subject, string(k), m.now())
	return err
}

// forget removes everything about a user.
func forget(ctx context.Context, tx eventstore.DB, user uuid.UUID) error {
	for _, table := range []string{"mails", "devices"} {
		if _, err := tx.Exec(ctx, `DELETE FROM `+table+` WHERE user_id = $1`, user); err != nil {
			return err
		}
	}
	return nil
}

// Bounds of what is known of a user's devices.
const (
	maxDevices   = 50 // the one that was used longest ago makes room for another
	maxNotices   = 5  // of new devices, within noticeWindow: whoever knows the password could send any number
	noticeWindow = time.Hour
)

// seen notes which device a session began on, and says whether the user is to be told: it is one that the user was not
// seen with, and not the first. A device is a user agent at an address.
func (m *Mailer) seen(ctx context.Context, tx eventstore.DB, e eventstore.Event) (fresh bool, err error) {
	user := e.Stream.Subject
	if e.Metadata.Address == "" && e.Metadata.UserAgent == "" {
		return false, nil
	}
	device := m.deviceHash(user, e.Metadata.Address, e.Metadata.UserAgent)
	var all, known, recent int
	err = tx.QueryRow(ctx, `
		SELECT count(*), count(CASE WHEN device = $2 THEN 1 END), count(CASE WHEN first_at > $3 THEN 1 END)
		  FROM devices WHERE user_id = $1`, user, device, e.RecordedAt.Add(-noticeWindow)).Scan(&all, &known, &recent)
	if err != nil {
		return false, err
	}
	if known == 0 && all >= maxDevices {
		_, err := tx.Exec(ctx, `
			DELETE FROM devices WHERE user_id = $1
			   AND device = (SELECT device FROM devices WHERE user_id = $1 ORDER BY last_at, device LIMIT 1)`, user)
		if err != nil {
			return false, err
		}
	}
	_, err = tx.Exec(ctx, `
		INSERT INTO devices (user_id, device, first_at, last_at) VALUES ($1, $2, $3, $3)
		ON CONFLICT (user_id, device) DO UPDATE SET last_at = excluded.last_at`, user, device, e.RecordedAt)
	return all > 0 && known == 0 && recent < maxNotices, err
}

// deviceHash is what is stored of a device: whoever has the database alone learns neither address nor user agent, and not
// that two users share them.
func (m *Mailer) deviceHash(user uuid.UUID, address, userAgent string) []byte {
	mac := hmac.New(sha256.New, m.DeviceKey)
	mac.Write(user[:])
	mac.Write([]byte(address))
	mac.Write([]byte{0})
	mac.Write([]byte(userAgent))
	return mac.Sum(nil)
}
