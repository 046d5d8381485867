package server

import (
	"fmt"
	"net/http"
	"regexp"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v5"

	"usher.example/eventstore"
	"usher.example/identity"
)

// Headers of ours.
const (
	HeaderPosition       = "Usher-Position"
	HeaderMinPosition    = "Usher-Min-Position"
	HeaderIdempotencyKey = "Idempotency-Key"
	HeaderDevice         = "Usher-Device"
	headerTraceParent    = "Traceparent"
	headerNoSniff        = "X-Content-Type-Options"
)

// Values of headers that every answer shares.
var (
	noSniff = []string{"nosniff"}
	noStore = []string{"no-store"}
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
		h[echo.HeaderCacheControl] = noStore // unless the answer says otherwise
		end := s.trace(c)
		defer func() {
			if p := recover(); p != nil {
				if p == http.ErrAbortHandler {
					panic(p)
				}
				err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
			}
			if err != nil {
				s.fail(c, err)
				err = nil
			}
			end()
			took := time.Since(begin)
			s.metrics.observe(c, took)
			s.logRequest(c, took)
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

// SetPosition says where in the log what was written is.
func SetPosition(c *echo.Context, position int64) {
	c.Response().Header().Set(HeaderPosition, strconv.FormatInt(position, 10))
}

// Metadata is that of the events which a request causes.
func Metadata(c *echo.Context, actor string) (eventstore.Metadata, error) {
	correlation, err := uuid.Parse(RequestID(c))
	if err != nil {
		return eventstore.Metadata{}, fmt.Errorf("read the request's id: %w", err)
	}
	m := eventstore.Metadata{Correlation: correlation, Actor: actor, Address: c.RealIP(), Network: Network(c), UserAgent: userAgent(c.Request().UserAgent())}
	if m.TraceParent = eventstore.NewTraceParent(c.Request().Context()); m.TraceParent != "" {
		return m, nil
	}
	if parent := c.Request().Header.Get(headerTraceParent); traceParent.MatchString(parent) {
		m.TraceParent = parent // of a trace that is not recorded here
	}
	return m, nil
}

// networkKey is where attend keeps what a request's client is counted as.
const networkKey = "network"

// Network is what a request's client is counted as, together with others.
func Network(c *echo.Context) string {
	text, _ := c.Get(networkKey).(string)
	return text
}

// Device is the token of the device that a request comes from, empty for none. One that is not good is as none.
func Device(c *echo.Context) identity.DeviceToken {
	return identity.DeviceToken(c.Request().Header.Get(HeaderDevice))
}

// SetDevice gives a device what it is known by from now on, if there is anything.
func SetDevice(c *echo.Context, t identity.DeviceToken) {
	if t != "" {
		c.Response().Header().Set(HeaderDevice, string(t))
	}
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

// IdempotencyKey is the request's key, or "" where it has none.
func IdempotencyKey(c *echo.Context) (string, error) {
	values := c.Request().Header.Values(HeaderIdempotencyKey)
	if len(values) == 0 {
		return "", nil
	}
	if len(values) > 1 || !printable.MatchString(values[0]) {
		return "", Refuse(identity.CodeInvalidRequest, "the Idempotency-Key has to be one value of 1 to 255 printable ASCII characters")
	}
	return values[0], nil
}

// CommandOf is the command id that the request's idempotency key stands for in a kind of requests that these secrets tell
// apart; the nil UUID for no key.
func (s *Server) CommandOf(c *echo.Context, kind string, secrets ...string) (uuid.UUID, error) {
	key, err := IdempotencyKey(c)
	if err != nil || key == "" {
		return uuid.Nil, err
	}
	return s.Identity.SecretCommandID(kind, key, secrets...), nil
}

var printable = regexp.MustCompile(`^[\x21-\x7e]{1,255}$`)
