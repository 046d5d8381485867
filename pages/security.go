package pages

import (
	"context"
	"errors"

	"github.com/pquerna/otp"

	"usher.example/identity"
	"usher.example/identity/password"
	"usher.example/pages/look"
	"usher.example/server"
)

// securityPage is the password, and the way to the second factor.
type securityPage struct {
	look.View
	Text     look.SecurityPage
	Verified bool
	Password look.Field
	Proof    proof
	Factor   bool // there is a second one
	Told     string
	Problem  string
}

// What the page says once something was done.
const (
	donePassword = "password"
	doneFactor   = "factor"
	doneOff      = "off"
)

func newSecurityPage(v *visit) securityPage {
	w := v.Words
	page := securityPage{
		View: v.View, Text: w.Security, Verified: v.User.EmailVerified, Factor: v.User.TOTPEnabled, Proof: newProof(v),
		Password: look.Field{Name: "new_password", Label: w.Fields.NewPassword, Type: "password", Autocomplete: "new-password"},
	}
	switch v.query.Get("done") {
	case donePassword:
		page.Told = w.Security.PasswordDone
	case doneFactor:
		page.Told = w.Security.FactorStarted
	case doneOff:
		page.Told = w.Security.FactorStopped
	}
	return page
}

func (p *pages) showSecurity(_ context.Context, v *visit) (server.Answer, error) {
	return show(p.security, newSecurityPage(v))
}

func (p *pages) doPassword(ctx context.Context, v *visit) (server.Answer, error) {
	chosen := v.form.Get("new_password")
	err := errNeeded
	var set identity.PasswordSet
	if chosen != "" && v.isProven() {
		set, err = p.Identity.ChangePassword(ctx, identity.PasswordChange{
			User: v.User.ID, Session: v.Session, Proof: v.proof(), New: password.Password(chosen), Metadata: v.Metadata(),
		})
	}
	if err == nil {
		v.KnowDevice(set.Device)
		return v.doneWith(donePassword, set.Position), nil
	}
	return refused(err, p.security, func(f server.Failure) securityPage {
		page := newSecurityPage(v)
		switch {
		case errors.Is(err, errNeeded):
			page.Password.Errors = needed(v, "new_password")
			page.Proof.needed(v)
		case f.Code == identity.CodePasswordRefused:
			page.Password.Errors = passwordErrors(v.Words, err)
		case !page.Proof.refuse(v, f):
			page.Problem = problem(v.Echo(), v.Words, f)
		}
		return page
	})
}

// toSecurity leads to the page, as programs that keep passwords want it (A Well-Known URL for Changing Passwords, W3C).
func toSecurity(_ context.Context, v *visit) (server.Answer, error) {
	return goTo(v.link("/account/security", "", "")), nil
}

// factorPage is where an authenticator is set up.
type factorPage struct {
	look.View
	Text    look.SecurityPage
	URL     string // that the authenticator reads; it goes back with the form, to show the picture again
	Key     string
	Picture picture
	Action  string // where the form goes
	Code    look.Field
}

// setup is the page for the secret of an otpauth URL.
func (p *pages) setup(v *visit, address string) (factorPage, error) {
	key, err := otp.NewKeyFromURL(address)
	if err != nil || key.Type() != "totp" || len(address) > maxReturn {
		return factorPage{}, server.Refuse(identity.CodeInvalidRequest, "there is no secret to set up")
	}
	drawn, err := draw(address)
	return factorPage{
		View: v.View, Text: v.Words.Security, Action: v.link("/account/security/confirm", "", ""), URL: address, Key: leftToRight(grouped(key.Secret())), Picture: drawn,
		Code: look.Field{Name: "totp", Label: v.Words.Fields.TOTPSetup, Type: "text", Autocomplete: "one-time-code", Numeric: true},
	}, err
}

// grouped is a key as people copy it: in groups of four.
func grouped(key string) string {
	text := ""
	for i, r := range key {
		if i > 0 && i%4 == 0 {
			text += " "
		}
		text += string(r)
	}
	return text
}

func aboutFactor(v *visit) provePage {
	w := v.Words.Security
	return provePage{Title: w.FactorStart, Lead: w.ProveLead, Action: w.FactorStart, Back: w.Back, BackTo: v.link("/account/security", "", "")}
}

// startFactor makes a secret and shows it, once: it is the answer to the form, since it must not be had by anything less.
func (p *pages) startFactor(ctx context.Context, v *visit) (server.Answer, error) {
	key, err := p.Identity.StartTOTP(ctx, v.User.ID, v.proof(), v.Metadata())
	if err != nil {
		return server.Answer{}, err
	}
	page, err := p.setup(v, string(key.URL))
	if err != nil {
		return server.Answer{}, err
	}
	return show(p.factor, page)
}

// confirmFactor turns the second factor on, by a code of the secret that the page showed.
func (p *pages) confirmFactor(ctx context.Context, v *visit) (server.Answer, error) {
	page, err := p.setup(v, v.form.Get("otpauth"))
	if err != nil {
		return server.Answer{}, err
	}
	err = errNeeded
	var result int64
	if code := v.form.Get("totp"); code != "" {
		done, failed := p.Identity.ConfirmTOTP(ctx, v.User.ID, identity.FactorCode(code), v.Metadata())
		result, err = done.Position, failed
	}
	if err == nil {
		return goTo(v.link("/account/security", "done", doneFactor)).At(result), nil
	}
	switch server.CodeOf(err) {
	case identity.CodeInvalidCode, identity.CodeInvalidRequest, identity.CodeThrottled:
		return refused(err, p.factor, func(f server.Failure) factorPage {
			switch {
			case errors.Is(err, errNeeded):
				page.Code.Errors = needed(v, "totp")
			case f.Code == identity.CodeInvalidCode:
				page.Code.Errors = []string{v.Words.Fields.WrongCode}
			default:
				page.Code.Errors = []string{problem(v.Echo(), v.Words, f)}
			}
			return page
		})
	}
	return refused(err, p.security, func(f server.Failure) securityPage {
		page := newSecurityPage(v)
		page.Problem = problem(v.Echo(), v.Words, f)
		if f.Code == identity.CodeTOTPNotEnabled {
			page.Problem = v.Words.Security.FactorOver
		}
		return page
	})
}

func aboutOff(v *visit) provePage {
	w := v.Words.Security
	return provePage{Title: w.FactorStop, Lead: w.ProveLead, Action: w.FactorStop, Back: w.Back, BackTo: v.link("/account/security", "", "")}
}

func (p *pages) stopFactor(ctx context.Context, v *visit) (server.Answer, error) {
	result, err := p.Identity.DisableTOTP(ctx, v.User.ID, v.proof(), v.Metadata())
	return goTo(v.link("/account/security", "done", doneOff)).At(result.Position), err
}

func aboutCodes(v *visit) provePage {
	w := v.Words.Security
	return provePage{Title: w.CodesTitle, Points: []string{w.CodesLead}, Lead: w.ProveLead, Action: w.CodesAction, Back: w.Back, BackTo: v.link("/account/security", "", "")}
}

// codesPage shows recovery codes, once.
type codesPage struct {
	look.View
	Text  look.SecurityPage
	Codes []string
	Back  string
}

func (p *pages) makeCodes(ctx context.Context, v *visit) (server.Answer, error) {
	codes, result, err := p.Identity.NewRecoveryCodes(ctx, v.User.ID, v.proof(), v.Metadata())
	if err != nil {
		return server.Answer{}, err
	}
	page := codesPage{View: v.View, Text: v.Words.Security, Back: v.link("/account/security", "", "")}
	for _, c := range codes {
		page.Codes = append(page.Codes, string(c))
	}
	a, err := show(p.codes, page)
	return a.At(result.Position), err
}
