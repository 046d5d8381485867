package server

import (
	"fmt"
	"net/http"
	"regexp"
	"runtime/debug"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v5"

	"usher.example/eventstore"
)

// Headers of ours.
const (
	HeaderPosition       = "Usher-Position"
	HeaderMinPosition    = "Usher-Min-Position"
	HeaderIdempotencyKey = "Idempotency-Key"
	HeaderDevice         = "Usher-Device"
	headerTraceParent    = "Traceparent"
	headerNoSniff        = "X-Content-Type-Options"
	headerHTTPS          = "Strict-Transport-Security"
)

// Values of headers that every answer shares.
var (
	noSniff = []string{"nosniff"}
	noStore = []string{"no-store"}
	// onlyHTTPS has browsers never ask by http again, for a year (RFC 6797).
	onlyHTTPS = []string{"max-age=31536000; includeSubDomains"}
)

// attend is around every request: it gives the request its id and the answer what every answer has, answers errors and
// panics, and counts.
func (s *Server) attend(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c *echo.Context) (err error) {
		begin := time.Now()
		s.proxies.clean(c.Request())
		c.Set(networkKey, s.proxies.network(c.Request()))
		h := c.Response().Header()
		h[echo.HeaderXRequestID] = []string{newRequestID(c.Request())}
		h[headerNoSniff] = noSniff
		if !s.PlainHTTP {
			h[headerHTTPS] = onlyHTTPS
		}
		h[echo.HeaderCacheControl] = noStore // unless the answer says otherwise
		end := s.trace(c)
		defer func() {
			if p := recover(); p != nil {
				if p == http.ErrAbortHandler {
					panic(p)
				}
				err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
			}
			whole := err == nil || s.fail(c, err)
			err = nil
			end()
			took := time.Since(begin)
			s.metrics.observe(c, took)
			s.logRequest(c, took)
			if !whole {
				panic(http.ErrAbortHandler) // so that nobody takes for a whole answer what broke off
			}
		}()
		if s.allowOrigin(c) {
			return c.NoContent(http.StatusNoContent)
		}
		return next(c)
	}
}

// newRequestID is the id that a trusted proxy in front gave, if it is a UUID, and otherwise a new one.
func newRequestID(r *http.Request) string {
	if given := r.Header[echo.HeaderXRequestID]; len(given) == 1 && (len(given[0]) == 36 || len(given[0]) == 32) {
		if id, err := uuid.Parse(given[0]); err == nil {
			return id.String()
		}
	}
	id, err := uuid.NewV7()
	if err != nil { // the system has no randomness
		panic(err)
	}
	return id.String()
}

// RequestID is the id of a request, which its answer has too.
func RequestID(c *echo.Context) string {
	if id := c.Response().Header()[echo.HeaderXRequestID]; len(id) == 1 {
		return id[0]
	}
	return ""
}

// metadata is that of the events which a request causes.
func metadata(c *echo.Context, actor string) eventstore.Metadata {
	m := eventstore.Metadata{
		Correlation: uuid.MustParse(RequestID(c)), // which attend made
		Actor:       actor, Address: c.RealIP(), Network: network(c), UserAgent: userAgent(c.Request().UserAgent()),
	}
	if m.TraceParent = eventstore.NewTraceParent(c.Request().Context()); m.TraceParent != "" {
		return m
	}
	if parent := c.Request().Header.Get(headerTraceParent); traceParent.MatchString(parent) {
		m.TraceParent = parent // of a trace that is not recorded here
	}
	return m
}

// networkKey is where attend keeps what a request's client is counted as.
const networkKey = "network"

// network is what a request's client is counted as, together with others.
func network(c *echo.Context) string {
	text, _ := c.Get(networkKey).(string)
	return text
}

// traceParent is the header of W3C Trace Context, version 00.
var traceParent = regexp.MustCompile(`^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$`)

// maxUserAgent bounds what is stored of a client's own description of itself, in bytes.
const maxUserAgent = 512

func userAgent(text string) string {
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return -1
		}
		return r
	}, strings.ToValidUTF8(text, ""))
	if len(text) > maxUserAgent {
		text = strings.ToValidUTF8(text[:maxUserAgent], "")
	}
	return text
}
