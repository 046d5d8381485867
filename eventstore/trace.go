package eventstore

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// An event carries the trace of the request that caused it (W3C Trace Context) in its metadata, so that whatever is done
// with it later, in other processes, can be recorded as part of the same trace. Requests that are not sampled cost a look at
// one character.

// NewTraceParent is the trace context of ctx in the form of Metadata.TraceParent, "" where there is none.
func NewTraceParent(ctx context.Context) string {
	carrier := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, carrier)
	return carrier["traceparent"]
}

// traceparentLength is that of version 00: "00-<trace id, 32>-<span id, 16>-<flags, 2>".
const traceparentLength = 55

// Sampled says whether the trace that the event belongs to is recorded.
func (m Metadata) Sampled() bool {
	return len(m.TraceParent) == traceparentLength && m.TraceParent[traceparentLength-1]&1 == 1
}

// TraceContext puts the trace that the event belongs to into a context, as the parent of what is begun under it.
func (m Metadata) TraceContext(ctx context.Context) context.Context {
	return propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{"traceparent": m.TraceParent})
}

// RecordSpan records that something was done with an event between then and now, as part of the event's trace; nothing where
// that is not sampled or there is no tracer.
func (e Event) RecordSpan(tracer trace.Tracer, name string, kind trace.SpanKind, began time.Time, err error) {
	if tracer == nil || !e.Metadata.Sampled() {
		return
	}
	_, span := tracer.Start(e.Metadata.TraceContext(context.Background()), name, trace.WithSpanKind(kind), trace.WithTimestamp(began),
		trace.WithAttributes(e.traceAttributes()...))
	endSpan(span, err)
}

// StartSpan begins a span of a request that is made because of an event, as part of the event's trace. It answers with the
// trace context that the request is to carry, "" where the event has none, and with what ends the span. Where the trace is
// not sampled or there is no tracer, nothing is recorded, and the request carries on what the event has.
func (e Event) StartSpan(tracer trace.Tracer, name string) (traceParent string, end func(error)) {
	if tracer == nil || !e.Metadata.Sampled() {
		return e.Metadata.TraceParent, func(error) {}
	}
	ctx, span := tracer.Start(e.Metadata.TraceContext(context.Background()), name, trace.WithSpanKind(trace.SpanKindClient),
		trace.WithAttributes(e.traceAttributes()...))
	return NewTraceParent(ctx), func(err error) { endSpan(span, err) }
}

func (e Event) traceAttributes() []attribute.KeyValue {
	return []attribute.KeyValue{
		attribute.String("usher.event.type", e.Type),
		attribute.String("usher.event.id", e.ID.String()),
		attribute.Int64("usher.position", e.Position),
	}
}

// startSpan begins a span under the one of ctx, if that is recorded.
func startSpan(ctx context.Context, name string) (context.Context, trace.Span) {
	parent := trace.SpanFromContext(ctx)
	if !parent.IsRecording() {
		return ctx, nil
	}
	return parent.TracerProvider().Tracer("usher.example/eventstore").Start(ctx, name)
}

func endSpan(span trace.Span, err error) {
	if err != nil {
		span.SetStatus(codes.Error, err.Error())
	}
	span.End()
}
