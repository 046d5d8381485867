package subscription

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Places is how many processes of one NATS user can follow a RevocationFeed at once, unless the user was given another number.
const Places = 8

// metadataFeed is the key, in the metadata of a feed's consumer, of what tells the feed from others that run as the same user.
const metadataFeed = "usher-feed"

// RevocationConsumers are the names and filters of the consumers that RevocationFeeds of a NATS user make, with so many places: one
// for each place and type of event that ends sessions. The user has to be allowed to publish to
//
//	$JS.API.CONSUMER.CREATE.USHER.<name>.<filter>
//	$JS.API.CONSUMER.INFO.USHER.<name>
//	$JS.API.CONSUMER.DELETE.USHER.<name>
//	$JS.API.CONSUMER.MSG.NEXT.USHER.<name>
//
// for each of them and to nothing else, so that it reaches no other's consumer and gets no event with personal data: what the server
// is asked for in the first has the one subject that the consumer delivers, and a wildcard in the place of the name would be the
// right to change any consumer that somebody made. `usher deploy nats add-service NAME --verifier` writes such a user.
func RevocationConsumers(user string, places int) iter.Seq2[string, string] {
	return func(yield func(name, filter string) bool) {
		for _, eventType := range revoking {
			for place := range places {
				if !yield(placeName(user, eventType, place), Type(eventType)) {
					return
				}
			}
		}
	}
}

func placeName(user, eventType string, place int) string {
	return user + "-" + strings.ReplaceAll(eventType, ".", "-") + "-" + strconv.Itoa(place)
}

// brokerUser is the NATS user that a connection logs in as, "" for none.
func brokerUser(conn *nats.Conn) string {
	if user := BrokerUser(cmp.Or(conn.Opts.Url, strings.Join(conn.Opts.Servers, ","))); user != "" {
		return user
	}
	return subjectToken(conn.Opts.User)
}

// settle makes a consumer in a place for a type of event that is free, beginning with the one that the feed had last. So a
// process that reconnects takes the place that it has: of what is left there from before it knows that it is its own.
func (l *feedLoop) settle(ctx context.Context, eventType string, config jetstream.ConsumerConfig) (jetstream.Consumer, error) {
	first, known := l.places[eventType]
	if !known {
		first = l.firstPlace
	}
	for i := range l.count {
		place := (first + i) % l.count
		config.Name = placeName(l.user, eventType, place)
		l.places[eventType] = place
		consumer, err := l.create(ctx, config)
		if taken(err) {
			if err = l.leave(ctx, config.Name); err == nil {
				consumer, err = l.create(ctx, config)
			}
		}
		switch {
		case err == nil:
			return consumer, nil
		case !taken(err) && !errors.Is(err, errTaken):
			return nil, err
		}
	}
	delete(l.places, eventType)
	return nil, fmt.Errorf("%w: the NATS user %s has %d, and as many processes follow its revocations; a user of its own for each service, "+
		"or more places, are what `usher deploy nats add-service NAME --verifier --places N` writes, and RevocationFeed.Places is N then; "+
		"the place of a process that was killed is free within a minute", errNoPlace, l.user, l.count)
}

var (
	errNoPlace = errors.New("no place is free")
	errTaken   = errors.New("another process has the place")
)

// taken says whether a consumer could not be made because there is one of the name, that of another feed or of another time.
func taken(err error) bool {
	const nameInUse jetstream.ErrorCode = 10013 // as some servers of a cluster say it
	var answer *jetstream.APIError
	return errors.Is(err, jetstream.ErrConsumerExists) || errors.As(err, &answer) && answer.ErrorCode == nameInUse
}

// leave deletes a consumer of this feed, so that its place is free; errTaken if it is another's. Should it be forgotten and made by
// another in between, that one finds it gone, and makes it again.
func (l *feedLoop) leave(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	consumer, err := l.JetStream.Consumer(ctx, l.stream(), name)
	switch {
	case errors.Is(err, jetstream.ErrConsumerNotFound):
		return nil
	case errors.Is(err, jetstream.ErrNotPullConsumer):
		return errTaken
	case err != nil:
		return l.explained(fmt.Errorf("look who has the place %s: %w", name, err))
	case consumer.CachedInfo().Config.Metadata[metadataFeed] != l.id:
		return errTaken
	}
	if err := l.JetStream.DeleteConsumer(ctx, l.stream(), name); err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
		return l.explained(fmt.Errorf("leave the place %s: %w", name, err))
	}
	return nil
}

// leaveAll frees the places of a feed that ends, for the process that may begin in its stead. Where that does not come about the
// server does it, when nobody has read for a while.
func (l *feedLoop) leaveAll(ctx context.Context) {
	const patience = 2 * time.Second
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	for eventType, place := range l.places {
		if !l.JetStream.Conn().IsConnected() {
			return
		}
		if err := l.leave(ctx, placeName(l.user, eventType, place)); err != nil && !errors.Is(err, errTaken) {
			return
		}
	}
}

// explained adds why the server did not answer, where it may be that the user may not ask: that shows only as the connection's error.
func (l *feedLoop) explained(err error) error {
	if !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, jetstream.ErrNoHeartbeat) {
		return err
	}
	refused := l.JetStream.Conn().LastError()
	if !errors.Is(refused, nats.ErrPermissionViolation) {
		return err
	}
	return fmt.Errorf("%w: the connection's last error is %w; the NATS user needs what `usher deploy nats add-service NAME --verifier` "+
		"writes, NAME being the user, with as many places as RevocationFeed.Places says", err, refused)
}
