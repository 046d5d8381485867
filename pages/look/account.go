package look

import "usher.example/words"

// AccountPage is that of the profile.
type AccountPage struct {
	Title        string `json:"title"`
	Save         string `json:"save"`
	Saved        string `json:"saved"`
	EmailTitle   string `json:"email_title"`
	Verified     string `json:"verified"`
	Unverified   string `json:"unverified"`
	Send         string `json:"send"`
	Sent         string `json:"sent"`
	ChangeTitle  string `json:"change_title"`
	ChangeLead   string `json:"change_lead"`
	ChangeAction string `json:"change_action"`
}

// SessionsPage is that of the logins that go on.
type SessionsPage struct {
	Title     string       `json:"title"`
	Current   string       `json:"current"`
	Began     words.Phrase `json:"began"`
	Used      words.Phrase `json:"used"`
	Address   words.Phrase `json:"address"`
	Unknown   string       `json:"unknown"`
	Device    words.Phrase `json:"device"`
	End       string       `json:"end"`
	EndOthers string       `json:"end_others"`
	Ended     string       `json:"ended"`
	Gone      string       `json:"gone"`
	ProveLead string       `json:"prove_lead"`
}

// ConsentsPage is that of what applications are let do.
type ConsentsPage struct {
	Title  string                  `json:"title"`
	Lead   string                  `json:"lead"`
	None   string                  `json:"none"`
	Since  words.Phrase            `json:"since"`
	End    string                  `json:"end"`
	Ended  string                  `json:"ended"`
	Other  words.Phrase            `json:"other"`  // a scope that has no words
	Scopes map[string]words.Phrase `json:"scopes"` // what each lets an application do
}

// InWords is what a scope lets an application do.
func (c ConsentsPage) InWords(scope string) string {
	if text, known := c.Scopes[scope]; known {
		return string(text)
	}
	return c.Other.With("scope", "\u2066"+scope+"\u2069") // left to right (Unicode's LRI and PDI)
}

// ConsentPage is that on which somebody is asked whether to let an application in.
type ConsentPage struct {
	Title words.Phrase `json:"title"` // with the name of the application
	Who   words.Phrase `json:"who"`   // is logged in
	Lead  string       `json:"lead"`  // above what it may do
	Where string       `json:"where"` // above the host that one is led on to
	Allow string       `json:"allow"`
	Deny  string       `json:"deny"`
}

// SecurityPage is that of the password and the second factor.
type SecurityPage struct {
	Title            string       `json:"title"`
	PasswordTitle    string       `json:"password_title"`
	PasswordLead     string       `json:"password_lead"`
	PasswordAction   string       `json:"password_action"`
	PasswordDone     string       `json:"password_done"`
	FactorTitle      string       `json:"factor_title"`
	FactorOff        string       `json:"factor_off"`
	FactorOn         string       `json:"factor_on"`
	FactorUnverified string       `json:"factor_unverified"`
	FactorStart      string       `json:"factor_start"`
	FactorStop       string       `json:"factor_stop"`
	FactorStarted    string       `json:"factor_started"`
	FactorStopped    string       `json:"factor_stopped"`
	FactorOver       string       `json:"factor_over"`
	ProveLead        string       `json:"prove_lead"`
	SetupLead        string       `json:"setup_lead"`
	SetupPicture     string       `json:"setup_picture"`
	SetupKey         words.Phrase `json:"setup_key"`
	SetupAction      string       `json:"setup_action"`
	CodesTitle       string       `json:"codes_title"`
	CodesLead        string       `json:"codes_lead"`
	CodesAction      string       `json:"codes_action"`
	CodesMade        string       `json:"codes_made"`
	CodesKept        string       `json:"codes_kept"`
	Back             string       `json:"back"`
}

// DataPage is that of all that there is of somebody.
type DataPage struct {
	Title        string `json:"title"`
	EraseTitle   string `json:"erase_title"`
	EraseAll     string `json:"erase_all"`
	EraseOut     string `json:"erase_out"`
	EraseNever   string `json:"erase_never"`
	EraseAction  string `json:"erase_action"`
	LastAdmin    string `json:"last_admin"`
	ExportLead   string `json:"export_lead"`
	ExportAction string `json:"export_action"`
}

// ActivityPage is that of what happened.
type ActivityPage struct {
	Title  string       `json:"title"`
	None   string       `json:"none"`
	Older  string       `json:"older"`
	Behind string       `json:"behind"`
	Other  words.Phrase `json:"other"`
}
