package devstack_test

import (
	"os"
	"testing"

	"usher/internal/devstack"
)

func TestMain(m *testing.M) { os.Exit(devstack.Main(m)) }
