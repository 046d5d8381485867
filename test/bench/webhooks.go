package main

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go/jetstream"

	"usher.example/eventstore"
	"usher.example/eventstore/cloudevent"
	"usher.example/publisher/webhook"
)

func webhookBenches() []bench {
	return []bench{{
		about: "deliver what is in the stream to an endpoint that answers at once",
		lines: []line{{
			name: "webhooks", subject: usher, yardstick: bare, show: rate,
			against: "POST the same documents, signed, from memory, with the same client settings",
			targets: []target{rateAtLeast(0.5)},
		}},
		setup: func(s *stage) ([]side, error) {
			d, err := setupDeliveries(s)
			if err != nil {
				return nil, err
			}
			return []side{{name: usher, prepare: d.renew, run: d.usher}, {name: bare, run: d.bare}}, nil
		},
	}}
}

const (
	// deliveredShare is the share of the events of a run that a round delivers: they cost more than those of other rows.
	deliveredShare = 10
	// sameRequests is how many requests an endpoint gets at once: see package webhook.
	sameRequests = 8
	deliveryWait = 30 * time.Second
	deliveryPoll = 100 * time.Millisecond
)

// deliveries is a log that is in the stream, and an endpoint.
type deliveries struct {
	*logOn
	js        jetstream.JetStream
	service   *webhook.Service
	hook      uuid.UUID // of the round
	receiver  *httpServer
	client    http.Client // of the yardstick
	documents []document
	next      atomic.Int64
	secret    []byte
	head      int64
}

// document is a message as it is sent.
type document struct {
	id   string
	body []byte
}

func setupDeliveries(s *stage) (*deliveries, error) {
	l, err := s.openLog(eventstore.Options{})
	if err != nil {
		return nil, err
	}
	d := &deliveries{logOn: l, secret: make([]byte, 32)}
	rand.Read(d.secret)
	if err := l.live(s.ctx, s.flags.events/deliveredShare); err != nil {
		return nil, err
	}
	if d.head, err = l.log.Head(s.ctx); err != nil {
		return nil, err
	}
	b, err := s.broker()
	if err != nil {
		return nil, err
	}
	if d.js, err = jetstream.New(b.conn); err != nil {
		return nil, err
	}
	relay, err := l.relay(b.conn)
	if err != nil {
		return nil, err
	}
	if err := relay.Flush(s.ctx); err != nil {
		return nil, err
	}
	if d.receiver, err = s.serve(l, serverConfig{Kind: receivingServer}); err != nil {
		return nil, err
	}
	d.service = webhook.New(webhook.Config{
		Log: l.log, DB: l.store, Source: relaySource, Logger: quiet, Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
	})
	// The settings of package webhook's client.
	d.client.Transport = &http.Transport{
		ForceAttemptHTTP2: true, DisableCompression: true, MaxResponseHeaderBytes: 16 << 10, MaxIdleConnsPerHost: sameRequests, IdleConnTimeout: 90 * time.Second,
	}
	s.after(func() error { d.client.CloseIdleConnections(); return nil })
	return d, d.encode(s.ctx)
}

// encode makes the documents that the yardstick sends.
func (d *deliveries) encode(ctx context.Context) error {
	events, err := d.log.ReadAll(ctx, 0, page)
	for _, e := range events {
		body, err := json.Marshal(cloudevent.Structured(e, cloudevent.Options{Source: relaySource}))
		if err != nil {
			return err
		}
		d.documents = append(d.documents, document{e.ID.String(), body})
	}
	return err
}

// renew replaces the webhook by one that has got nothing yet.
func (d *deliveries) renew(ctx context.Context) error {
	if d.hook != uuid.Nil {
		if err := d.service.Delete(ctx, d.hook); err != nil {
			return err
		}
	}
	hook, _, err := d.service.Create(ctx, webhook.Wish{URL: "http://" + d.receiver.address + "/", From: 1})
	d.hook = hook.ID
	return err
}

// usher delivers the whole stream.
func (d *deliveries) usher(ctx context.Context, _ time.Duration) (tally, error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	worker := webhook.Worker{Service: d.service, JetStream: d.js}
	ended := make(chan error, 1)
	go func() { ended <- worker.Run(ctx) }()
	err := d.delivered(ctx)
	stop()
	return tally{ops: int(d.head)}, errors.Join(err, <-ended)
}

// delivered waits until the webhook has everything.
func (d *deliveries) delivered(ctx context.Context) error {
	poll := time.NewTicker(deliveryPoll)
	defer poll.Stop()
	for last, since := int64(0), time.Now(); ; {
		hook, err := d.service.Get(ctx, d.hook)
		switch {
		case err != nil:
			return err
		case hook.Dead > 0 || hook.Status != webhook.StatusActive:
			return fmt.Errorf("the webhook is %s with %d dead letters", hook.Status, hook.Dead)
		case hook.Position == d.head && hook.Pending == 0:
			return nil
		}
		if at := hook.Position - int64(hook.Pending); at != last {
			last, since = at, time.Now()
		} else if time.Since(since) > deliveryWait {
			return fmt.Errorf("the webhook stands still at %d", at)
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// bare posts documents over and over.
func (d *deliveries) bare(ctx context.Context, length time.Duration) (tally, error) {
	return hammer(ctx, sameRequests, length, func(ctx context.Context, _ int) error {
		return d.post(ctx, d.documents[int(d.next.Add(1))%len(d.documents)])
	})
}

func (d *deliveries) post(ctx context.Context, doc document) error {
	ctx, cancel := context.WithTimeout(ctx, deliveryWait)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+d.receiver.address+"/", bytes.NewReader(doc.body))
	if err != nil {
		return err
	}
	at := strconv.FormatInt(time.Now().Unix(), 10)
	mac := hmac.New(sha256.New, d.secret)
	mac.Write([]byte(doc.id + "." + at + "."))
	mac.Write(doc.body)
	r.Header.Set("Content-Type", cloudevent.StructuredType)
	r.Header.Set("webhook-id", doc.id)
	r.Header.Set("webhook-timestamp", at)
	r.Header.Set("webhook-signature", "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	answer, err := d.client.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusNoContent {
		return errors.New("the endpoint answers " + answer.Status)
	}
	_, err = io.Copy(io.Discard, answer.Body)
	return err
}

// receiver takes whatever is sent to it.
func receiver() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // the client notices
		w.WriteHeader(http.StatusNoContent)
	})
}
