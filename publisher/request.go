package publisher

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
)

// requestsAhead is how many requests of one kind are on their way at once. The server drops what waits in its queue, of all
// its clients, when that is longer than 10,000.
const requestsAhead = 64

// askEach sends n requests about the stream to the JetStream API, not waiting for the answer to one before it sends the
// next, and hands the answers over, one at a time and in any order. It fails with the first error of answer, and where an
// answer stays away.
func (r *Relay) askEach(ctx context.Context, what string, n int, request func(i int) []byte, answer func(i int, raw []byte) error) error {
	fail := func(err error) error { return fmt.Errorf("ask for %s: %w", what, err) }
	inbox := r.Conn.NewInbox() + "."
	answers, err := r.Conn.SubscribeSync(inbox + "*")
	if err != nil {
		return fail(err)
	}
	defer func() { _ = answers.Unsubscribe() }() // it fails only if the connection is closed, and the subscription with it
	for sent, answered := 0, 0; answered < n; answered++ {
		for ; sent < n && sent-answered < requestsAhead; sent++ {
			if err := r.Conn.PublishRequest("$JS.API.STREAM."+what+"."+r.Stream.Name, inbox+strconv.Itoa(sent), request(sent)); err != nil {
				return fail(err)
			}
		}
		m, err := nextAnswer(ctx, answers)
		if err != nil {
			return fail(err)
		}
		i, err := strconv.Atoi(m.Subject[len(inbox):])
		if err != nil || i < 0 || i >= sent {
			return fail(fmt.Errorf("an answer came to %s", m.Subject))
		}
		if err := answer(i, m.Data); err != nil {
			return fail(err)
		}
	}
	return nil
}

// overwriteWait is how long the server may take to write the block of a message anew, once for each that is ahead.
const overwriteWait = 30 * time.Second

func nextAnswer(ctx context.Context, answers *nats.Subscription) (*nats.Msg, error) {
	ctx, stop := context.WithTimeout(ctx, overwriteWait)
	defer stop()
	m, err := answers.NextMsgWithContext(ctx)
	if err != nil {
		return nil, err
	}
	if len(m.Data) == 0 && m.Header.Get("Status") == "503" {
		return nil, nats.ErrNoResponders
	}
	if len(m.Data) == 0 {
		return nil, errors.New("the answer is empty")
	}
	return m, nil
}
