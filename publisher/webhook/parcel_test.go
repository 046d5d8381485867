package webhook

import (
	"testing"

	"github.com/google/uuid"
)

func TestDeliveryID(t *testing.T) {
	t.Parallel()
	hook, event := uuid.Must(uuid.NewV7()), uuid.Must(uuid.NewV7())
	other := hook
	other[15]++
	for _, position := range []int64{0, 1, 255, 256, 4095, 4096, 1<<32 + 7, 1<<62 - 1} {
		id := deliveryID(hook, event, position)
		if id.Version() != 7 || id.Variant() != uuid.RFC4122 || id.Time() != event.Time() {
			t.Errorf("deliveryID(%d) = %s, which is no UUIDv7 of the time of %s", position, id, event)
		}
		if got, ok := positionOf(hook, id); !ok || got != position {
			t.Errorf("positionOf(%s) = %d, %v, want %d", id, got, ok, position)
		}
		if got, ok := positionOf(other, id); ok {
			t.Errorf("positionOf(%s) of another webhook = %d, want none", id, got)
		}
	}
	if got, ok := positionOf(hook, uuid.New()); ok {
		t.Errorf("positionOf() of a UUIDv4 = %d, want none", got)
	}
}
