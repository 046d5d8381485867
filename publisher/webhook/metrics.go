package webhook

import "github.com/prometheus/client_golang/prometheus"

// Metrics tells how the deliveries of a worker go. It is a prometheus.Collector. The nil Metrics tells nobody.
type Metrics struct {
	deliveries *prometheus.CounterVec
	seconds    prometheus.Histogram
}

// NewMetrics makes the metrics of a worker.
func NewMetrics() *Metrics {
	m := &Metrics{
		deliveries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "usher_webhook_deliveries_total", Help: "Attempts by outcome: delivered, retry (another one follows) or dead.",
		}, []string{"outcome"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "usher_webhook_delivery_seconds", Help: "How long an attempt took.",
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
		}),
	}
	for _, outcome := range []string{outcomeDelivered, outcomeRetry, outcomeDead} {
		m.deliveries.WithLabelValues(outcome)
	}
	return m
}

const (
	outcomeDelivered = "delivered"
	outcomeRetry     = "retry"
	outcomeDead      = "dead"
)

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) {
	m.deliveries.Describe(ch)
	m.seconds.Describe(ch)
}

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	m.deliveries.Collect(ch)
	m.seconds.Collect(ch)
}

func (m *Metrics) observe(p *parcel) {
	if m == nil {
		return
	}
	outcome := map[DeliveryStatus]string{
		DeliveryDelivered: outcomeDelivered, DeliveryPending: outcomeRetry, DeliveryDead: outcomeDead,
	}[p.status]
	m.deliveries.WithLabelValues(outcome).Inc()
	m.seconds.Observe(p.took.Seconds())
}
