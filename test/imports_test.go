// Package test holds what crosses packages and processes.
package test

import (
	"maps"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// arrows says which rooms a room may import, itself aside. It is the drawing of CONTRIBUTING.md, as a test.
var arrows = map[string][]string{
	"schema":            {},
	"token":             {},
	"eventstore":        {},
	"words":             {},
	"brand":             {},
	"identity":          {"eventstore"},
	"identity/mail":     {"brand", "eventstore", "identity", "subscription", "words"},
	"subscription":      {"eventstore"},
	"publisher":         {"eventstore"},
	"publisher/webhook": {"eventstore", "identity", "subscription"},
	"projections":       {"eventstore", "identity", "subscription"},
	"client":            {"eventstore", "identity", "subscription", "token"},
	"server":            {"client", "eventstore", "identity", "token"},
	"api":               {"client", "eventstore", "identity", "projections", "publisher/webhook", "schema", "server", "token"},
	"pages/look":        {"brand", "words"},
	"oidc":              {"client", "eventstore", "identity", "pages/look", "publisher/webhook", "schema", "server", "token"},
	"pages":             {"pages/look", "brand", "client", "eventstore", "identity", "projections", "schema", "server", "token", "words"},
	"internal/devstack": {},
	"examples":          {"eventstore", "subscription", "token"}, // what other services may stand on
}

// surfaces are the rooms that stand on server side by side: none imports another, and nothing below imports one.
var surfaces = []string{"api", "oidc", "pages", "console"}

// anything are the rooms where everything meets.
var anything = []string{"cmd/usher", "test", "internal/eventcheck"}

func TestImportArrows(t *testing.T) {
	t.Parallel()
	list := exec.Command("go", "list", "-f", `{{.Module.Path}} {{.ImportPath}} {{join .Imports " "}}`, "./...")
	list.Dir = ".."
	out, err := list.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		module := fields[0] + "/"
		fields = fields[1:]
		from := room(module, fields[0])
		if slices.Contains(anything, from) {
			continue
		}
		allowed, known := arrows[from]
		if !known {
			t.Errorf("%s is in no room: add it to arrows, or move it", fields[0])
			continue
		}
		for _, path := range fields[1:] {
			if to := room(module, path); strings.HasPrefix(path, module) && to != from && !slices.Contains(allowed, to) {
				t.Errorf("%s imports %s, which is against the arrows", fields[0], path)
			}
		}
	}
	for from, allowed := range arrows {
		for _, to := range allowed {
			if slices.Contains(surfaces, to) {
				t.Errorf("%s may import %s: surfaces know nothing of each other, and nothing below knows of them", from, to)
			}
		}
	}
}

// room is the room that a package belongs to: its top folder, or a folder with arrows of its own.
func room(module, path string) string {
	path = strings.TrimPrefix(path, module)
	for _, r := range append(slices.Collect(maps.Keys(arrows)), anything...) {
		if strings.Contains(r, "/") && (path == r || strings.HasPrefix(path, r+"/")) {
			return r
		}
	}
	top, _, _ := strings.Cut(path, "/")
	return top
}
