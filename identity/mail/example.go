package mail

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"usher.example/eventstore"
	"usher.example/identity"
)

// Names are what mails are called, as in the names of their templates.
func Names() []string {
	list := make([]string, len(kinds))
	for i, k := range kinds {
		list[i] = string(k)
	}
	return list
}

// Example is a mail as it would be sent to somebody who reads a language: about somebody who does not exist, with a link that leads
// nowhere. It fails where there is no mail of that name.
func (l *Letters) Example(name, language string) (Message, error) {
	if !slices.Contains(kinds, kind(name)) {
		return Message{}, fmt.Errorf("there is no mail %q; there are %s", name, strings.Join(Names(), ", "))
	}
	w := l.words.Choose(language)
	return l.write(kind(name), exampleUser, l.examples(kind(name), w)[0])
}

var exampleUser = func() identity.Email {
	e, err := identity.ParseEmail("ada@example.org")
	if err != nil {
		panic(err)
	}
	return e
}()

// examples are letters of a kind, with all that there can be first, and then with as little.
func (l *Letters) examples(k kind, w *Words) []Letter {
	user := uuid.UUID{15: 1}
	full := w.of(k)
	full.Name = "Ada Lovelace"
	if k.carriesCode() {
		full.Link = l.link(k, "EXAMPLE-of-a-code-that-is-as-long-as-one-that-is-sent")
	} else {
		full.Facts = w.factsOf(eventstore.Event{
			Stream: eventstore.UserStream(user), RecordedAt: time.Date(2026, time.January, 2, 15, 4, 0, 0, time.UTC),
			Metadata: eventstore.Metadata{Actor: identity.ActorUser(user), Address: "192.0.2.1",
				UserAgent: "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"},
		})
	}
	little := full
	little.Name, little.Facts = "", nil
	if !k.carriesCode() {
		little.Facts = full.Facts[:1]
	}
	return []Letter{full, little}
}
