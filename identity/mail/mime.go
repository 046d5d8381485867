package mail

import (
	"bytes"
	"io"
	"net/mail"
	"strings"

	"github.com/google/uuid"
	gomail "github.com/wneessen/go-mail"
)

// Write writes the message as it is sent, as from an address.
func (m Message) Write(w io.Writer, from mail.Address) error {
	_, err := m.mime(from).WriteTo(w)
	return err
}

// mime is the message in MIME: as text and as HTML, with the logo that HTML shows.
func (m Message) mime(from mail.Address) *gomail.Msg {
	message := gomail.NewMsg(gomail.WithNoDefaultUserAgent())
	message.FromMailAddress(&from)
	message.ToMailAddress(&mail.Address{Address: m.To.Mailbox()})
	message.Subject(m.Subject)
	message.SetMessageIDWithValue(uuid.NewString() + from.Address[strings.LastIndexByte(from.Address, '@'):])
	message.SetGenHeader("Auto-Submitted", "auto-generated") // nobody's absence is to be answered to us (RFC 3834)
	if m.Language != "" {
		message.SetGenHeader("Content-Language", m.Language)
	}
	message.SetBodyString(gomail.TypeTextPlain, m.Text)
	message.AddAlternativeString(gomail.TypeTextHTML, m.HTML)
	if m.Logo != nil {
		message.EmbedReadSeeker("logo"+m.Logo.Extension, bytes.NewReader(m.Logo.Content),
			gomail.WithFileContentID("<"+logoID+">"), gomail.WithFileContentType(gomail.ContentType(m.Logo.ContentType)))
	}
	return message
}
