package look

import (
	"embed"
	"io/fs"

	"usher.example/words"
)

// Words are all texts of the pages in one language. What a page says is a field here, so that a text which is not there does
// not compile, or is found before anything is served where a template names it.
type Words struct {
	words.Tongue

	Layout struct {
		Skip   string `json:"skip"`
		Tongue string `json:"tongue"` // the name of the language in itself
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
		Consents string `json:"consents"`
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
		TOTPSetup       string `json:"totp_setup"`

		Needed        string `json:"needed"` // what is said of one that is empty
		InvalidEmail  string `json:"invalid_email"`
		EmailTaken    string `json:"email_taken"`
		InvalidName   string `json:"invalid_name"`
		WrongPassword string `json:"wrong_password"`
		WrongCode     string `json:"wrong_code"`
	} `json:"fields"`
	Login    LoginPage    `json:"login"`
	Onward   OnwardPage   `json:"onward"`
	Consent  ConsentPage  `json:"consent"`
	Logout   LogoutPage   `json:"logout"`
	Register RegisterPage `json:"register"`
	Forgot   CodePage     `json:"forgot"`
	Resend   CodePage     `json:"resend"`
	Account  AccountPage  `json:"account"`
	Sessions SessionsPage `json:"sessions"`
	Consents ConsentsPage `json:"consents"`
	Security SecurityPage `json:"security"`
	Data     DataPage     `json:"data"`
	Activity ActivityPage `json:"activity"`
	// Events say what happened: by the type of an event, or that and the reason which it names.
	Events  map[string]words.Phrase `json:"events"`
	Verify  CodePage                `json:"verify"`
	Email   CodePage                `json:"email"`
	Reset   ResetPage               `json:"reset"`
	Device  DevicePage              `json:"device"`
	Refused struct {
		TooLong    string       `json:"too_long"`
		Characters string       `json:"characters"`
		TooShort   words.Plural `json:"too_short"`
		Common     string       `json:"common"`
		Pattern    string       `json:"pattern"`
		Email      string       `json:"email"`
		Name       string       `json:"name"`
		Word       string       `json:"word"`
		Classes    string       `json:"classes"`
		Reused     string       `json:"reused"`
	} `json:"refused"`
	Failed struct {
		Title       string       `json:"title"`
		Request     words.Phrase `json:"request"` // under which it is in the log
		InvalidCode string       `json:"invalid_code"`
		AlreadyDone string       `json:"already_done"`
		EmailTaken  string       `json:"email_taken"`
		Locked      string       `json:"locked"`
		Disabled    string       `json:"disabled"`
		NotFound    string       `json:"not_found"`
		CrossSite   string       `json:"cross_site"`
		BadRequest  string       `json:"bad_request"`
		TooOften    words.Plural `json:"too_often"` // seconds
		Busy        string       `json:"busy"`
		Unknown     string       `json:"unknown"`
		Internal    string       `json:"internal"`
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

// OnwardPage is that from which somebody who has logged in goes on.
type OnwardPage struct {
	Title  string `json:"title"`
	Lead   string `json:"lead"`
	Action string `json:"action"`
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

//go:embed words/*.json
var texts embed.FS

func loadWords() (*words.Catalogue[Words], error) {
	folder, err := fs.Sub(texts, "words")
	if err != nil {
		return nil, err
	}
	return words.Load[Words](folder)
}

// Choose is the words in the first language that somebody wishes for: see words.Match.
func (l *Look) Choose(wishes ...string) *Words { return l.words.Choose(wishes...) }
