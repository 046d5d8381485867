package webhook

import (
	"testing"

	"github.com/google/uuid"
)

func TestDeliveryID(t *testing.T) {
	t.Parallel()
	hook, other := uuid.Must(uuid.NewV7()), uuid.Must(uuid.NewV7())
	for _, position := range []int64{0, 1, 255, 256, 4095, 4096, 1<<32 + 7, 1<<60 - 1} {
		id := deliveryID(hook, position)
		if id.Version() != 8 || id.Variant() != uuid.RFC4122 {
			t.Errorf("deliveryID(%d) = %s, which is no UUIDv8", position, id)
		}
		if got, ok := positionOf(hook, id); !ok || got != position {
			t.Errorf("positionOf(%s) = %d, %v, want %d", id, got, ok, position)
		}
		if got, ok := positionOf(other, id); ok {
			t.Errorf("positionOf(%s) of another webhook = %d, want none", id, got)
		}
	}
	if got, ok := positionOf(hook, uuid.Must(uuid.NewV7())); ok {
		t.Errorf("positionOf() of some id = %d, want none", got)
	}
}
