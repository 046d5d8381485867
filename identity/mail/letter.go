package mail

import (
	htmltemplate "html/template"
	"strings"
	"unicode"

	"usher.example/eventstore"
	"usher.example/identity"
)

// Letter is what a mail says: what its templates are filled from, ours and those that stand in for them.
//
// Ours say nothing that a stranger could choose: a name given at registration would let anybody send a text of their own to
// anybody, in our name. So Name is there for templates of others only once the address that the mail goes to was shown to be the user's.
type Letter struct {
	Language, Direction string // as HTML's lang and dir have them
	Brand               string // the name of the service
	Site, URL           string // where the pages are that mails link to: the host, and the address
	OnLight, OnDark     string // the brand's colour, for light and for dark grounds
	// Logo is the address of the brand's logo, which the mail brings along; "" for none. Nothing is fetched to show a mail, so that
	// nobody learns when, where and on what it was read.
	Logo htmltemplate.URL

	Subject      string
	Name         string // of the user; "" where it must not be said, or is not known
	Lead         string
	Action, Link string // what to follow, and where to; "" where there is nothing
	Facts        []Fact
	Notes        []string
}

// Fact is a circumstance of what a mail is about.
type Fact struct{ Name, Value string }

// factsOf are the circumstances of an event: when it was, and where from, unless somebody else did it, whose address is not the
// user's to know.
func (w *Words) factsOf(e eventstore.Event) []Fact {
	facts := []Fact{{w.Facts.Time, w.date(e.RecordedAt)}}
	if !identity.IsActor(e.Metadata.Actor, e.Stream.Subject) {
		if e.Metadata.Actor != "" && e.Metadata.Actor != identity.ActorAnonymous {
			facts = append(facts, Fact{w.Facts.By, w.Facts.Operators})
		}
		return facts
	}
	if e.Metadata.Address != "" {
		facts = append(facts, Fact{w.Facts.From, plain(e.Metadata.Address)})
	}
	if e.Metadata.UserAgent != "" {
		facts = append(facts, Fact{w.Facts.With, plain(e.Metadata.UserAgent)})
	}
	return facts
}

// maxFact bounds what is shown of what somebody chose, such as a client's description of itself, in characters.
const maxFact = 150

// plain makes a text that somebody chose fit to be shown: one line, short, and nothing that mail programs make a link of.
func plain(text string) string {
	text = oneLine(strings.ReplaceAll(text, "://", ": //"))
	if runes := []rune(text); len(runes) > maxFact {
		text = string(runes[:maxFact]) + "…"
	}
	return text
}

// oneLine is a text without what breaks a line, or turns what follows around: what is not printed becomes a space.
func oneLine(text string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, text)
}
