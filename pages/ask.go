package pages

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"

	"usher.example/eventstore"
	"usher.example/identity"
	"usher.example/pages/look"
	"usher.example/server"
)

// askPage is where somebody who is not logged in asks for a mail, and is not told whether anybody has the address.
type askPage struct {
	look.View
	Text    look.CodePage
	Email   look.Field
	Done    bool
	Problem string
}

func forgotText(w *look.Words) look.CodePage { return w.Forgot }
func resendText(w *look.Words) look.CodePage { return w.Resend }

func newAskPage(v *visit, text look.CodePage) askPage {
	return askPage{View: v.View, Text: text, Done: v.isDone(), Email: look.Field{
		Name: "email", Label: v.Words.Fields.Email, Type: "email", Autocomplete: "username", Value: v.form.Get("email"),
	}}
}

func (p *pages) showAsk(text func(*look.Words) look.CodePage) handler {
	return func(_ context.Context, v *visit) (server.Answer, error) {
		return show(p.ask, newAskPage(v, text(v.Words)))
	}
}

func (p *pages) doAsk(text func(*look.Words) look.CodePage, ask func(context.Context, string, uuid.UUID, eventstore.Metadata) error) handler {
	return func(ctx context.Context, v *visit) (server.Answer, error) {
		begin := time.Now()
		err := errNeeded
		if email := v.form.Get("email"); email != "" {
			err = ask(ctx, email, uuid.Nil, v.Metadata())
			server.EvenOut(ctx, begin)
		}
		if err == nil {
			return v.done(0), nil
		}
		return refused(err, p.ask, func(f server.Failure) askPage {
			page := newAskPage(v, text(v.Words))
			switch {
			case errors.Is(err, errNeeded):
				page.Email.Errors = needed(v, "email")
			case f.Code == identity.CodeInvalidEmail:
				page.Email.Errors = []string{v.Words.Fields.InvalidEmail}
			default:
				page.Problem = problem(v.Echo(), v.Words, f)
			}
			return page
		})
	}
}
