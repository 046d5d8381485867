package identity

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"

	"usher.example/eventstore"
)

// DeviceToken is the opaque text by which a device is known again on which a user was logged in before. Guesses with it are
// counted apart, so that what strangers fail at keeps nobody out who comes from there. It proves nothing else: a login takes
// the password all the same. It can't be printed by accident.
//
// Its content is, in base64url: its form (1 byte, 1), the user's id, the device's id (16 bytes each), and an HMAC-SHA-256 over
// all that, under a key that is in no database. It is good while the user's password is the one that it was given for, and
// until every session of the user is ended, for one of a bounded number of devices a user.
type DeviceToken string

func (DeviceToken) String() string       { return "[hidden]" }
func (DeviceToken) GoString() string     { return "[hidden]" }
func (DeviceToken) LogValue() slog.Value { return slog.StringValue("[hidden]") }

const (
	deviceForm    = 1
	deviceContent = 1 + 16 + 16
	deviceLength  = deviceContent + sha256.Size

	// maxDevices bounds the devices of a user that are known. One that never came back makes room first, then the one that was
	// away for longest.
	maxDevices = 50
	// deviceSeen is how often it is noted that a device is in use.
	deviceSeen = 24 * time.Hour
	// deviceMemory is for how long one is known that does not come back.
	deviceMemory = 400 * 24 * time.Hour
)

func (s *Service) deviceToken(user, device uuid.UUID) DeviceToken {
	raw := make([]byte, 1, deviceLength)
	raw[0] = deviceForm
	raw = append(append(raw, user[:]...), device[:]...)
	return DeviceToken(refreshText.EncodeToString(append(raw, s.codeMAC("device", string(raw))...)))
}

// parseDevice is the device of a token; the nil UUID for everything that deviceToken did not make.
func (s *Service) parseDevice(t DeviceToken) uuid.UUID {
	if len(t) != refreshText.EncodedLen(deviceLength) {
		return uuid.Nil
	}
	raw, err := refreshText.DecodeString(string(t))
	if err != nil || len(raw) != deviceLength || raw[0] != deviceForm || !hmac.Equal(raw[deviceContent:], s.codeMAC("device", string(raw[:deviceContent]))) {
		return uuid.Nil
	}
	return uuid.UUID(raw[17:deviceContent])
}

// device is what is known of a device on which somebody logs in.
type device struct {
	id            uuid.UUID // the nil UUID for none that is known
	created, used time.Time
	others        int // devices of the user
}

// store is the row of a device of a user. It is good with the password that was set at a time.
func (d device) store(user uuid.UUID, passwordSet time.Time) eventstore.StateChange {
	return stateRow("known_devices", map[string]any{
		"user_id": user, "device_id": d.id, "password_set_at": passwordSet.UTC(), "created_at": d.created.UTC(), "used_at": d.used.UTC(),
	})
}

// remember knows a device again on which a user has shown who it is, with the password that was set at a time: for the append
// that follows, and for the answer to it.
func (s *Service) remember(ctx context.Context, user uuid.UUID, d device, passwordSet time.Time) (DeviceToken, []eventstore.StateChange, error) {
	now := s.now().UTC()
	if d.id != uuid.Nil {
		if now.Sub(d.used) < deviceSeen {
			return s.deviceToken(user, d.id), nil, nil
		}
		d.used = now
		return s.deviceToken(user, d.id), []eventstore.StateChange{d.store(user, passwordSet)}, nil
	}
	id, err := uuid.NewV7()
	if err != nil {
		return "", nil, err
	}
	changes := []eventstore.StateChange{device{id: id, created: now, used: now}.store(user, passwordSet)}
	if d.others >= maxDevices {
		dropped, err := s.spareDevices(ctx, user, passwordSet, d.others-maxDevices+1)
		if err != nil {
			return "", nil, err
		}
		changes = append(changes, dropped...)
	}
	return s.deviceToken(user, id), changes, nil
}

// spareDevices are the state changes that make room for another device.
func (s *Service) spareDevices(ctx context.Context, user uuid.UUID, passwordSet time.Time, n int) (drops []eventstore.StateChange, err error) {
	rows, err := s.db.Query(ctx, `
		SELECT device_id FROM known_devices WHERE user_id = $1
		 ORDER BY CASE WHEN password_set_at <> $2 THEN 0 WHEN used_at = created_at THEN 1 ELSE 2 END, used_at, device_id LIMIT $3`,
		user, passwordSet.UTC(), n)
	if err != nil {
		return nil, fmt.Errorf("list known devices: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var id uuid.UUID
		if err := rows.Scan(&id); err != nil {
			return nil, fmt.Errorf("list known devices: %w", err)
		}
		drops = append(drops, dropRow("known_devices", map[string]any{"user_id": user, "device_id": id}))
	}
	return drops, rows.Err()
}

// forgetDevices has no device of a user known any more.
func (s *Service) forgetDevices(ctx context.Context, user uuid.UUID) error {
	if _, err := s.db.Exec(ctx, `DELETE FROM known_devices WHERE user_id = $1`, user); err != nil {
		return fmt.Errorf("forget known devices: %w", err)
	}
	return nil
}

// dropUnusedDevices removes the devices that did not come back for long.
func (s *Service) dropUnusedDevices(ctx context.Context) error {
	if _, err := s.db.Exec(ctx, `DELETE FROM known_devices WHERE used_at <= $1`, s.now().UTC().Add(-deviceMemory)); err != nil {
		return fmt.Errorf("remove unused devices: %w", err)
	}
	return nil
}
