package webhook

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
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

	"usher.example/eventstore/cloudevent"
)

// Headers of Standard Webhooks, beside those of HTTP, in the form in which net/http keeps names.
const (
	headerID        = "Webhook-Id"
	headerTimestamp = "Webhook-Timestamp"
	headerSignature = "Webhook-Signature"

	contentType = cloudevent.StructuredType + "; charset=utf-8"
	userAgent   = "usher-webhooks/1"
)

const (
	// maxExcerpt bounds what is kept of an answer, and maxReason the text that says why an attempt failed.
	maxExcerpt = 1 << 10
	maxReason  = 300
	// maxDrain bounds what is read of a good answer so that its connection can be used again.
	maxDrain = 16 << 10
	// documentSize is what most documents need beside the payload.
	documentSize = 1 << 10
)

// client makes the attempts.
type client struct {
	via     http.RoundTripper
	timeout time.Duration
	now     func() time.Time
}

func newClient(g guard, timeout time.Duration, now func() time.Time) *client {
	return &client{via: newTransport(g), timeout: timeout, now: now}
}

// message is what is sent: a document, which has the id, to a URL, signed with the secrets.
type message struct {
	to          *url.URL
	signer      *signer
	id          uuid.UUID
	body        []byte
	traceParent string // W3C Trace Context, of the request that caused the event; empty where it has none
}

func newMessage(to *url.URL, signer *signer, d cloudevent.Document) (message, error) {
	body, err := d.AppendJSON(make([]byte, 0, documentSize+len(d.Data)))
	if err != nil {
		return message{}, err
	}
	return message{to: to, signer: signer, id: d.ID, body: body}, nil
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
	id := m.id.String()
	header := http.Header{
		"Content-Type":  {contentType},
		"User-Agent":    {userAgent},
		headerID:        {id},
		headerTimestamp: {strconv.FormatInt(at.Unix(), 10)},
		headerSignature: {m.signer.sign(id, at, m.body)},
	}
	if m.traceParent != "" {
		header["Traceparent"] = []string{m.traceParent}
	}
	body := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(m.body)), nil }
	r := &http.Request{Method: http.MethodPost, URL: m.to, Header: header, ContentLength: int64(len(m.body)), GetBody: body}
	r.Body, _ = body()
	response, err := c.via.RoundTrip(r.WithContext(ctx))
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

// explain is the reason of an attempt without an answer. The URL, which may have a secret in it, is not in the text: a
// transport does not know it as what failed, as a client does.
func (c *client) explain(ctx context.Context, err error) string {
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
