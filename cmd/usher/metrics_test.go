package main

import (
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// scrape reads /metrics, and fails the test where what is there is not in Prometheus's form.
func scrape(t *testing.T, address string) string {
	t.Helper()
	response, err := http.Get("http://" + address + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	raw, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatal(response.Status, err)
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	if _, err := parser.TextToMetricFamilies(strings.NewReader(string(raw))); err != nil {
		t.Fatalf("/metrics: %v\n%s", err, raw)
	}
	return string(raw)
}

func TestMetricsTellHowFarTheDeploymentIs(t *testing.T) {
	t.Parallel()
	dir := runningDev(t)
	wanted := []string{
		"usher_log_head_position 5", "usher_relay_position 5", "usher_relay_lag_events 0", "usher_relay_lag_seconds 0", "usher_relay_running 1",
		"usher_relay_halted 0", `usher_projection_position{projection="users"} 5`, `usher_projection_running{projection="users"} 1`,
		`usher_projection_lag_seconds{projection="users"} 0`, `usher_projection_parked_events{projection="users"} 0`,
		"usher_events_appended_total 5", "usher_commit_duration_seconds_count", "usher_hashing_queue 0", "go_goroutines",
	}
	var missing []string
	for deadline := time.Now().Add(time.Minute); ; {
		missing = nil
		if at, err := readAddresses(filepath.Clean(dir)); err == nil {
			text := scrape(t, at.Metrics)
			for _, line := range wanted {
				if !strings.Contains(text, "\n"+line) {
					missing = append(missing, line)
				}
			}
			if missing == nil {
				return
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("/metrics lacks %q", missing)
		}
	}
}

func TestHealth(t *testing.T) {
	t.Parallel()
	dir := runningDev(t)
	var last outcome
	for deadline := time.Now().Add(time.Minute); ; {
		if at, err := readAddresses(dir); err == nil {
			if last = usher(t, dir, []string{"METRICS_ADDR=" + at.Metrics}, "health"); last.code == exitDone {
				break
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("usher health: %+v", last)
		}
	}
	if last.stdout != "ready\n" {
		t.Errorf("usher health prints %q", last.stdout)
	}
	usher(t, dir, []string{"METRICS_ADDR=127.0.0.1:1"}, "health").wantRefused(t, "no process answers at METRICS_ADDR")
}
