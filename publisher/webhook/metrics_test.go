package webhook_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"usher.example/publisher/webhook"
)

// gathered is the metrics, a line each; of a histogram, the count.
func gathered(t *testing.T, m *webhook.Metrics) string {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(m)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for _, f := range families {
		for _, metric := range f.GetMetric() {
			text.WriteString(f.GetName())
			for _, label := range metric.GetLabel() {
				fmt.Fprintf(&text, "{%s}", label.GetValue())
			}
			value := metric.GetGauge().GetValue() + metric.GetCounter().GetValue() + float64(metric.GetHistogram().GetSampleCount())
			fmt.Fprintf(&text, " %v\n", value)
		}
	}
	return text.String()
}
