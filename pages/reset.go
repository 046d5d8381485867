package pages

import (
	"context"
	"errors"

	"github.com/google/uuid"

	"usher.example/identity"
	"usher.example/identity/password"
	"usher.example/pages/look"
	"usher.example/server"
)

// resetPage is where another password is set with the code of a mail.
type resetPage struct {
	look.View
	Text     look.ResetPage
	Code     string
	Password look.Field
	Done     bool
	Problem  string // what is wrong with the code
}

func newResetPage(v *visit, code string) resetPage {
	return resetPage{View: v.View, Text: v.Words.Reset, Code: code, Password: look.Field{
		Name: "new_password", Label: v.Words.Fields.NewPassword, Type: "password", Autocomplete: "new-password",
	}}
}

// showReset answers GET with the same page for every code.
func (p *pages) showReset(_ context.Context, v *visit) (server.Answer, error) {
	page := newResetPage(v, v.query.Get("code"))
	page.Done = v.isDone()
	if page.Code == "" && !page.Done {
		page.Problem = v.Words.Failed.InvalidCode
	}
	return show(p.reset, page)
}

func (p *pages) doReset(ctx context.Context, v *visit) (server.Answer, error) {
	code := v.form.Get("code")
	set, err := p.resetPassword(ctx, v, identity.MailCode(code), password.Password(v.form.Get("new_password")))
	if err != nil {
		return refused(err, p.reset, func(f server.Failure) resetPage {
			page := newResetPage(v, code)
			switch {
			case errors.Is(err, errNeeded):
				page.Password.Errors = []string{v.Words.Fields.Needed}
			case f.Code == identity.CodePasswordRefused: // the code is still good
				page.Password.Errors = passwordErrors(v.Words, err)
			default:
				page.Problem = problem(v.Echo(), v.Words, f)
			}
			return page
		})
	}
	return v.done(set.Position), nil
}

// errNeeded: a field of a form has no value.
var errNeeded = server.Refuse(identity.CodeInvalidRequest, "a field that is needed is empty")

func (p *pages) resetPassword(ctx context.Context, v *visit, c identity.MailCode, secret password.Password) (identity.PasswordSet, error) {
	if secret == "" {
		return identity.PasswordSet{}, errNeeded
	}
	return p.Identity.ResetPassword(ctx, c, secret, uuid.Nil, v.Metadata())
}
