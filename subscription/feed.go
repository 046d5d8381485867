package subscription

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"usher.example/eventstore"
)

// Feed is a Source for services that have no access to the log's database: it reads GET /v1/events, with one of Client, Key and
// Token, which needs the scope events:read; without users:read too, events come without their personal fields. Its fields are not
// changed once it is in use, and then it may be used by several goroutines.
type Feed struct {
	// URL is where the API is, for example https://users.example.org.
	URL string
	// Client gets access tokens for the service. One that is refused is replaced once, at once.
	Client *ClientCredentials
	// Key is a long-lived key of the service, usher_sk_….
	Key Secret
	// Token answers with an access token that is still good for a minute, wherever it is from. It is asked before every request.
	Token func(ctx context.Context) (string, error)
	// HTTP is http.DefaultClient when nil.
	HTTP *http.Client
}

const (
	feedPage    = 1000 // events that the API answers at once at most
	feedTimeout = 30 * time.Second
	// problemBytes is how much of an answer that is not what was asked for is read, to say why.
	problemBytes = 16 << 10
)

// ReadAll reads at most limit events after a position, in the order of their positions, without a gap: none at the end of
// the log. All fields of an event are in Data, as those of a message are. It fails where the API refuses, does not answer,
// or answers with something else.
func (f *Feed) ReadAll(ctx context.Context, after int64, limit int) ([]eventstore.Event, error) {
	ctx, cancel := context.WithTimeout(ctx, feedTimeout)
	defer cancel()
	fail := func(err error) error { return fmt.Errorf("read the feed after %d: %w", after, err) }
	query := url.Values{"after": {strconv.FormatInt(after, 10)}, "limit": {strconv.Itoa(min(limit, feedPage))}}
	response, err := f.get(ctx, strings.TrimSuffix(f.URL, "/")+"/v1/events?"+query.Encode())
	if err != nil {
		return nil, fail(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fail(refusal(response))
	}
	var page struct{ Items []feedEvent }
	if err := json.NewDecoder(response.Body).Decode(&page); err != nil {
		return nil, fail(err)
	}
	events := make([]eventstore.Event, len(page.Items))
	for i, item := range page.Items {
		if item.Position != after+int64(i)+1 {
			return nil, fail(fmt.Errorf("position %d comes where %d ought to be", item.Position, after+int64(i)+1))
		}
		if events[i], err = item.event(); err != nil {
			return nil, fail(fmt.Errorf("position %d: %w", item.Position, err))
		}
	}
	return events, nil
}

// get makes a request, and makes it again with another token if the client's is refused.
func (f *Feed) get(ctx context.Context, at string) (*http.Response, error) {
	client := f.HTTP
	if client == nil {
		client = http.DefaultClient
	}
	for again := false; ; again = true {
		bearer, err := f.bearer(ctx)
		if err != nil {
			return nil, err
		}
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
		if err != nil {
			return nil, err
		}
		r.Header.Set("Authorization", "Bearer "+bearer)
		response, err := client.Do(r)
		if err != nil || response.StatusCode != http.StatusUnauthorized || again || f.Client == nil || f.Key != "" {
			return response, err
		}
		response.Body.Close()
		f.Client.Refused(bearer)
	}
}

// refusal is an answer that is no page, as an error.
func refusal(response *http.Response) error {
	raw, err := io.ReadAll(io.LimitReader(response.Body, problemBytes))
	var problem struct{ Code, Detail string }
	if err = errors.Join(err, json.Unmarshal(raw, &problem)); err != nil || problem.Code == "" {
		return fmt.Errorf("answer %d", response.StatusCode)
	}
	return fmt.Errorf("answer %d %s: %s", response.StatusCode, problem.Code, problem.Detail)
}

// feedEvent is an event as the feed shows it.
type feedEvent struct {
	Position      int64
	ID            uuid.UUID
	Type          string
	SchemaVersion int `json:"schema_version"`
	Subject       string
	Stream        uuid.UUID
	Kind          eventstore.Kind `json:"stream_kind"`
	Version       int
	Time          time.Time
	Data          json.RawMessage
	Metadata      struct {
		eventstore.Metadata
		Address   string
		UserAgent string `json:"user_agent"`
	}
	Forgotten bool
}

// noSubject is the subject of an event that is about no user.
const noSubject = "system"

func (f feedEvent) event() (eventstore.Event, error) {
	e := eventstore.Event{
		Position: f.Position, ID: f.ID, Type: f.Type, SchemaVersion: f.SchemaVersion, Version: f.Version, RecordedAt: f.Time,
		Stream: eventstore.Stream{ID: f.Stream, Kind: f.Kind}, Data: f.Data, Metadata: f.Metadata.Metadata, Forgotten: f.Forgotten,
	}
	e.Metadata.Address, e.Metadata.UserAgent = f.Metadata.Address, f.Metadata.UserAgent
	if f.Subject == noSubject {
		return e, nil
	}
	var err error
	e.Stream.Subject, err = uuid.Parse(f.Subject)
	return e, err
}
