package pages

import (
	"context"

	"usher.example/server"
)

func aboutErasure(v *visit) provePage {
	w := v.Words.Data
	return provePage{Title: w.Title, Subtitle: w.EraseTitle, Before: &way{w.ExportLead, w.ExportAction, v.link("/account/data/export", "", "")}, Points: []string{w.EraseAll, w.EraseOut, w.EraseNever}, Lead: v.Words.Security.ProveLead, Action: w.EraseAction, Danger: true,
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

func (p *pages) aboutExport(v *visit) provePage {
	w := v.Words.Data
	page := provePage{Title: w.ExportAction, Lead: w.ExportLead, Action: w.ExportAction, Back: v.Words.Security.Back, BackTo: v.link("/account/data", "", ""), Lately: p.Identity.BeganLately(v.Session)}
	if !page.Lately {
		page.Points = []string{v.Words.Security.ProveLead}
	}
	return page
}

// export answers with everything there is of whoever is logged in, as the API does.
func (p *pages) export(ctx context.Context, v *visit) (server.Answer, error) {
	if err := p.Identity.Confirm(ctx, v.User.ID, v.Session, v.proof(), v.Metadata()); err != nil {
		return server.Answer{}, err
	}
	return p.exports.Answer(ctx, v.Call), nil
}
