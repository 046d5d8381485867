package mail

import (
	"bytes"
	"embed"
	"fmt"
	htmltemplate "html/template"
	"net/url"
	"strings"
	"text/template"
	"unicode"

	"usher.example/eventstore"
	"usher.example/identity"
)

// letter is what a mail says. One layout makes it text, another HTML.
//
// It says nothing that a stranger could choose: a name given at registration would let anybody send a text of their own
// to anybody, in our name.
type letter struct {
	Subject      string
	Before       []string // paragraphs
	Action, Link string   // what to follow, and where to; "" where there is nothing
	Facts        []fact
	After        []string // paragraphs
}

type fact struct{ Name, Value string }

var codeLetters = map[identity.Purpose]letter{
	identity.PurposeVerify: {
		Subject: "Confirm your email address",
		Before:  []string{"An account was registered with this address. Please confirm that the address is yours."},
		Action:  "Confirm the address",
		After: []string{"The link works once, for 24 hours. A later mail of this kind replaces it.",
			"If it was not you who registered, you need not do anything."},
	},
	identity.PurposeReset: {
		Subject: "Choose a new password",
		Before:  []string{"A new password was asked for, for the account with this address."},
		Action:  "Choose a new password",
		After: []string{"The link works once, for an hour. A later mail of this kind replaces it. With the new password, every login on every device ends.",
			"If it was not you who asked, you need not do anything: the password stays as it is."},
	},
	identity.PurposeEmail: {
		Subject: "Confirm your new email address",
		Before:  []string{"This address was given as the new one of an account. Please confirm that it is yours."},
		Action:  "Confirm the new address",
		After: []string{"The link works once, for an hour. Until then the account keeps the address that it has.",
			"If it was not you who asked, you need not do anything."},
	},
}

// notYou is what notices end with.
const notYou = "If it was not you, choose a new password at once: ask for one where you log in."

var noticeLetters = map[kind]letter{
	kindPasswordChanged: {
		Subject: "Your password was changed",
		Before:  []string{"The password of your account was changed. Logins on other devices have ended."},
		After:   []string{notYou},
	},
	kindEmailChanged: {
		Subject: "Your email address was changed",
		Before:  []string{"Your account has another email address from now on. This one does not belong to it any more."},
		After:   []string{"If it was not you, somebody else has your account: get in touch with those who run the service, at once."},
	},
	kindRegisteredAgain: {
		Subject: "You have an account already",
		Before:  []string{"Somebody registered with this address, which has an account already. Nothing was changed."},
		After: []string{"If it was you, log in, or ask for a new password where you log in.",
			"If it was not you, you need not do anything."},
	},
	kindTOTPEnabled: {
		Subject: "One-time passwords were switched on",
		Before:  []string{"Logins to your account ask for a one-time password from now on, beside the password."},
		After:   []string{notYou},
	},
	kindRecoveryCodes: {
		Subject: "New recovery codes were made",
		Before:  []string{"Recovery codes were made for your account, each of which stands in for a one-time password once. Those from before are of no use any more."},
		After:   []string{notYou},
	},
	kindTOTPDisabled: {
		Subject: "One-time passwords were switched off",
		Before:  []string{"Logins to your account do not ask for a one-time password any more."},
		After:   []string{notYou},
	},
	kindNewDevice: {
		Subject: "A login from a new device",
		Before:  []string{"Somebody logged in to your account, from where we have not seen you before."},
		After:   []string{"If it was you, you need not do anything. " + notYou},
	},
}

// withLink is the letter with a link to follow.
func (l letter) withLink(link string) letter {
	l.Link = link
	return l
}

// about is the letter with the circumstances of an event: when it was, and where from, unless somebody else did it, whose
// address is not the user's to know.
func (l letter) about(e eventstore.Event) letter {
	l.Facts = []fact{{"Time", e.RecordedAt.UTC().Format("2 January 2006, 15:04 UTC")}}
	if !identity.IsActor(e.Metadata.Actor, e.Stream.Subject) {
		if e.Metadata.Actor != "" && e.Metadata.Actor != identity.ActorAnonymous {
			l.Facts = append(l.Facts, fact{"By", "those who run the service"})
		}
		return l
	}
	if e.Metadata.Address != "" {
		l.Facts = append(l.Facts, fact{"From", plain(e.Metadata.Address)})
	}
	if e.Metadata.UserAgent != "" {
		l.Facts = append(l.Facts, fact{"With", plain(e.Metadata.UserAgent)})
	}
	return l
}

// maxFact bounds what is shown of a client's own description of itself, in characters.
const maxFact = 150

// plain makes a text that a client chose fit to be shown: one line, short, and nothing that mail programs make a link of.
func plain(text string) string {
	text = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ReplaceAll(text, "://", ": //"))
	if runes := []rune(text); len(runes) > maxFact {
		text = string(runes[:maxFact]) + "…"
	}
	return text
}

//go:embed templates
var templates embed.FS

var (
	textLayout = template.Must(template.ParseFS(templates, "templates/letter.txt"))
	htmlLayout = htmltemplate.Must(htmltemplate.ParseFS(templates, "templates/letter.html"))
)

// message is the letter to an address, ready to be sent.
func (l letter) message(to identity.Email, from *url.URL) (Message, error) {
	page := struct {
		letter
		Site, URL string
	}{l, from.Host, from.String()}
	var text, html bytes.Buffer
	if err := textLayout.Execute(&text, page); err != nil {
		return Message{}, fmt.Errorf("write a letter: %w", err)
	}
	if err := htmlLayout.Execute(&html, page); err != nil {
		return Message{}, fmt.Errorf("write a letter: %w", err)
	}
	return Message{To: to, Subject: l.Subject, Link: l.Link, Text: text.String(), HTML: html.String()}, nil
}
