package devstack_test

import (
	"os"
	"testing"

	"usher.example/internal/devstack"
)

func TestMain(m *testing.M) { os.Exit(devstack.Main(m)) }
