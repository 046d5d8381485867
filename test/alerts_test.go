package test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"
)

// Every alert has a runbook, and every runbook an alert; every metric that they ask for is one of the code's.
// deploy/prometheus/test.sh tests what they say.
func TestAlerts(t *testing.T) {
	t.Parallel()
	deploy := filepath.Join("..", "deploy")
	raw, err := os.ReadFile(filepath.Join(deploy, "prometheus", "usher.rules.yml"))
	if err != nil {
		t.Fatal(err)
	}
	var rules struct {
		Groups []struct {
			Rules []struct {
				Alert, Expr string
				Annotations map[string]string
			}
		}
	}
	if err := yaml.Unmarshal(raw, &rules); err != nil {
		t.Fatal(err)
	}
	source := goSource(t)
	var wanted []string
	metric := regexp.MustCompile(`\busher_\w+`)
	for _, group := range rules.Groups {
		for _, rule := range group.Rules {
			wanted = append(wanted, rule.Alert+".md")
			if rule.Annotations["runbook"] != "deploy/runbooks/"+rule.Alert+".md" || rule.Annotations["summary"] == "" {
				t.Errorf("%s: annotations %v", rule.Alert, rule.Annotations)
			}
			for _, name := range metric.FindAllString(rule.Expr, -1) {
				if !strings.Contains(source, `"`+name+`"`) {
					t.Errorf("%s asks for %s, which the code does not have", rule.Alert, name)
				}
			}
		}
	}
	var runbooks []string
	entries, err := os.ReadDir(filepath.Join(deploy, "runbooks"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		runbooks = append(runbooks, e.Name())
	}
	slices.Sort(wanted)
	if !slices.Equal(wanted, runbooks) {
		t.Errorf("alerts want the runbooks %q, there are %q", wanted, runbooks)
	}
}

// goSource is all Go code that is no test.
func goSource(t *testing.T) string {
	t.Helper()
	var all strings.Builder
	err := filepath.WalkDir("..", func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
			return err
		}
		raw, err := os.ReadFile(path)
		all.Write(raw)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all.String()
}
