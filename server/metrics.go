package server

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
)

type metrics struct {
	requests      *prometheus.CounterVec
	seconds       *prometheus.HistogramVec
	limited       *prometheus.CounterVec
	registrations *prometheus.CounterVec
	logins        *prometheus.CounterVec
}

// newMetrics registers the metrics of requests, and of what several surfaces do. Labels have few values: routes are those that were registered.
func newMetrics(registry prometheus.Registerer) metrics {
	m := metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "usher_http_requests_total", Help: "Requests answered.",
		}, []string{"route", "method", "status"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "usher_http_request_seconds", Help: "Time from the header of a request to the end of its answer.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}, []string{"route", "method"}),
		limited: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "usher_rate_limited_total", Help: "Requests that were refused because their network had too many.",
		}, []string{"route"}),
	}
	m.registrations = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "usher_registrations_total", Help: "Registrations by outcome: ok or the code of the problem.",
	}, []string{"outcome"})
	m.logins = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "usher_logins_total", Help: "Logins by outcome: ok or the code of the problem.",
	}, []string{"outcome"})
	registry.MustRegister(m.requests, m.seconds, m.limited, m.registrations, m.logins)
	return m
}

// Registered counts a registration, by what came of it.
func (s *Server) Registered(err error) { s.metrics.registrations.WithLabelValues(Outcome(err)).Inc() }

// LoggedIn counts a login, by what came of it.
func (s *Server) LoggedIn(err error) { s.metrics.logins.WithLabelValues(Outcome(err)).Inc() }

// Outcome is what came of a call, as metrics name it: ok or a code.
func Outcome(err error) string {
	if err == nil {
		return "ok"
	}
	return string(CodeOf(err))
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
