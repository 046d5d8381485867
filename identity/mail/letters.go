package mail

import (
	"bytes"
	"fmt"
	htmltemplate "html/template"
	"io/fs"
	"net/url"
	"strings"

	"usher.example/brand"
	"usher.example/eventstore"
	"usher.example/identity"
	"usher.example/words"
)

// LettersConfig is what mails are written with.
type LettersConfig struct {
	Brand brand.Brand
	// AccountURL is where the pages are that mails link to: what the links begin with, and what mails call the service.
	AccountURL *url.URL
	// Replaced has templates that stand in for ours: see findTemplates. It may be nil.
	Replaced fs.FS
}

// Letters writes mails: in whose name, in which language, and by which templates. It is safe for concurrent use.
type Letters struct {
	account   *url.URL
	words     *words.Catalogue[Words]
	templates map[manner]*pair
	frame     Letter // what is in every letter
	logo      *Logo
}

// manner is how a mail is written.
type manner struct {
	kind     kind
	language string
}

// Logo is the brand's logo as mails bring it along.
type Logo struct {
	brand.Picture
	Content []byte
}

// Address is what HTML refers to it by.
func (*Logo) Address() string { return "cid:" + logoID }

// logoID is what a mail calls the logo that it brings along (RFC 2392).
const logoID = "logo@usher"

// maxLogo bounds a logo that mails bring along, in bytes: each does.
const maxLogo = 32 << 10

// NewLetters makes letters. It fails where the brand can't be used, or a template, whose file and line the error names.
func NewLetters(c LettersConfig) (*Letters, error) {
	l := &Letters{account: c.AccountURL, frame: Letter{Brand: strings.Join(strings.Fields(oneLine(c.Brand.Name)), " "), Site: c.AccountURL.Host, URL: c.AccountURL.String()}}
	var err error
	if l.frame.OnLight, l.frame.OnDark, err = c.Brand.Colours(); err != nil {
		return nil, err
	}
	if len(c.Brand.Logo) > 0 {
		picture, err := c.Brand.Picture()
		if err != nil {
			return nil, err
		}
		// Few mail programs show other pictures.
		if shown := picture.ContentType == "image/png" || picture.ContentType == "image/jpeg"; shown && len(c.Brand.Logo) <= maxLogo {
			l.logo = &Logo{picture, c.Brand.Logo}
			l.frame.Logo = htmltemplate.URL(l.logo.Address())
		}
	}
	if l.words, err = loadWords(); err != nil {
		return nil, err
	}
	if l.templates, err = findTemplates(c.Replaced); err != nil {
		return nil, err
	}
	return l, l.try()
}

// link is where a code is used: a page of ours, or of an application.
func (l *Letters) link(k kind, c identity.MailCode) string {
	link := l.account.JoinPath("account", string(k))
	link.RawQuery = url.Values{"code": {string(c)}}.Encode()
	return link.String()
}

// about is what is said in a mail of a kind about an event, to a user.
func (l *Letters) about(k kind, e eventstore.Event, u *identity.User) Letter {
	w := l.words.Choose(u.Locale())
	letter := w.of(k)
	if !k.carriesCode() {
		letter.Facts = w.factsOf(e)
	}
	if u.EmailVerified && k != kindEmail { // which goes to an address that is not the user's yet
		letter.Name = plain(u.Name)
	}
	return letter
}

// write makes a message of what a mail of a kind says.
func (l *Letters) write(k kind, to identity.Email, letter Letter) (Message, error) {
	letter.Brand, letter.Site, letter.URL = l.frame.Brand, l.frame.Site, l.frame.URL
	letter.OnLight, letter.OnDark, letter.Logo = l.frame.OnLight, l.frame.OnDark, l.frame.Logo
	t, known := l.templates[manner{k, letter.Language}]
	if !known { // it was written down by another version, which knows more kinds
		return Message{}, fmt.Errorf("there is no mail of the kind %s", k)
	}
	var text, html bytes.Buffer
	if t.subject != nil {
		if err := t.textFile.fill(t.subject, &text, letter); err != nil {
			return Message{}, err
		}
		letter.Subject = text.String()
		text.Reset()
	}
	letter.Subject = strings.Join(strings.Fields(oneLine(letter.Subject)), " ")
	if err := t.textFile.fill(t.text, &text, letter); err != nil {
		return Message{}, err
	}
	if err := t.htmlFile.fill(t.html, &html, letter); err != nil {
		return Message{}, err
	}
	return Message{To: to, Language: letter.Language, Subject: letter.Subject, Link: letter.Link, Text: text.String(), HTML: html.String(), Logo: l.logo}, nil
}
