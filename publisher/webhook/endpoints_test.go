package webhook_test

import (
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"usher.example/internal/devstack"
	"usher.example/publisher/webhook"
)

type reply = func(http.ResponseWriter, *http.Request, received)

// raw answers on the bare connection, which it closes in the end.
func raw(write func(c net.Conn)) reply {
	return func(w http.ResponseWriter, _ *http.Request, _ received) {
		c, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			panic(err)
		}
		defer c.Close()
		write(c)
	}
}

// drip writes a text byte by byte, too slowly, until nobody reads any more.
func drip(c net.Conn, text string) {
	for i := range len(text) {
		if _, err := c.Write([]byte{text[i]}); err != nil {
			return
		}
		time.Sleep(100 * time.Millisecond) // what makes this endpoint slow
	}
}

func TestEndpointsThatFail(t *testing.T) {
	t.Parallel()
	elsewhere := newReceiver(t)
	for name, c := range map[string]struct {
		reply  reply
		status int
		reason string // part of it
		body   string // the whole of what is kept
	}{
		"answers 500": {func(w http.ResponseWriter, _ *http.Request, _ received) { http.Error(w, "broken", 500) }, 500, "answered 500", "broken\n"},
		"answers 400": {func(w http.ResponseWriter, _ *http.Request, _ received) { w.WriteHeader(400) }, 400, "answered 400", ""},
		"redirects": {func(w http.ResponseWriter, r *http.Request, _ received) {
			http.Redirect(w, r, elsewhere.url(), http.StatusTemporaryRedirect)
		}, 307, "answered 307: redirects are not followed", ""},
		"hangs":          {func(_ http.ResponseWriter, r *http.Request, _ received) { <-r.Context().Done() }, 0, "no answer within 300ms", ""},
		"closes at once": {raw(func(net.Conn) {}), 0, "the connection was closed before the answer", ""},
		"closes within the header": {raw(func(c net.Conn) {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n")
		}), 0, "the connection was closed before the answer", ""},
		"answers byte by byte":    {raw(func(c net.Conn) { drip(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") }), 0, "no answer within 300ms", ""},
		"speaks something else":   {raw(func(c net.Conn) { _, _ = io.WriteString(c, "220 mail.example.org ESMTP\r\n") }), 0, "malformed HTTP", ""},
		"has an endless header":   {raw(func(c net.Conn) { endless(c, "HTTP/1.1 200 OK\r\n", "X-A: aaaaaaaaaaaaaaaaaaaa\r\n") }), 0, "header", ""},
		"answers 500 without end": {raw(func(c net.Conn) { endless(c, "HTTP/1.1 500 Oh\r\n\r\n", "0123456789abcdef") }), 500, "answered 500", strings.Repeat("0123456789abcdef", 64)},
		"answers rubbish": {func(w http.ResponseWriter, _ *http.Request, _ received) {
			w.WriteHeader(502)
			_, _ = w.Write([]byte("a\x00b\xff\x1b[31mc"))
		}, 502, "answered 502", "a\uFFFDb\uFFFD\uFFFD[31mc"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStack(t, newSQLite(t), func(c *webhook.Config) { c.Timeout, c.Retries = 300*time.Millisecond, 1 })
			r := newReceiver(t)
			r.answer(c.reply)
			hook, _ := s.create(r.url())
			s.work()
			s.register("ada@example.org")
			devstack.Eventually(t, "it is dead", func() bool { return s.get(hook.ID).Dead == 1 })
			d := s.deliveries(hook.ID, webhook.DeliveryDead)[0]
			if d.LastStatus != c.status || !strings.Contains(d.Reason, c.reason) || d.Response != c.body || d.Attempts != 2 {
				t.Errorf("delivery = %+v, want status %d, reason %q, response %q", d, c.status, c.reason, c.body)
			}
			got := r.await(2)
			if got[0].header.Get("webhook-id") != got[1].header.Get("webhook-id") {
				t.Error("the second attempt has another id")
			}
			if len(elsewhere.all()) > 0 {
				t.Error("a redirect was followed")
			}
			if strings.Contains(s.output.String()+d.Reason, "not-in-the-log") {
				t.Error("the URL is shown")
			}
		})
	}
}

func endless(c net.Conn, begin, more string) {
	_, err := io.WriteString(c, begin)
	for err == nil {
		_, err = io.WriteString(c, strings.Repeat(more, 100))
	}
}

// What an endpoint does after it said 2xx does not matter.
func TestEndpointsThatSucceed(t *testing.T) {
	t.Parallel()
	for name, reply := range map[string]reply{
		"200":             func(w http.ResponseWriter, _ *http.Request, _ received) { _, _ = io.WriteString(w, "thank you") },
		"299":             func(w http.ResponseWriter, _ *http.Request, _ received) { w.WriteHeader(299) },
		"200 without end": raw(func(c net.Conn) { endless(c, "HTTP/1.1 200 OK\r\n\r\n", "0123456789abcdef") }),
		"200 cut off":     raw(func(c net.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc") }),
		"200 byte by byte": raw(func(c net.Conn) {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
			drip(c, strings.Repeat("x", 100))
		}),
		"103, 103, then 200": raw(func(c net.Conn) {
			_, _ = io.WriteString(c, strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 2)+"HTTP/1.1 200 OK\r\n\r\n")
		}),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStack(t, newSQLite(t), func(c *webhook.Config) { c.Timeout, c.Retries = 500*time.Millisecond, 0 })
			r := newReceiver(t)
			r.answer(reply)
			hook, _ := s.create(r.url())
			s.work()
			s.register("ada@example.org")
			devstack.Eventually(t, "it is delivered", func() bool { return len(s.deliveries(hook.ID, webhook.DeliveryDelivered)) == 1 })
			if d := s.deliveries(hook.ID, "")[0]; d.Attempts != 1 || d.Reason != "" || d.Response != "" {
				t.Errorf("delivery = %+v", d)
			}
		})
	}
}

// The name resolves to a public address when it is looked at, and to this machine when it is dialled: so it is as if it did.
func TestAddressIsCheckedWhenItIsDialled(t *testing.T) {
	t.Parallel()
	s := newStack(t, newSQLite(t))
	r := newReceiver(t)
	hook, _ := s.create(r.url())
	s.service = s.newService(func(c *webhook.Config) { c.Allow, c.Retries = nil, 0 })
	s.work()
	s.register("ada@example.org")
	devstack.Eventually(t, "it is dead", func() bool { return s.get(hook.ID).Dead == 1 })
	if d := s.deliveries(hook.ID, "")[0]; d.LastStatus != 0 || !strings.Contains(d.Reason, "WEBHOOK_ALLOW") {
		t.Errorf("delivery = %+v", d)
	}
	trial, err := s.service.Test(t.Context(), hook.ID, uuid.Nil)
	if err != nil || trial.Delivered || !strings.Contains(trial.Reason, "not one of the public Internet") {
		t.Errorf("Test() = %+v, %v", trial, err)
	}
	if len(r.all()) > 0 {
		t.Error("it was connected to")
	}
}

// An environment's proxy would be told every payload.
func TestNoProxy(t *testing.T) {
	proxy := newReceiver(t)
	t.Setenv("HTTP_PROXY", proxy.server.URL)
	t.Setenv("http_proxy", proxy.server.URL)
	t.Setenv("ALL_PROXY", proxy.server.URL)
	s := newStack(t, newSQLite(t), func(c *webhook.Config) { c.Timeout = 300 * time.Millisecond })
	hook, _ := s.create("http://127.0.0.2:1/")
	if trial, err := s.service.Test(t.Context(), hook.ID, uuid.Nil); err != nil || trial.Delivered || len(proxy.all()) > 0 {
		t.Errorf("Test() = %+v, %v; the proxy got %d requests", trial, err, len(proxy.all()))
	}
}
