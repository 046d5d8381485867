package pages

import (
	"context"

	"usher.example/server"
)

func aboutErasure(v *visit) provePage {
	w := v.Words.Data
	return provePage{Title: w.EraseTitle, Points: []string{w.EraseAll, w.EraseOut, w.EraseNever}, Lead: v.Words.Security.ProveLead, Action: w.EraseAction, Danger: true,
		Back: v.Words.Security.Back, BackTo: v.link("/account", "", "")}
}

// eraseAccount erases whoever is logged in.
func (p *pages) eraseAccount(ctx context.Context, v *visit) (server.Answer, error) {
	result, err := p.Identity.EraseOwn(ctx, v.User.ID, v.proof(), v.Metadata())
	if err != nil {
		return server.Answer{}, err
	}
	v.leave()
	v.ForgetDevice()
	return goTo(v.link("/logout", "done", doneErased)).At(result.Position), nil
}
