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
		Skip string `json:"skip"`
	} `json:"layout"`
	Home struct {
		Title      string `json:"title"`
		About      string `json:"about"`
		Developers string `json:"developers"`
		Document   string `json:"document"`
		Metadata   string `json:"metadata"`
	} `json:"home"`
	Fields struct {
		NewPassword string `json:"new_password"`
		Needed      string `json:"needed"` // what is said of one that is empty
	} `json:"fields"`
	Verify  CodePage  `json:"verify"`
	Email   CodePage  `json:"email"`
	Reset   ResetPage `json:"reset"`
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

// CodePage is a page for the code of a mail.
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
