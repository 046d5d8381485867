package look

import "usher.example/words"

// DevicePage is that on which somebody lets a device in that has no browser.
type DevicePage struct {
	Title  string `json:"title"`
	Lead   string `json:"lead"`
	Code   string `json:"code"`
	Hint   string `json:"hint"`
	Action string `json:"action"`
	Wrong  string `json:"wrong"` // a code that no device shows

	AskTitle string       `json:"ask_title"`
	AskLead  string       `json:"ask_lead"`
	May      string       `json:"may"`
	Shown    string       `json:"shown"`
	Origin   words.Phrase `json:"origin"`
	Allow    string       `json:"allow"`
	Deny     string       `json:"deny"`

	AllowedTitle string `json:"allowed_title"`
	Allowed      string `json:"allowed"`
	DeniedTitle  string `json:"denied_title"`
	Denied       string `json:"denied"`
}
