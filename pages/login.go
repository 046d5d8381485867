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

// loginPage is where somebody logs in: by address and password, and then by a second factor where there is one.
type loginPage struct {
	look.View
	Text            look.LoginPage
	Email, Password look.Field
	Code            look.Field
	Begun           string // by which the second step goes on; "" in the first
	Problem         string
	Unverified      bool // the address is to be confirmed first
	Register, Again string
}

func newLoginPage(v *visit, email string) loginPage {
	w := v.Words
	return loginPage{
		View: v.View, Text: w.Login, Register: v.withBack("/register"), Again: v.withBack("/login"),
		Email:    look.Field{Name: "email", Label: w.Fields.Email, Type: "email", Autocomplete: "username", Value: email},
		Password: look.Field{Name: "password", Label: w.Fields.Password, Type: "password", Autocomplete: "current-password"},
		Code:     codeField(w),
	}
}

// codeField is where a one-time password or a recovery code goes.
func codeField(w *look.Words) look.Field {
	return look.Field{Name: "totp", Label: w.Fields.Code, Type: "text", Autocomplete: "one-time-code", Hint: w.Fields.CodeHint}
}

// showLogin answers GET /login. Who is logged in goes straight on, unless it is asked for that somebody logs in all the same (OpenID
// Connect's prompt); whom it is likely to be may be said too (login_hint).
func (p *pages) showLogin(_ context.Context, v *visit) (server.Answer, error) {
	if v.User != nil && v.query.Get("prompt") != "login" {
		return goTo(v.back()), nil
	}
	v.Nav = nil
	return p.loginStill.show(v, func() loginPage { return newLoginPage(v, v.query.Get("login_hint")) })
}

func (p *pages) doLogin(ctx context.Context, v *visit) (server.Answer, error) {
	begin := time.Now()
	begun := v.form.Get("begun")
	result, err := p.logIn(ctx, v, identity.BegunLogin(begun))
	var next *identity.FactorRequiredError
	switch {
	case err == nil:
		return p.loggedIn(ctx, v, result)
	case errors.As(err, &next):
		begun = string(next.Begun)
	case errors.Is(err, identity.ErrInvalidCredentials) && begun == "" && p.Identity.EnumerationSafe():
		server.EvenOut(ctx, begin) // of a user who is not in memory more is read than of nobody
	}
	v.Nav = nil
	return refused(err, p.login, func(f server.Failure) loginPage {
		page := newLoginPage(v, v.form.Get("email"))
		w := v.Words
		switch {
		case errors.Is(err, identity.ErrLoginOver):
			begun, page.Problem = "", w.Login.Over
		case next != nil: // it is not the fault of anybody
		case errors.Is(err, errNeeded) || f.Code == identity.CodeTOTPRequired:
			page.Code.Errors, page.Email.Errors, page.Password.Errors = needed(v, "totp"), needed(v, "email"), needed(v, "password")
		case f.Code == identity.CodeInvalidEmail:
			page.Email.Errors = []string{w.Fields.InvalidEmail}
		case f.Code == identity.CodeInvalidCredentials && begun != "":
			page.Code.Errors = []string{w.Fields.WrongCode}
		case f.Code == identity.CodeInvalidCredentials:
			page.Problem = w.Login.Wrong
		case f.Code == identity.CodeEmailNotVerified:
			page.Problem, page.Unverified = w.Login.Unverified, true
		case f.Code == identity.CodePasswordExpired:
			begun, page.Problem = "", w.Login.Expired
		default:
			page.Problem = problem(v.Echo(), w, f)
		}
		if page.Begun = begun; begun == "" {
			page.Unverified = page.Unverified || p.Identity.LoginNeedsVerifiedEmail()
		}
		return page
	})
}

// logIn begins a login, or goes on with one.
func (p *pages) logIn(ctx context.Context, v *visit, begun identity.BegunLogin) (identity.LoginResult, error) {
	if begun != "" {
		result, err := p.Identity.ContinueLogin(ctx, identity.FactorShown{
			Begun: begun, TOTP: identity.FactorCode(v.form.Get("totp")), Device: v.BrowserDevice(), Metadata: v.Metadata(),
		})
		p.LoggedIn(err)
		return result, err
	}
	email, secret := v.form.Get("email"), v.form.Get("password")
	if email == "" || secret == "" {
		return identity.LoginResult{}, errNeeded
	}
	result, err := p.Identity.Login(ctx, identity.Credentials{Email: email, Password: password.Password(secret), Device: v.BrowserDevice(), Metadata: v.Metadata()})
	p.LoggedIn(err)
	return result, err
}

// loggedIn gives the browser the session of a login, in the place of the one that it had, and leads on.
func (p *pages) loggedIn(ctx context.Context, v *visit, r identity.LoginResult) (server.Answer, error) {
	if err := p.endPresent(ctx, v); err != nil {
		return server.Answer{}, err
	}
	v.LogInBrowser(r)
	return goTo(v.back()).At(r.Position), nil
}

// endPresent ends the session that the browser has, if any.
func (p *pages) endPresent(ctx context.Context, v *visit) error {
	if v.User == nil {
		return nil
	}
	_, err := p.Identity.EndSession(ctx, v.User.ID, v.Session, identity.EndedLogout, v.Metadata())
	if errors.Is(err, identity.ErrNotFound) { // it has ended by itself
		err = nil
	}
	return err
}

// needed is what is said of a field of the form that is empty; nothing of any other.
func needed(v *visit, name string) []string {
	if v.form.Get(name) != "" {
		return nil
	}
	return []string{v.Words.Fields.Needed}
}
