package publisher

import (
	"context"
	"errors"
	"fmt"
	"reflect"

	"github.com/nats-io/nats.go/jetstream"
)

// StreamReport is how the JetStream stream stands, for whoever looks after it.
type StreamReport struct {
	First, Last uint64   // sequences
	Messages    uint64   // fewer than from first to last where users were erased
	Bytes       uint64   // on disk
	Replicas    int      // that are current, the leader included
	Drift       []string // of the configuration: "field is x, wanted y"
	Missing     int64    // the first position that has no message and ought to, 0 where there is none
	Consumers   []ConsumerReport
}

// ConsumerReport is how far a durable consumer is.
type ConsumerReport struct {
	Name      string `json:"name"`
	Pending   uint64 `json:"pending"`    // messages that it has not been given yet
	Unacked   int    `json:"unacked"`    // given and not acknowledged
	Redeliver int    `json:"redelivers"` // given more than once
	Acked     uint64 `json:"acked"`      // the sequence up to which everything is acknowledged
	// Config is how it is set up. One with cloudevent.MetadataPerUser in its metadata was paused because it filters by the
	// subjects of a user, which there are no longer: its owner gives it the filter of a shard, and resumes it.
	Config jetstream.ConsumerConfig `json:"-"`
	Paused bool                     `json:"paused"`
}

// Inspect reads the state of the JetStream stream and of its durable consumers. It changes nothing. It fails with
// jetstream.ErrStreamNotFound where there is no stream.
func (r *Relay) Inspect(ctx context.Context) (StreamReport, error) {
	info, err := r.look(ctx)
	if err != nil {
		return StreamReport{}, err
	}
	report := StreamReport{
		First: info.State.FirstSeq, Last: info.State.LastSeq, Messages: info.State.Msgs, Bytes: info.State.Bytes,
		Replicas: 1, Drift: drift(info.Config, r.Stream.wanted(info.Config)),
	}
	head, err := r.Log.Head(ctx)
	if err != nil {
		return StreamReport{}, fmt.Errorf("inspect the stream: %w", err)
	}
	missing, err := r.missing(ctx, info, head)
	if err == nil {
		missing, err = r.lost(ctx, missing, 1)
	}
	if err != nil {
		return StreamReport{}, fmt.Errorf("inspect the stream: %w", err)
	}
	if len(missing) > 0 {
		report.Missing = missing[0]
	}
	if info.Cluster != nil {
		for _, peer := range info.Cluster.Replicas {
			if peer.Current && !peer.Offline {
				report.Replicas++
			}
		}
	}
	stream, err := r.js.Stream(ctx, r.Stream.Name)
	if err != nil {
		return StreamReport{}, fmt.Errorf("inspect the stream: %w", err)
	}
	list := stream.ListConsumers(ctx)
	for c := range list.Info() {
		if c.Config.Durable == "" && !Intrudes(c.Config) {
			continue
		}
		report.Consumers = append(report.Consumers, ConsumerReport{
			Name: c.Name, Pending: c.NumPending, Unacked: c.NumAckPending, Redeliver: c.NumRedelivered, Acked: c.AckFloor.Stream,
			Config: c.Config, Paused: c.Paused,
		})
	}
	if err := list.Err(); err != nil && !errors.Is(err, jetstream.ErrEndOfData) {
		return StreamReport{}, fmt.Errorf("inspect the consumers: %w", err)
	}
	return report, nil
}

// drift names every field of a configuration that is not as wanted.
func drift(is, wanted jetstream.StreamConfig) (list []string) {
	have, want := reflect.ValueOf(is), reflect.ValueOf(wanted)
	for i := range have.NumField() {
		if a, b := have.Field(i).Interface(), want.Field(i).Interface(); !reflect.DeepEqual(a, b) {
			list = append(list, fmt.Sprintf("%s is %v, wanted %v", have.Type().Field(i).Name, a, b))
		}
	}
	return list
}
