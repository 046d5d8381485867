package oidc

import (
	"context"
	"errors"
	"html/template"
	"net/http"
	"net/url"
	"slices"

	"github.com/labstack/echo/v5"

	"usher.example/identity"
	"usher.example/pages/look"
	"usher.example/server"
)

// consentPage asks whether somebody lets an application of others in.
type consentPage struct {
	look.View
	Text   look.ConsentPage
	Title  string
	Who    string // is logged in
	May    []string
	Host   string // that one is led on to: a name is what anybody may call themselves
	Fields []hidden
}

// onwardPage leads on by itself.
type onwardPage struct {
	look.View
	Text look.OnwardPage
	To   template.URL
}

const (
	formDecision  = "decision"
	decisionAllow = "allow"
	decisionDeny  = "deny"
)

// needsConsent says whether a user is to be asked before a client gets what it asks for: one of others, for a scope that the user does
// not let it have so far, or because it wants that.
func (a *authorization) needsConsent(u *identity.User) bool {
	if a.client.FirstParty {
		return false
	}
	given := u.Consented(a.client.ID.String())
	return given == nil || a.asks(promptConsent) || slices.ContainsFunc(a.scopes, func(s string) bool { return !slices.Contains(given, s) })
}

// showConsent answers GET /consent, to which an authorization request leads with its own parameters.
func (p *provider) showConsent(call *server.Call) (server.Answer, error) {
	return p.onConsent(call, func(_ context.Context, a *authorization) (server.Answer, error) {
		c, w := call.Echo(), call.User
		v := p.view(c, a.form.Get(paramUILocales), w)
		page := consentPage{View: v, Text: v.Words.Consent, Title: v.Words.Consent.Title.With("client", a.client.Name),
			Who: v.Words.Consent.Who.With("who", w.Email), Host: targetOf(a.redirect), Fields: hiddenFields(a.form)}
		if u, err := url.Parse(a.redirect); err == nil && u.Host != "" {
			page.Host = u.Host
		}
		for _, scope := range a.scopes {
			page.May = append(page.May, v.Words.Consents.InWords(scope))
		}
		return filled(p.screens.consent, page)
	})
}

// decideConsent answers POST /consent: the user agrees, or doesn't. What leads on to the client is a page, since browsers hold a redirect
// after a form against the form-action of its page, as far as it goes.
func (p *provider) decideConsent(call *server.Call) (server.Answer, error) {
	if err := p.crossSite.Check(call.Request()); err != nil {
		return server.Answer{}, server.Refuse(identity.CodeForbidden, "another website sent this form")
	}
	return p.onConsent(call, func(ctx context.Context, a *authorization) (server.Answer, error) {
		var position int64
		values := url.Values{}
		switch a.form.Get(formDecision) {
		case decisionAllow:
			result, err := p.Identity.GiveConsent(ctx, call.User.ID, a.client.ID.String(), a.scopes, call.Metadata())
			if err != nil {
				return server.Answer{}, err
			}
			position = result.Position
			text, err := p.newCode(call, a)
			if err != nil {
				return server.Answer{}, err
			}
			values.Set(paramCode, text)
		case decisionDeny:
			values.Set(paramError, accessDenied)
			values.Set(paramDescription, "the user does not let the client in")
		default:
			return server.Answer{}, refuse(invalidRequest, "the decision is allow or deny")
		}
		if a.mode == modeFormPost {
			answer, err := p.answerClient(call, a, values)
			return answer.At(position), err
		}
		to, err := withQuery(a.redirect, p.signed(a, values))
		if err != nil {
			return server.Answer{}, err
		}
		v := p.view(call.Echo(), a.form.Get(paramUILocales), call.User)
		html, err := p.screens.onward.Render(onwardPage{v, v.Words.Onward, template.URL(to)})
		if err != nil {
			return server.Answer{}, err
		}
		return server.Written(func(c *echo.Context) error {
			c.Response().Header().Set("Refresh", "0; url="+to)
			return c.HTMLBlob(http.StatusOK, html)
		}).At(position), nil
	})
}

// onConsent has something done about a request that somebody is asked about who is logged in; any other goes back to where it came from.
func (p *provider) onConsent(call *server.Call, do func(context.Context, *authorization) (server.Answer, error)) (server.Answer, error) {
	p.guard(call.Echo(), noTarget)
	form, err := call.Parameters()
	if err != nil {
		return server.Answer{}, err
	}
	ctx := call.Request().Context()
	a, err := p.readAuthorization(ctx, form)
	if err != nil {
		return server.Answer{}, err
	}
	if err := p.check(a); err != nil {
		return server.Answer{}, err
	}
	err = call.IdentifyBrowser()
	if err != nil && !errors.Is(err, identity.ErrSessionEnded) {
		return server.Answer{}, err
	}
	if err != nil || a.client.FirstParty || p.isStale(call.Browser.BeganAt(), a) {
		return goTo(pathAuthorize + "?" + a.form.Encode()), nil
	}
	return do(ctx, a)
}
