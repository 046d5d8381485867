package main

import (
	"github.com/prometheus/client_golang/prometheus"

	"usher/eventstore"
	"usher/publisher"
)

// logMetrics tells how appends go.
type logMetrics struct {
	duration prometheus.Histogram
	batch    prometheus.Histogram
	events   prometheus.Counter
	head     prometheus.Gauge
}

func newLogMetrics() *logMetrics {
	return &logMetrics{
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "usher_commit_duration_seconds", Help: "How long a commit of waiting appends took.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14),
		}),
		batch: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "usher_commit_appends", Help: "Appends that shared a commit.",
			Buckets: prometheus.ExponentialBuckets(1, 2, 11),
		}),
		events: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "usher_events_appended_total", Help: "Events that this process wrote.",
		}),
		head: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "usher_log_position", Help: "The last position that this process wrote.",
		}),
	}
}

// observe is told of each commit.
func (m *logMetrics) observe(s eventstore.CommitStats) {
	m.duration.Observe(s.Duration.Seconds())
	m.batch.Observe(float64(s.Appends))
	m.events.Add(float64(s.Events))
	if s.Head > 0 {
		m.head.Set(float64(s.Head))
	}
}

func (m *logMetrics) collectors() []prometheus.Collector {
	return []prometheus.Collector{m.duration, m.batch, m.events, m.head}
}

// relayCollectors tell how far the relay is.
func relayCollectors(r *publisher.Relay) []prometheus.Collector {
	gauge := func(name, help string, value func(publisher.Status) float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return value(r.Status()) })
	}
	counter := func(name, help string, value func(publisher.Counters) int64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, func() float64 {
			return float64(value(r.Counters()))
		})
	}
	return []prometheus.Collector{
		gauge("usher_relay_position", "The last position in the JetStream stream.",
			func(s publisher.Status) float64 { return float64(s.Published) }),
		gauge("usher_relay_lag_events", "Events that are not published yet.",
			func(s publisher.Status) float64 { return float64(s.Lag) }),
		gauge("usher_relay_halted", "1 while the relay needs an operator.", func(s publisher.Status) float64 {
			if s.State == publisher.StateHalted || s.State == publisher.StateBlocked {
				return 1
			}
			return 0
		}),
		counter("usher_relay_resyncs_total", "Times the relay began anew from the state of the JetStream stream.",
			func(c publisher.Counters) int64 { return c.Resyncs }),
		counter("usher_relay_tails_lost_total", "Times the JetStream stream had lost its newest events.",
			func(c publisher.Counters) int64 { return c.TailsLost }),
		counter("usher_relay_rebuilds_total", "Times the JetStream stream was filled again from the log.",
			func(c publisher.Counters) int64 { return c.Rebuilds }),
	}
}
