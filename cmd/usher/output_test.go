package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func TestCounted(t *testing.T) {
	t.Parallel()
	for n, want := range map[int64]string{0: "0 events", 1: "1 event", 2: "2 events"} {
		if got := counted(n, "event", "events"); got != want {
			t.Errorf("counted(%d) = %q, want %q", n, got, want)
		}
	}
}

// Nothing is told as 1 events: where there may be one of something, it is counted.
func TestEverythingIsCounted(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("*.go")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	several := regexp.MustCompile(`%d (?:[a-z]+ )?([a-z]{3,}s)\b`)
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, found := range several.FindAllStringSubmatch(string(source), -1) {
			t.Errorf("%s tells of %q without counted", file, found[0])
		}
	}
}
