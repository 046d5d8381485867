package api

import (
	"github.com/prometheus/client_golang/prometheus"

	"usher.example/identity/password"
	"usher.example/server"
)

type metrics struct {
	refreshes *prometheus.CounterVec
}

// newMetrics registers the metrics of what the API does. Outcomes are codes.
func newMetrics(registry prometheus.Registerer, pool *password.Pool) metrics {
	m := metrics{
		refreshes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "usher_refreshes_total", Help: "Refreshes of tokens by outcome: ok or the code of the problem.",
		}, []string{"outcome"}),
	}
	registry.MustRegister(m.refreshes)
	if pool != nil {
		registry.MustRegister(
			prometheus.NewGaugeFunc(prometheus.GaugeOpts{
				Name: "usher_hashing_queue", Help: "Callers that wait for a password to be hashed.",
			}, func() float64 { return float64(pool.Queued()) }),
			prometheus.NewGaugeFunc(prometheus.GaugeOpts{
				Name: "usher_hashing_busy", Help: "Workers that hash a password.",
			}, func() float64 { return float64(pool.Busy()) }),
			prometheus.NewGaugeFunc(prometheus.GaugeOpts{
				Name: "usher_hashing_workers", Help: "Workers that hash passwords.",
			}, func() float64 { return float64(pool.Workers()) }),
		)
	}
	return m
}

func (m *metrics) refreshed(err error) { m.refreshes.WithLabelValues(server.Outcome(err)).Inc() }
