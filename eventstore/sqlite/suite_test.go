package sqlite_test

import (
	"context"
	"os"
	"testing"

	"usher.example/eventstore/sqlite"
	"usher.example/eventstore/storetest"
)

var backend = storetest.Backend{
	Fresh: migrated,
	Open:  func(ctx context.Context, path string) (storetest.Database, error) { return sqlite.Open(ctx, path) },
}

func TestMain(m *testing.M) {
	storetest.Child(backend)
	os.Exit(m.Run())
}

func TestStore(t *testing.T)      { storetest.Run(t, backend) }
func BenchmarkStore(b *testing.B) { storetest.Bench(b, backend) }
