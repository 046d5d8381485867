package pages

import (
	"context"

	"usher.example/identity"
	"usher.example/pages/look"
	"usher.example/server"
)

// consentsPage is what somebody lets applications do.
type consentsPage struct {
	look.View
	Text    look.ConsentsPage
	Items   []consentShown
	Told    string
	Problem string
}

// consentShown is a consent in words.
type consentShown struct {
	Client, Name, Since string
	May                 []string
}

func (p *pages) showConsents(ctx context.Context, v *visit) (server.Answer, error) {
	page, err := p.newConsentsPage(ctx, v)
	if err != nil {
		return server.Answer{}, err
	}
	return show(p.consents, page)
}

func (p *pages) newConsentsPage(ctx context.Context, v *visit) (consentsPage, error) {
	list, err := p.Clients.Consents(ctx, v.User)
	w := v.Words.Consents
	page := consentsPage{View: v.View, Text: w}
	if v.isDone() {
		page.Told = w.Ended
	}
	for _, c := range list {
		shown := consentShown{Client: c.Client, Name: c.Name, Since: w.Since.With("time", moment(c.GivenAt))}
		for _, scope := range c.Scopes {
			shown.May = append(shown.May, w.InWords(shorten(scope)))
		}
		page.Items = append(page.Items, shown)
	}
	return page, err
}

// doConsents has an application do nothing any more.
func (p *pages) doConsents(ctx context.Context, v *visit) (server.Answer, error) {
	client := v.form.Get("client")
	if client == "" {
		return server.Answer{}, server.Refuse(identity.CodeInvalidRequest, "the form names no application")
	}
	result, err := p.Identity.WithdrawConsent(ctx, v.User.ID, client, v.Metadata())
	if err == nil {
		return v.done(result.Position), nil
	}
	page, failed := p.newConsentsPage(ctx, v)
	if failed != nil {
		return server.Answer{}, failed
	}
	return refused(err, p.consents, func(f server.Failure) consentsPage {
		page.Problem = problem(v.Echo(), v.Words, f)
		return page
	})
}
