package pages

import (
	"context"
	"errors"

	"github.com/google/uuid"

	"usher.example/identity"
	"usher.example/pages/look"
	"usher.example/server"
)

// accountPage is somebody's profile: the name, the language and the address.
type accountPage struct {
	look.View
	Text         look.AccountPage
	Name, Locale look.Field
	Email        string
	Verified     bool
	NewEmail     look.Field
	Proof        proof
	Told         string
	Problem      string
}

// The forms of the page, and what it says once they were carried out.
const (
	formProfile = "profile"
	formVerify  = "verify"
	formEmail   = "email"
)

func (p *pages) newAccountPage(v *visit) accountPage {
	w := v.Words
	value := func(name, present string) string {
		if v.form.Has(name) {
			return v.form.Get(name)
		}
		return present
	}
	page := accountPage{
		View: v.View, Text: w.Account, Email: v.User.Email, Verified: v.User.EmailVerified, Proof: newProof(v),
		Name:     look.Field{Name: "name", Label: w.Fields.Name, Type: "text", Autocomplete: "name", Value: value("name", v.User.Name), Optional: true},
		Locale:   look.Field{Name: "locale", Label: w.Fields.Locale, Autocomplete: "language", Value: value("locale", v.User.Locale())},
		NewEmail: look.Field{Name: "email", Label: w.Fields.NewEmail, Type: "email", Autocomplete: "email", Value: v.form.Get("email")},
	}
	page.Locale.Options = p.tongues(w, page.Locale.Value)
	switch v.query.Get("done") {
	case formProfile:
		page.Told = w.Account.Saved
	case formVerify, formEmail:
		page.Told = w.Account.Sent
	}
	return page
}

// tongues are the languages to choose from, and that which somebody has chosen elsewhere.
func (p *pages) tongues(w *look.Words, chosen string) []look.Option {
	list := []look.Option{{Value: "", Label: w.Fields.AnyLocale}}
	known := chosen == ""
	for _, t := range p.look.Tongues() {
		list = append(list, look.Option{Value: t.Tag, Label: t.Name})
		known = known || t.Tag == chosen
	}
	if !known {
		list = append(list, look.Option{Value: chosen, Label: chosen})
	}
	return list
}

func (p *pages) showAccount(_ context.Context, v *visit) (server.Answer, error) {
	return show(p.account, p.newAccountPage(v))
}

func (p *pages) doAccount(ctx context.Context, v *visit) (server.Answer, error) {
	form := v.form.Get("form")
	position, err := p.changeAccount(ctx, v, form)
	if err == nil {
		return v.doneWith(form, position), nil
	}
	return refused(err, p.account, func(f server.Failure) accountPage {
		page := p.newAccountPage(v)
		fields := v.Words.Fields
		switch {
		case form == formEmail && errors.Is(err, errNeeded):
			page.NewEmail.Errors = needed(v, "email")
			page.Proof.needed(v)
		case form == formEmail && page.Proof.refuse(v, f):
		case f.Code == identity.CodeInvalidEmail:
			page.NewEmail.Errors = []string{fields.InvalidEmail}
		case f.Code == identity.CodeEmailTaken:
			page.NewEmail.Errors = []string{fields.EmailTaken}
		case f.Code == identity.CodeInvalidName:
			page.Name.Errors = []string{fields.InvalidName}
		default:
			page.Problem = problem(v.Echo(), v.Words, f)
		}
		return page
	})
}

// changeAccount does what one of the page's forms is for, and answers with where in the log that is.
func (p *pages) changeAccount(ctx context.Context, v *visit, form string) (int64, error) {
	id := v.User.ID
	switch form {
	case formProfile:
		name, locale := v.form.Get("name"), v.form.Get("locale")
		result, err := p.Identity.UpdateOwnProfile(ctx, id, identity.ProfileChange{Name: &name, Locale: &locale}, v.Metadata())
		return result.Position, err
	case formVerify:
		result, err := p.Identity.RequestVerification(ctx, id, uuid.Nil, v.Metadata())
		return result.Position, err
	case formEmail:
		if v.form.Get("email") == "" || !v.isProven() {
			return 0, errNeeded
		}
		result, err := p.Identity.RequestEmailChange(ctx, id, v.proof(), v.form.Get("email"), uuid.Nil, v.Metadata())
		return result.Position, err
	}
	return 0, server.Refuse(identity.CodeInvalidRequest, "there is no such form")
}
