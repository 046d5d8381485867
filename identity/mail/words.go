package mail

import (
	"embed"
	"io/fs"
	"strconv"
	"time"

	"usher.example/words"
)

// Words are all texts of the mails in one language.
type Words struct {
	words.Tongue

	Facts struct {
		Time      string `json:"time"`
		From      string `json:"from"`
		With      string `json:"with"`
		By        string `json:"by"`
		Operators string `json:"operators"`
	} `json:"facts"`
	Date   words.Phrase `json:"date"`
	Months [12]string   `json:"months"`
	NotYou string       `json:"not_you"` // what notices end with

	Verify          CodeWords      `json:"verify"`
	Reset           CodeWords      `json:"reset"`
	Email           CodeWords      `json:"email"`
	PasswordChanged NoticeWords    `json:"password_changed"`
	EmailChanged    OtherwiseWords `json:"email_changed"`
	RegisteredAgain OtherwiseWords `json:"registered_again"`
	TOTPEnabled     NoticeWords    `json:"totp_enabled"`
	TOTPDisabled    NoticeWords    `json:"totp_disabled"`
	RecoveryCodes   NoticeWords    `json:"recovery_codes"`
	NewDevice       OtherwiseWords `json:"new_device"`
}

// NoticeWords are those of a mail that says what happened.
type NoticeWords struct {
	Subject string `json:"subject"`
	Lead    string `json:"lead"`
}

// OtherwiseWords have something of their own to say of who it was.
type OtherwiseWords struct {
	NoticeWords
	Otherwise string `json:"otherwise"`
}

// CodeWords are those of a mail with a link to follow.
type CodeWords struct {
	OtherwiseWords
	Action string `json:"action"`
	Lasts  string `json:"lasts"`
}

// of is what a mail of a kind says, as far as that is the same for everybody.
func (w *Words) of(k kind) Letter {
	notice := func(n NoticeWords, notes ...string) Letter {
		return Letter{Language: w.Language, Direction: w.Direction, Subject: n.Subject, Lead: n.Lead, Notes: notes}
	}
	code := func(c CodeWords) Letter {
		l := notice(c.NoticeWords, c.Lasts, c.Otherwise)
		l.Action = c.Action
		return l
	}
	switch k {
	case kindVerify:
		return code(w.Verify)
	case kindReset:
		return code(w.Reset)
	case kindEmail:
		return code(w.Email)
	case kindPasswordChanged:
		return notice(w.PasswordChanged, w.NotYou)
	case kindEmailChanged:
		return notice(w.EmailChanged.NoticeWords, w.EmailChanged.Otherwise)
	case kindRegisteredAgain:
		return notice(w.RegisteredAgain.NoticeWords, w.RegisteredAgain.Otherwise)
	case kindTOTPEnabled:
		return notice(w.TOTPEnabled, w.NotYou)
	case kindTOTPDisabled:
		return notice(w.TOTPDisabled, w.NotYou)
	case kindRecoveryCodes:
		return notice(w.RecoveryCodes, w.NotYou)
	case kindNewDevice:
		return notice(w.NewDevice.NoticeWords, w.NewDevice.Otherwise, w.NotYou)
	}
	return Letter{}
}

// date is a moment as people write it.
func (w *Words) date(t time.Time) string {
	t = t.UTC()
	text := w.Date
	for name, value := range map[string]string{
		"day": strconv.Itoa(t.Day()), "month": w.Months[t.Month()-1], "year": strconv.Itoa(t.Year()), "time": t.Format("15:04"),
	} {
		text = words.Phrase(text.With(name, value))
	}
	return string(text)
}

//go:embed words/*.json
var texts embed.FS

func loadWords() (*words.Catalogue[Words], error) {
	folder, err := fs.Sub(texts, "words")
	if err != nil {
		return nil, err
	}
	return words.Load[Words](folder)
}
