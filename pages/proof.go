package pages

import (
	"context"
	"errors"

	"usher.example/identity"
	"usher.example/identity/password"
	"usher.example/pages/look"
	"usher.example/server"
)

// proof are the fields by which whoever is logged in shows who that is: a session that was stolen must not be enough for what they
// stand beside.
type proof struct {
	Password   look.Field
	Code       look.Field
	NeedsCode  bool
	ChosenName string // for programs that keep passwords: whose it is
}

func newProof(v *visit) proof {
	return proof{
		NeedsCode: v.User.TOTPEnabled, ChosenName: v.User.Email, Code: codeField(v.Words),
		Password: look.Field{Name: "current_password", Label: v.Words.Fields.CurrentPassword, Type: "password", Autocomplete: "current-password"},
	}
}

// proof is what was shown.
func (v *visit) proof() identity.Proof {
	return identity.Proof{Session: v.Session, Password: password.Password(v.form.Get("current_password")), TOTP: identity.FactorCode(v.form.Get("totp"))}
}

// isProven says whether what is needed was shown, good or not.
func (v *visit) isProven() bool { return v.form.Get("current_password") != "" }

// needed says which fields are empty.
func (p *proof) needed(v *visit) {
	p.Password.Errors = needed(v, "current_password")
	if p.NeedsCode {
		p.Code.Errors = needed(v, "totp")
	}
}

// refuse says at a field what is wrong with it, and answers with false where it is something else that went wrong.
func (p *proof) refuse(v *visit, f server.Failure) bool {
	switch {
	case f.Code == identity.CodeTOTPRequired:
		p.NeedsCode = true
		p.Code.Errors = needed(v, "totp")
	case errors.Is(f.Err, errNeeded):
		p.needed(v)
	case f.Code == identity.CodeInvalidCredentials && errors.Is(f.Err, identity.ErrWrongPassword):
		p.Password.Errors = []string{v.Words.Fields.WrongPassword}
	case f.Code == identity.CodeInvalidCredentials:
		p.Code.Errors = []string{v.Words.Fields.WrongCode}
		p.NeedsCode = true
	default:
		return false
	}
	return true
}

// provePage asks for a proof before something is done, and says what that is.
type provePage struct {
	look.View
	Title, Lead, Action, Back string
	Before                    *way     // what else there is
	Subtitle                  string   // after that
	Points                    []string // what follows from it
	Hidden                    []hiddenField
	Proof                     proof
	Lately                    bool // the login was, and is proof enough
	BackTo                    string
	Danger                    bool // it can't be undone
	Problem                   string
}

// way leads elsewhere, and says for what.
type way struct{ Lead, Text, Path string }

// hiddenField goes back with the form as it came.
type hiddenField struct{ Name, Value string }

// provesFirst are the handlers of a page that asks for a proof, and does something on the strength of it.
func (p *pages) provesFirst(about func(*visit) provePage, do func(context.Context, *visit) (server.Answer, error)) (shown, sent handler) {
	shown = func(_ context.Context, v *visit) (server.Answer, error) {
		page := about(v)
		page.View, page.Proof = v.View, newProof(v)
		return show(p.prove, page)
	}
	sent = func(ctx context.Context, v *visit) (server.Answer, error) {
		a, err := server.Answer{}, errNeeded
		if v.isProven() || about(v).Lately {
			a, err = do(ctx, v)
		}
		if err == nil {
			return a, nil
		}
		return refused(err, p.prove, func(f server.Failure) provePage {
			page := about(v)
			page.View, page.Proof = v.View, newProof(v)
			if !page.Proof.refuse(v, f) {
				page.Problem = problem(v.Echo(), v.Words, f)
			}
			return page
		})
	}
	return shown, sent
}
