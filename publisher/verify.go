package publisher

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"slices"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"usher.example/eventstore"
	"usher.example/eventstore/cloudevent"
)

// VerifyReport is what a comparison of the log with the stream found, message by message and byte by byte.
type VerifyReport struct {
	First    int64  `json:"first"` // the positions that were compared
	Last     int64  `json:"last"`
	Head     int64  `json:"head"`     // of the log when it began
	Messages int64  `json:"messages"` // that are in the stream; fewer than positions where users were erased
	Missing  int64  `json:"missing"`  // that ought to be
	Differ   int64  `json:"differ"`   // that are not what the log says
	Log      string `json:"log"`      // SHA-256 over id and content of the log's events at the messages' positions, in order
	Stream   string `json:"stream"`   // the same over the messages
	// FirstDifference is the first position at which the two are not the same, 0 where there is none, and What what is wrong.
	FirstDifference int64  `json:"first_difference,omitempty"`
	What            string `json:"what,omitempty"`
}

// Same says whether log and stream hold the same events.
func (v VerifyReport) Same() bool { return v.Missing == 0 && v.Differ == 0 && v.Log == v.Stream }

// verifyBatch is how many events of the log are read at once.
const verifyBatch = 1000

// Verify walks the log and the JetStream stream side by side and compares every message with what the relay would publish
// for its event: subject, headers and body. It changes nothing, and may run beside a relay. progress is told of every
// position, and may be nil.
func (r *Relay) Verify(ctx context.Context, progress func(position, last int64)) (VerifyReport, error) {
	head, err := r.Log.Head(ctx)
	if err != nil {
		return VerifyReport{}, fmt.Errorf("verify: %w", err)
	}
	v := verifying{relay: r, progress: progress, log: sha256.New(), stream: sha256.New()}
	s := scrubbing{Relay: r, content: true, same: v.same}
	v.scrubbing = &s
	found, err := s.run(ctx)
	if err != nil {
		return VerifyReport{}, fmt.Errorf("verify: %w", err)
	}
	report := VerifyReport{
		First: found.First, Last: found.Last, Head: head, Messages: found.Checked, Missing: found.Missing, Differ: found.Foreign,
		Log: hex.EncodeToString(v.log.Sum(nil)), Stream: hex.EncodeToString(v.stream.Sum(nil)),
	}
	if len(found.Positions) > 0 {
		report.FirstDifference, report.What = slices.Min(found.Positions), "the message is missing"
		if what, differs := v.differences[report.FirstDifference]; differs {
			report.What = what
		}
	}
	return report, nil
}

// verifying is a Verify under way.
type verifying struct {
	relay       *Relay
	scrubbing   *scrubbing
	progress    func(position, last int64)
	log, stream hash.Hash
	events      []eventstore.Event // of the log, from base+1 on
	base        int64
	differences map[int64]string
}

func (v *verifying) same(ctx context.Context, position int64, m jetstream.Msg) (bool, error) {
	if v.progress != nil {
		v.progress(position, v.scrubbing.report.Last)
	}
	if position > v.base+int64(len(v.events)) {
		v.base = position - 1
		var err error
		if v.events, err = v.relay.Log.ReadAll(ctx, v.base, verifyBatch); err != nil {
			return false, err
		}
	}
	add(v.stream, m.Headers().Get(cloudevent.HeaderID), m.Data())
	i := position - v.base - 1
	if i >= int64(len(v.events)) {
		v.differs(position, "the log has no such event")
		return false, nil
	}
	e, what := v.events[i], ""
	// STREAM_PERSONAL may have been another when the message was published.
	for _, omit := range []bool{v.relay.OmitPersonal, !v.relay.OmitPersonal} {
		header, body := cloudevent.Encode(e, cloudevent.Options{Source: v.relay.Source, OmitPersonal: omit})
		difference := compare(cloudevent.Subject(e), header, body, m)
		if difference == "" {
			add(v.log, e.ID.String(), body)
			return true, nil
		}
		what = cmp.Or(what, difference)
	}
	add(v.log, e.ID.String(), e.Payload())
	v.differs(position, what)
	return false, nil
}

func add(sum hash.Hash, id string, body []byte) {
	sum.Write([]byte(id))
	sum.Write(body)
}

func (v *verifying) differs(position int64, what string) {
	if v.differences == nil {
		v.differences = map[int64]string{}
	}
	if len(v.differences) < maxListed {
		v.differences[position] = what
	}
}

// compare says what of a message is not as it should be, "" where all of it is.
func compare(subject string, header nats.Header, body []byte, m jetstream.Msg) string {
	if m.Subject() != subject {
		return fmt.Sprintf("the subject is %s, the log says %s", m.Subject(), subject)
	}
	for name := range header {
		if name == cloudevent.HeaderSource { // a setting, which may have been another
			continue
		}
		if got, want := m.Headers().Get(name), header.Get(name); got != want {
			return fmt.Sprintf("the header %s is %q, the log says %q", name, got, want)
		}
	}
	if !bytes.Equal(m.Data(), body) {
		return "the body is another than the log says"
	}
	return ""
}
