package server

import (
	"log/slog"
	"net/http"
	"time"

	"github.com/labstack/echo/v5"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// trace begins the span of a request, as part of the caller's trace if the request names one, and puts it into the request's
// context. What it answers with ends it.
func (s *Server) trace(c *echo.Context) (end func()) {
	if s.Tracer == nil {
		return func() {}
	}
	r := c.Request()
	ctx := propagation.TraceContext{}.Extract(r.Context(), propagation.HeaderCarrier(r.Header))
	ctx, span := s.Tracer.Start(ctx, r.Method, trace.WithSpanKind(trace.SpanKindServer))
	c.SetRequest(r.WithContext(ctx))
	return func() {
		if span.IsRecording() {
			_, status := echo.ResolveResponseStatus(c.Response(), nil)
			span.SetName(r.Method + " " + c.Path())
			span.SetAttributes(attribute.String("http.request.method", r.Method), attribute.String("http.route", c.Path()),
				attribute.Int("http.response.status_code", status), attribute.String("usher.request_id", RequestID(c)))
			if status >= http.StatusInternalServerError {
				span.SetStatus(codes.Error, http.StatusText(status))
			}
		}
		span.End()
	}
}

// logRequest logs a request that was answered, for those who want to see every one. A path is not logged, since it may have
// ids in it, and neither is anything that the caller sent.
func (s *Server) logRequest(c *echo.Context, took time.Duration) {
	ctx := c.Request().Context()
	if !s.Logger.Enabled(ctx, slog.LevelDebug) {
		return
	}
	_, status := echo.ResolveResponseStatus(c.Response(), nil)
	attributes := []slog.Attr{
		slog.String("request_id", RequestID(c)), slog.String("method", c.Request().Method), slog.String("route", c.Path()),
		slog.Int("status", status), slog.Duration("took", took),
	}
	if position := c.Response().Header().Get(HeaderPosition); position != "" {
		attributes = append(attributes, slog.String("position", position))
	}
	s.Logger.LogAttrs(ctx, slog.LevelDebug, "request", attributes...)
}
