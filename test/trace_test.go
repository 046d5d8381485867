package test

import (
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	coltrace "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// collector takes spans as an OpenTelemetry collector does, over OTLP and HTTP.
type collector struct {
	*httptest.Server
	mu    sync.Mutex
	spans []*otlp.Span
}

func newCollector(t *testing.T) *collector {
	c := &collector{}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		raw, err := io.ReadAll(r.Body)
		var request coltrace.ExportTraceServiceRequest
		if err == nil {
			err = proto.Unmarshal(raw, &request)
		}
		if err != nil || r.URL.Path != "/v1/traces" {
			http.Error(w, fmt.Sprint(r.URL.Path, err), http.StatusBadRequest)
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, resource := range request.ResourceSpans {
			for _, scope := range resource.ScopeSpans {
				c.spans = append(c.spans, scope.Spans...)
			}
		}
	}))
	t.Cleanup(c.Close)
	return c
}

// trace is the spans of one trace, by name.
func (c *collector) trace(id string) map[string]*otlp.Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	spans := map[string]*otlp.Span{}
	for _, s := range c.spans {
		if hex.EncodeToString(s.TraceId) == id {
			spans[s.Name] = s
		}
	}
	return spans
}

// One request is followed from HTTP through append, relay and JetStream into the read model, and to whoever gets it by a
// webhook.
func TestTrace(t *testing.T) {
	t.Parallel()
	const trace, caller = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
	otel := newCollector(t)
	d := newDeployment(t, "OTEL_EXPORTER_OTLP_ENDPOINT="+otel.URL, "OTEL_BSP_SCHEDULE_DELAY=50", "TRUSTED_PROXIES=127.0.0.1")
	p, c := d.startDev()
	d.takeAdmin(p)
	e := newEndpoint(t)
	d.addWebhook(e, "--events", "user.registered")
	conn, err := nats.Connect(d.natsURL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	messages, err := conn.SubscribeSync("usher.v1.*.user.registered")
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
	c.want(t, http.StatusCreated, "POST", "/v1/auth/register", map[string]string{"email": "ada@example.org", "password": userPassword},
		"Traceparent", "00-"+trace+"-"+caller+"-01")

	m, err := messages.NextMsg(patience)
	if err != nil {
		t.Fatal(err)
	}
	request, publish, deliver, names := "POST /v1/auth/register", "publish user.registered", "deliver user.registered", []string{}
	e.taken(t, 1)
	eventually(t, "the spans are all there", func() error {
		spans := otel.trace(trace)
		names = names[:0]
		for name := range spans {
			names = append(names, name)
		}
		for _, name := range []string{request, "append", publish, "project users", deliver} {
			if spans[name] == nil {
				return fmt.Errorf("there is no span %q among %q", name, names)
			}
		}
		return nil
	})
	spans := otel.trace(trace)
	if parent := hex.EncodeToString(spans[request].ParentSpanId); parent != caller {
		t.Errorf("the request's parent is %s, want the caller's span %s", parent, caller)
	}
	own := hex.EncodeToString(spans[request].SpanId)
	for _, name := range []string{"append", publish, "project users", deliver} {
		if parent := hex.EncodeToString(spans[name].ParentSpanId); parent != own {
			t.Errorf("the parent of %s is %s, want the request %s", name, parent, own)
		}
	}
	want := "00-" + trace + "-" + own + "-01"
	for _, header := range []string{"traceparent", "ce-traceparent"} {
		if got := m.Header.Get(header); got != want {
			t.Errorf("%s = %q, want %q", header, got, want)
		}
	}
	// What the endpoint does is part of the delivery.
	want = "00-" + trace + "-" + hex.EncodeToString(spans[deliver].SpanId) + "-01"
	e.mu.Lock()
	if diff := cmp.Diff([]string{want}, e.traces); diff != "" {
		t.Errorf("traceparent of deliveries (-want +got):\n%s", diff)
	}
	e.mu.Unlock()
	// The log names the trace, so that one leads to the other.
	eventually(t, "the request is in the log", func() error {
		for _, line := range strings.Split(p.stderr.String(), "\n") {
			if strings.Contains(line, `"msg":"request"`) && strings.Contains(line, trace) {
				return nil
			}
		}
		return fmt.Errorf("no request with trace %s", trace)
	})
}
