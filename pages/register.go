package pages

import (
	"context"
	"errors"
	"time"

	"usher.example/identity"
	"usher.example/identity/password"
	"usher.example/pages/look"
	"usher.example/server"
)

// registerPage is where somebody becomes a user.
type registerPage struct {
	look.View
	Text                  look.RegisterPage
	Name, Email, Password look.Field
	Login                 string
	Done                  bool
	Problem               string
}

func newRegisterPage(v *visit) registerPage {
	w := v.Words
	v.Nav = nil
	return registerPage{
		View: v.View, Text: w.Register, Login: v.withBack("/login"), Done: v.isDone(),
		Name:     look.Field{Name: "name", Label: w.Fields.NameOptional, Type: "text", Autocomplete: "name", Value: v.form.Get("name"), Optional: true},
		Email:    look.Field{Name: "email", Label: w.Fields.Email, Type: "email", Autocomplete: "email", Value: v.form.Get("email")},
		Password: look.Field{Name: "new_password", Label: w.Fields.Password, Type: "password", Autocomplete: "new-password"},
	}
}

func (p *pages) showRegister(_ context.Context, v *visit) (server.Answer, error) {
	if v.User != nil {
		return goTo(v.back()), nil
	}
	return show(p.register, newRegisterPage(v))
}

// doRegister answers POST /register. Where the address has to be confirmed before anybody logs in, there is one answer whether or not it
// is taken, as far as the API has one; otherwise who registers is logged in.
func (p *pages) doRegister(ctx context.Context, v *visit) (server.Answer, error) {
	begin := time.Now()
	email, secret := v.form.Get("email"), password.Password(v.form.Get("new_password"))
	err := errNeeded
	var made identity.RegisterResult
	if email != "" && secret != "" {
		made, err = p.Identity.Register(ctx, identity.Registration{Email: email, Password: secret, Name: v.form.Get("name"), Metadata: v.Metadata()})
		p.Registered(err)
	}
	if err != nil {
		return p.refuseRegistration(v, err)
	}
	if p.Identity.EnumerationSafe() {
		server.EvenOut(ctx, begin)
	}
	if p.Identity.LoginNeedsVerifiedEmail() {
		return goTo(v.link("/register", "done", "")).At(made.Position), nil
	}
	result, err := p.Identity.Login(ctx, identity.Credentials{Email: email, Password: secret, Device: v.BrowserDevice(), Metadata: v.Metadata()})
	p.LoggedIn(err)
	if err != nil { // the account is there all the same
		return goTo(v.withBack("/login")).At(made.Position), nil
	}
	return p.loggedIn(ctx, v, result)
}

func (p *pages) refuseRegistration(v *visit, err error) (server.Answer, error) {
	return refused(err, p.register, func(f server.Failure) registerPage {
		page := newRegisterPage(v)
		fields := v.Words.Fields
		switch {
		case errors.Is(err, errNeeded):
			page.Email.Errors, page.Password.Errors = needed(v, "email"), needed(v, "new_password")
		case f.Code == identity.CodeInvalidEmail:
			page.Email.Errors = []string{fields.InvalidEmail}
		case f.Code == identity.CodeEmailTaken:
			page.Email.Errors = []string{fields.EmailTaken}
		case f.Code == identity.CodeInvalidName:
			page.Name.Errors = []string{fields.InvalidName}
		case f.Code == identity.CodePasswordRefused:
			page.Password.Errors = passwordErrors(v.Words, err)
		default:
			page.Problem = problem(v.Echo(), v.Words, f)
		}
		return page
	})
}
