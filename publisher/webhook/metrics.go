package webhook

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics tells how deliveries go. The nil Metrics tells nobody.
type Metrics struct {
	deliveries    *prometheus.CounterVec
	seconds       prometheus.Histogram
	pending, dead atomic.Int64
	collectors    []prometheus.Collector
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
	m.collectors = []prometheus.Collector{
		m.deliveries, m.seconds,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "usher_webhook_pending", Help: "Deliveries that are pending, of all active webhooks, whichever process sends them.",
		}, func() float64 { return float64(m.pending.Load()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "usher_webhook_dead_letters", Help: "Deliveries that are dead, of all active webhooks, whichever process sends them.",
		}, func() float64 { return float64(m.dead.Load()) }),
	}
	return m
}

const (
	outcomeDelivered = "delivered"
	outcomeRetry     = "retry"
	outcomeDead      = "dead"
)

// Describe and Collect make Metrics a prometheus.Collector.
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range m.collectors {
		c.Describe(ch)
	}
}

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	for _, c := range m.collectors {
		c.Collect(ch)
	}
}

func (m *Metrics) observe(o outcomeOf) {
	if m == nil {
		return
	}
	outcome := map[DeliveryStatus]string{
		DeliveryDelivered: outcomeDelivered, DeliveryPending: outcomeRetry, DeliveryDead: outcomeDead,
	}[o.status]
	m.deliveries.WithLabelValues(outcome).Inc()
	m.seconds.Observe(o.took.Seconds())
}

// see is told how the active webhooks are.
func (m *Metrics) see(list []stored) {
	if m == nil {
		return
	}
	var pending, dead int64
	for _, w := range list {
		pending, dead = pending+int64(w.Pending), dead+int64(w.Dead)
	}
	m.pending.Store(pending)
	m.dead.Store(dead)
}
