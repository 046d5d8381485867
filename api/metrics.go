package api

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/labstack/echo/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"usher.example/identity"
	"usher.example/identity/password"
)

type metrics struct {
	requests      *prometheus.CounterVec
	seconds       *prometheus.HistogramVec
	registrations *prometheus.CounterVec
	logins        *prometheus.CounterVec
	refreshes     *prometheus.CounterVec
	limited       *prometheus.CounterVec
}

// newMetrics registers the metrics of the API. Labels have few values: routes are those of the document, outcomes are
// codes.
func newMetrics(registry prometheus.Registerer, pool *password.Pool) metrics {
	m := metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "usher_http_requests_total", Help: "Requests answered.",
		}, []string{"route", "method", "status"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "usher_http_request_seconds", Help: "Time from the header of a request to the end of its answer.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}, []string{"route", "method"}),
		registrations: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "usher_registrations_total", Help: "Registrations by outcome: ok or the code of the problem.",
		}, []string{"outcome"}),
		logins: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "usher_logins_total", Help: "Logins by outcome: ok or the code of the problem.",
		}, []string{"outcome"}),
		refreshes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "usher_refreshes_total", Help: "Refreshes of tokens by outcome: ok or the code of the problem.",
		}, []string{"outcome"}),
		limited: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "usher_rate_limited_total", Help: "Requests that were refused because their network had too many.",
		}, []string{"route"}),
	}
	registry.MustRegister(m.requests, m.seconds, m.registrations, m.logins, m.refreshes, m.limited)
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

// observe counts a request that was answered.
func (m *metrics) observe(c *echo.Context, took time.Duration) {
	route, method := c.Path(), c.Request().Method
	if route == "" {
		route = "none"
	}
	switch method {
	case http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodHead, http.MethodOptions:
	default:
		method = "other"
	}
	_, status := echo.ResolveResponseStatus(c.Response(), nil)
	m.requests.WithLabelValues(route, method, strconv.Itoa(status)).Inc()
	m.seconds.WithLabelValues(route, method).Observe(took.Seconds())
}

func (m *metrics) registered(err error) { m.registrations.WithLabelValues(outcome(err)).Inc() }
func (m *metrics) refreshed(err error)  { m.refreshes.WithLabelValues(outcome(err)).Inc() }
func (m *metrics) loggedIn(err error)   { m.logins.WithLabelValues(outcome(err)).Inc() }

func outcome(err error) string {
	if err == nil {
		return "ok"
	}
	code, _ := explain(err)
	if _, known := problems[code]; !known {
		code = identity.CodeInternal
	}
	return string(code)
}

// ServeMetrics answers GET /metrics on a listener of its own, which it closes, until ctx ends; and /livez and /readyz, so
// that a process without a Server can be probed too. Any process may, with or without a Server.
func ServeMetrics(ctx context.Context, listener net.Listener, metrics prometheus.Gatherer, checks []Check, logger *slog.Logger) error {
	ready := readiness{checks: checks, now: time.Now, logger: logger}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{MaxRequestsInFlight: 4}))
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		if bad := ready.check(r.Context()); len(bad) > 0 {
			http.Error(w, "not ready: "+strings.Join(bad, ", "), http.StatusServiceUnavailable)
			return
		}
		_, _ = io.WriteString(w, "ready\n")
	})
	return serve(ctx, listener, mux, metricsShutdownWait, logger)
}

const metricsShutdownWait = time.Second
