package look

import (
	"bytes"
	"embed"
	"encoding/json"
	"fmt"
	"strings"

	"golang.org/x/text/feature/plural"
	"golang.org/x/text/language"
	"golang.org/x/text/message"
	"golang.org/x/text/number"
)

// Words are all texts of the pages in one language. What a page says is a field here, so that a text which is not there does
// not compile, or is found before anything is served where a template names it.
type Words struct {
	Language  string `json:"-"` // as in HTML's lang
	Direction string `json:"direction"`

	Layout struct {
		Skip string `json:"skip"`
	} `json:"layout"`
	Home struct {
		Title      string `json:"title"`
		About      string `json:"about"`
		Developers string `json:"developers"`
		Document   string `json:"document"`
		Metadata   string `json:"metadata"`
		Login      string `json:"login"`
		Register   string `json:"register"`
		Account    string `json:"account"`
	} `json:"home"`
	Nav struct {
		Label    string `json:"label"`
		Profile  string `json:"profile"`
		Sessions string `json:"sessions"`
		Security string `json:"security"`
		Activity string `json:"activity"`
		Data     string `json:"data"`
		Logout   string `json:"logout"`
	} `json:"nav"`
	Fields struct {
		Name            string `json:"name"`
		NameOptional    string `json:"name_optional"`
		Email           string `json:"email"`
		NewEmail        string `json:"new_email"`
		Password        string `json:"password"`
		CurrentPassword string `json:"current_password"`
		NewPassword     string `json:"new_password"`
		Code            string `json:"code"`
		CodeHint        string `json:"code_hint"`
		Locale          string `json:"locale"`
		AnyLocale       string `json:"any_locale"`

		Needed        string `json:"needed"` // what is said of one that is empty
		InvalidEmail  string `json:"invalid_email"`
		EmailTaken    string `json:"email_taken"`
		InvalidName   string `json:"invalid_name"`
		WrongPassword string `json:"wrong_password"`
		WrongCode     string `json:"wrong_code"`
	} `json:"fields"`
	Login    LoginPage    `json:"login"`
	Logout   LogoutPage   `json:"logout"`
	Register RegisterPage `json:"register"`
	Forgot   CodePage     `json:"forgot"`
	Resend   CodePage     `json:"resend"`
	Verify   CodePage     `json:"verify"`
	Email    CodePage     `json:"email"`
	Reset    ResetPage    `json:"reset"`
	Refused  struct {
		TooLong    string `json:"too_long"`
		Characters string `json:"characters"`
		TooShort   Plural `json:"too_short"`
		Common     string `json:"common"`
		Pattern    string `json:"pattern"`
		Email      string `json:"email"`
		Name       string `json:"name"`
		Word       string `json:"word"`
		Classes    string `json:"classes"`
		Reused     string `json:"reused"`
	} `json:"refused"`
	Failed struct {
		Title       string `json:"title"`
		Request     Phrase `json:"request"` // under which it is in the log
		InvalidCode string `json:"invalid_code"`
		AlreadyDone string `json:"already_done"`
		EmailTaken  string `json:"email_taken"`
		Locked      string `json:"locked"`
		Disabled    string `json:"disabled"`
		NotFound    string `json:"not_found"`
		CrossSite   string `json:"cross_site"`
		BadRequest  string `json:"bad_request"`
		TooOften    Plural `json:"too_often"` // seconds
		Busy        string `json:"busy"`
		Unknown     string `json:"unknown"`
		Internal    string `json:"internal"`
	} `json:"failed"`
}

// CodePage is a page for the code of a mail, or for asking for one.
type CodePage struct {
	Title     string `json:"title"`
	Lead      string `json:"lead"`
	Action    string `json:"action"`
	DoneTitle string `json:"done_title"`
	Done      string `json:"done"`
}

// ResetPage is that for the code with which another password is set.
type ResetPage struct {
	CodePage
	Again string `json:"again"` // where the code is no good
}

// LoginPage is that on which somebody logs in.
type LoginPage struct {
	Title        string `json:"title"`
	Action       string `json:"action"`
	Wrong        string `json:"wrong"`
	Over         string `json:"over"` // a login that began too long ago
	Unverified   string `json:"unverified"`
	Expired      string `json:"expired"` // a password that is too old
	Forgot       string `json:"forgot"`
	Resend       string `json:"resend"`
	Register     string `json:"register"`
	FactorTitle  string `json:"factor_title"`
	FactorLead   string `json:"factor_lead"`
	FactorAction string `json:"factor_action"`
	Again        string `json:"again"`
}

// LogoutPage is that on which somebody logs out.
type LogoutPage struct {
	Title       string `json:"title"`
	Lead        string `json:"lead"`
	Action      string `json:"action"`
	DoneTitle   string `json:"done_title"`
	Done        string `json:"done"`
	Login       string `json:"login"`
	ErasedTitle string `json:"erased_title"`
	Erased      string `json:"erased"`
}

// RegisterPage is that on which somebody becomes a user.
type RegisterPage struct {
	Title     string `json:"title"`
	Action    string `json:"action"`
	Login     string `json:"login"`
	DoneTitle string `json:"done_title"`
	Done      string `json:"done"`
}

// Phrase is a text with a place {name} for something.
type Phrase string

// With is the text with a value in its place.
func (p Phrase) With(name, value string) string {
	return strings.ReplaceAll(string(p), "{"+name+"}", value)
}

// Plural is a text about a number, {n}, in each form that the language has for one (CLDR).
type Plural struct {
	language language.Tag
	forms    map[string]Phrase
}

// UnmarshalJSON reads the forms by their names.
func (p *Plural) UnmarshalJSON(raw []byte) error { return json.Unmarshal(raw, &p.forms) }

var formNames = map[plural.Form]string{
	plural.Zero: "zero", plural.One: "one", plural.Two: "two", plural.Few: "few", plural.Many: "many", plural.Other: "other",
}

// For is the text about a number.
func (p Plural) For(n int) string {
	form := formNames[plural.Cardinal.MatchPlural(p.language, n, 0, 0, 0, 0)]
	return p.forms[form].With("n", message.NewPrinter(p.language).Sprint(number.Decimal(n)))
}

//go:embed words/*.json
var catalogues embed.FS

// languages are those that there are words in. The first is for whoever wants none of them.
var languages = []language.Tag{language.English, language.German, language.French, language.Spanish, language.Japanese, language.Arabic}

func loadWords() (list []*Words, err error) {
	for _, tag := range languages {
		w, err := readWords(tag)
		if err != nil {
			return nil, fmt.Errorf("read the words in %s: %w", tag, err)
		}
		list = append(list, w)
	}
	return list, nil
}

func readWords(tag language.Tag) (*Words, error) {
	raw, err := catalogues.ReadFile("words/" + tag.String() + ".json")
	if err != nil {
		return nil, err
	}
	w := Words{Language: tag.String()}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(&w); err != nil {
		return nil, err
	}
	w.Refused.TooShort.language, w.Failed.TooOften.language = tag, tag
	return &w, nil
}

var matcher = language.NewMatcher(languages)

// maxWishes bounds what is read of a wish for languages, in bytes.
const maxWishes = 512

// Choose is the words in the first language that somebody wishes for. A wish is a list as ui_locales has it (OpenID Connect,
// section 3.1.2.1), the locale of a user, or as in Accept-Language; "" for none. The first wish that names a language which there
// is, or one whose speakers mostly read one of those, counts.
func (l *Look) Choose(wishes ...string) *Words {
	for _, wish := range wishes {
		if len(wish) > maxWishes {
			wish = wish[:maxWishes]
		}
		wish = strings.Join(strings.Fields(strings.ReplaceAll(wish, "_", "-")), " ")
		if !strings.ContainsAny(wish, ",;") {
			wish = strings.ReplaceAll(wish, " ", ",")
		}
		tags, _, err := language.ParseAcceptLanguage(wish)
		if err != nil || len(tags) == 0 {
			continue
		}
		if _, at, confidence := matcher.Match(tags...); confidence > language.No {
			return l.words[at]
		}
	}
	return l.words[0]
}
