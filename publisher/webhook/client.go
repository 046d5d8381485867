package webhook

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"usher/eventstore/cloudevent"
)

// Headers of Standard Webhooks, beside those of HTTP.
const (
	headerID        = "webhook-id"
	headerTimestamp = "webhook-timestamp"
	headerSignature = "webhook-signature"

	contentType = cloudevent.StructuredType + "; charset=utf-8"
	userAgent   = "usher-webhooks/1"
)

const (
	// maxExcerpt bounds what is kept of an answer, and maxReason the text that says why an attempt failed.
	maxExcerpt = 1 << 10
	maxReason  = 300
	// maxDrain bounds what is read of a good answer so that its connection can be used again.
	maxDrain    = 16 << 10
	maxHeader   = 16 << 10
	keepAlive   = 90 * time.Second
	idlePerHost = parallel
	idleAll     = 4 * parallel
)

// client makes the attempts. It follows no redirect, uses no proxy, keeps no cookies and connects only where the guard
// lets it. Connections are kept for a while; they were checked when they were made.
type client struct {
	secure, plain http.Client
	timeout       time.Duration
	now           func() time.Time
}

func newClient(g guard, timeout time.Duration, now func() time.Time) *client {
	return &client{secure: newHTTPClient(g, false), plain: newHTTPClient(g, true), timeout: timeout, now: now}
}

func newHTTPClient(g guard, plain bool) http.Client {
	dialer := &net.Dialer{Control: g.control(plain)}
	return http.Client{
		Transport: &http.Transport{
			DialContext:            dialer.DialContext,
			ForceAttemptHTTP2:      true,
			DisableCompression:     true, // a small answer that unpacks to a large one
			MaxResponseHeaderBytes: maxHeader,
			MaxIdleConns:           idleAll,
			MaxIdleConnsPerHost:    idlePerHost,
			IdleConnTimeout:        keepAlive,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// message is what is sent: a document, which has the id, to a URL, signed with the secrets.
type message struct {
	url         string
	keys        keyRing
	id          uuid.UUID
	body        []byte
	traceParent string // W3C Trace Context, of the request that caused the event; empty where it has none
}

func newMessage(to string, keys keyRing, d cloudevent.Document) (message, error) {
	body, err := json.Marshal(d)
	if err != nil {
		return message{}, fmt.Errorf("encode %s %s: %w", d.Type, d.ID, err)
	}
	return message{url: to, keys: keys, id: d.ID, body: body}, nil
}

// answer is what came of an attempt.
type answer struct {
	status     int    // 0 where there was no answer
	reason     string // why it failed, empty where it did not
	excerpt    []byte // of the body of an answer that was no success
	retryAfter time.Duration
	took       time.Duration
	cut        bool // ctx ended it: nothing is known
}

func (a answer) ok() bool { return a.reason == "" }

// failure is the reason as an error, nil for a success.
func (a answer) failure() error {
	if a.ok() {
		return nil
	}
	return errors.New(a.reason)
}

// gone says that the endpoint wants no more.
func (a answer) gone() bool { return a.status == http.StatusGone }

// send makes one attempt, which takes no longer than the timeout. An answer of 2xx is a success, whatever comes after its
// header.
func (c *client) send(ctx context.Context, m message) answer {
	began := c.now()
	ctx, cancel := context.WithTimeoutCause(ctx, c.timeout, errTimeout)
	defer cancel()
	a, err := c.attempt(ctx, m, began)
	if err != nil {
		a.reason = c.explain(ctx, err)
		a.cut = ctx.Err() != nil && context.Cause(ctx) != errTimeout
	}
	a.took = c.now().Sub(began)
	return a
}

var errTimeout = errors.New("timed out")

func (c *client) attempt(ctx context.Context, m message, at time.Time) (answer, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, m.url, bytes.NewReader(m.body))
	if err != nil {
		return answer{}, err
	}
	r.Header.Set("Content-Type", contentType)
	r.Header.Set("User-Agent", userAgent)
	id := m.id.String()
	r.Header.Set(headerID, id)
	r.Header.Set(headerTimestamp, strconv.FormatInt(at.Unix(), 10))
	r.Header.Set(headerSignature, m.keys.sign(id, at, m.body))
	if m.traceParent != "" {
		r.Header.Set("traceparent", m.traceParent)
	}
	via := &c.secure
	if r.URL.Scheme == "http" {
		via = &c.plain
	}
	response, err := via.Do(r)
	if err != nil {
		return answer{}, err
	}
	defer response.Body.Close()
	a := answer{status: response.StatusCode}
	if response.StatusCode/100 == 2 {
		_, _ = io.CopyN(io.Discard, response.Body, maxDrain) // it was taken already
		return a, nil
	}
	a.reason = fmt.Sprintf("answered %d", response.StatusCode)
	if response.StatusCode/100 == 3 {
		a.reason += ": redirects are not followed"
	}
	a.retryAfter = parseRetryAfter(response.Header.Get("Retry-After"), c.now())
	excerpt, _ := io.ReadAll(io.LimitReader(response.Body, maxExcerpt)) // what came of it
	a.excerpt = []byte(storable(string(excerpt), maxExcerpt))
	return a, nil
}

// explain is the reason of an attempt without an answer. The URL, which may have a secret in it, is not in the text.
func (c *client) explain(ctx context.Context, err error) string {
	var in *url.Error
	if errors.As(err, &in) {
		err = in.Err
	}
	var (
		lookup      *net.DNSError
		certificate *tls.CertificateVerificationError
		unknown     x509.UnknownAuthorityError
	)
	text := err.Error()
	switch {
	case context.Cause(ctx) == errTimeout:
		text = fmt.Sprintf("no answer within %v", c.timeout)
	case errors.As(err, &lookup) && lookup.IsNotFound:
		text = "the host is not known"
	case errors.As(err, &certificate), errors.As(err, &unknown):
		text = "the certificate is not good: " + text
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		text = "the connection was closed before the answer"
	}
	return storable(text, maxReason)
}

// storable is a text in a form that a database stores and a terminal shows: valid, bounded, without control characters
// but for line breaks and tabs.
func storable(text string, limit int) string {
	text = strings.Map(func(r rune) rune {
		if r < ' ' && r != '\n' && r != '\t' || r == 0x7f {
			return utf8.RuneError
		}
		return r
	}, strings.ToValidUTF8(text, "\uFFFD"))
	if len(text) > limit {
		text = strings.ToValidUTF8(text[:limit], "")
	}
	return text
}

// quote shows what was sent by a caller, in a bounded and printable form.
func quote(text string) string { return strconv.QuoteToGraphic(storable(text, 80)) }
