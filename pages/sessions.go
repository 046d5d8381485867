package pages

import (
	"context"
	"errors"

	"github.com/google/uuid"
	"github.com/mileusna/useragent"

	"usher.example/identity"
	"usher.example/pages/look"
	"usher.example/server"
	"usher.example/words"
)

// sessionsPage is where somebody is logged in.
type sessionsPage struct {
	look.View
	Text    look.SessionsPage
	Items   []sessionShown
	Others  bool // there are others than this one
	Told    string
	Problem string
}

// sessionShown is a session in words.
type sessionShown struct {
	ID                           string
	Device, Began, Used, Address string
	Current                      bool
}

func (p *pages) showSessions(ctx context.Context, v *visit) (server.Answer, error) {
	page, err := p.newSessionsPage(ctx, v)
	if err != nil {
		return server.Answer{}, err
	}
	return show(p.sessions, page)
}

func (p *pages) newSessionsPage(ctx context.Context, v *visit) (sessionsPage, error) {
	list, err := p.Identity.Sessions(ctx, v.User.ID, v.Session)
	w := v.Words.Sessions
	page := sessionsPage{View: v.View, Text: w}
	if v.isDone() {
		page.Told = w.Ended
	}
	for _, one := range list {
		shown := sessionShown{
			ID: one.ID.String(), Device: deviceName(w, one.UserAgent), Current: one.Current,
			Began: w.Began.With("time", moment(one.CreatedAt)), Used: w.Used.With("time", moment(one.LastUsedAt)),
		}
		if one.Address != "" {
			shown.Address = w.Address.With("address", leftToRight(one.Address))
		}
		page.Items = append(page.Items, shown)
		page.Others = page.Others || !one.Current
	}
	return page, err
}

// deviceName is what a client says of itself, as people call it.
func deviceName(w look.SessionsPage, agent string) string {
	ua := useragent.Parse(agent)
	switch {
	case agent == "":
		return w.Unknown
	case ua.Name == "" || ua.Name == agent:
		return shorten(agent)
	case ua.OS == "":
		return shorten(ua.Name)
	}
	return words.Phrase(w.Device.With("browser", leftToRight(shorten(ua.Name)))).With("system", leftToRight(shorten(ua.OS)))
}

// shorten bounds a text that somebody chose.
func shorten(text string) string {
	const most = 60
	if runes := []rune(text); len(runes) > most {
		return string(runes[:most]) + "…"
	}
	return text
}

// othersThanThis is what a form has in the place of one session.
const othersThanThis = "others"

// doSessions ends one session, or all but this one. Where the login is a while ago it asks for a proof, and is then sent again.
func (p *pages) doSessions(ctx context.Context, v *visit) (server.Answer, error) {
	which := v.form.Get("session")
	position, err := p.endSessions(ctx, v, which)
	switch {
	case err == nil && which == v.Session.String(): // that is logging out
		v.leave()
		return goTo(v.link("/logout", "done", "")).At(position), nil
	case err == nil:
		return v.done(position), nil
	case errors.Is(err, identity.ErrNotFound):
		page, failed := p.newSessionsPage(ctx, v)
		if failed != nil {
			return server.Answer{}, failed
		}
		page.Problem = v.Words.Sessions.Gone
		return refused(err, p.sessions, func(server.Failure) sessionsPage { return page })
	}
	return refused(err, p.prove, func(f server.Failure) provePage {
		w := v.Words.Sessions
		page := provePage{View: v.View, Title: w.Title, Lead: w.ProveLead, Action: w.End, Back: v.Words.Security.Back, BackTo: v.link("/account/sessions", "", ""), Proof: newProof(v),
			Hidden: []hiddenField{{"session", which}}}
		if which == othersThanThis {
			page.Action = w.EndOthers
		}
		switch {
		case f.Code == identity.CodeInvalidRequest && !v.form.Has("current_password"): // it was not asked for yet
		case f.Code == identity.CodeInvalidRequest:
			page.Proof.needed(v)
		case !page.Proof.refuse(v, f):
			page.Problem = problem(v.Echo(), v.Words, f)
		}
		return page
	})
}

func (p *pages) endSessions(ctx context.Context, v *visit, which string) (int64, error) {
	if which == othersThanThis {
		return p.Identity.EndOtherSessions(ctx, v.User.ID, v.Session, v.proof(), v.Metadata())
	}
	id, err := uuid.Parse(which)
	if err != nil {
		return 0, identity.ErrNotFound
	}
	result, err := p.Identity.EndOwnSession(ctx, v.User.ID, v.Session, id, v.proof(), v.Metadata())
	return result.Position, err
}
