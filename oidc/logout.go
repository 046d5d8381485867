package oidc

import (
	"context"
	"errors"
	"net/http"
	"net/url"

	"github.com/google/uuid"

	"usher.example/client"
	"usher.example/identity"
	"usher.example/server"
	"usher.example/token"
)

// Names of parameters of a request to log out.
const (
	paramIDHint     = "id_token_hint"
	paramLogoutURI  = "post_logout_redirect_uri"
	paramLogoutSure = "usher_sure" // ours: somebody has said so on the page
)

// departure is a client's wish that a user is logged out (OpenID Connect RP-Initiated Logout 1.0).
type departure struct {
	hint   *token.IDHint
	client *client.Client // as the request says; nil where it doesn't
	to     string         // where to go on to; "" for our own page
}

// logout answers GET and POST /oauth2/logout. It asks, unless the client shows an ID token of a grant that is under the very session that
// the browser has: anybody could lead somebody here.
func (p *provider) logout(call *server.Call) (server.Answer, error) {
	p.guard(call.Echo(), noTarget)
	form, err := call.Parameters()
	if err != nil {
		return server.Answer{}, err
	}
	ctx := call.Request().Context()
	d, err := p.readDeparture(ctx, form)
	if err != nil {
		return server.Answer{}, err
	}
	if err := call.IdentifyBrowser(); errors.Is(err, identity.ErrSessionEnded) {
		// A form of another website comes without our cookies.
		if call.Request().Method == http.MethodPost && p.crossSite.Check(call.Request()) != nil {
			return goTo(pathLogout + "?" + form.Encode()), nil
		}
		return d.leave(), nil
	} else if err != nil {
		return server.Answer{}, err
	}
	sure, err := p.isSure(ctx, call, form, d)
	if err != nil {
		return server.Answer{}, err
	}
	if !sure {
		return p.askToLeave(call, form, d)
	}
	_, err = p.Identity.EndSession(ctx, call.User.ID, call.Session, identity.EndedLogout, call.Metadata())
	if err != nil && !errors.Is(err, identity.ErrNotFound) { // it has ended by itself
		return server.Answer{}, err
	}
	call.LogOutBrowser()
	return d.leave(), nil
}

// readDeparture finds out which client it is, and checks that it has said beforehand where to go on to.
func (p *provider) readDeparture(ctx context.Context, form url.Values) (d departure, err error) {
	id := form.Get(formClientID)
	if raw := form.Get(paramIDHint); raw != "" {
		hint, err := p.Issuer.ReadID(raw)
		switch {
		case err != nil:
			return d, refuse(invalidRequest, "the id_token_hint is no ID token of ours, or its key is gone")
		case id != "" && id != hint.Client[0]:
			return d, refuse(invalidRequest, "the id_token_hint was issued to another client than client_id")
		}
		d.hint, id = &hint, hint.Client[0]
	}
	if parsed, malformed := uuid.Parse(id); malformed == nil {
		c, err := p.Clients.Get(ctx, parsed)
		if err != nil && !errors.Is(err, client.ErrUnknown) {
			return d, err
		}
		if err == nil {
			d.client = &c
		}
	}
	uri := form.Get(paramLogoutURI)
	if uri == "" {
		return d, nil
	}
	if d.client == nil {
		return d, refuse(invalidRequest, "to go on to the post_logout_redirect_uri, id_token_hint or client_id has to say whose it is")
	}
	if !d.client.LogsOutTo(uri) {
		return d, refuse(invalidRequest, "the post_logout_redirect_uri is none of the client's; each is compared as it stands")
	}
	values := url.Values{}
	if state := form.Get(paramState); state != "" {
		values.Set(paramState, state)
	}
	if d.to = uri; len(values) > 0 {
		d.to, err = withQuery(uri, values)
	}
	return d, err
}

// isSure says whether the session of the browser is to end without a question.
func (p *provider) isSure(ctx context.Context, call *server.Call, form url.Values, d departure) (bool, error) {
	if form.Has(paramLogoutSure) && call.Request().Method == http.MethodPost && p.crossSite.Check(call.Request()) == nil {
		return true, nil
	}
	if d.hint == nil || d.hint.Subject != call.User.ID.String() {
		return false, nil
	}
	grant, err := uuid.Parse(d.hint.Session)
	if err != nil {
		return false, nil
	}
	return p.Identity.GrantUnder(ctx, grant, call.Session)
}

// askToLeave answers with the page that asks.
func (p *provider) askToLeave(call *server.Call, form url.Values, d departure) (server.Answer, error) {
	c := call.Echo()
	target := noTarget
	if d.to != "" {
		target = targetOf(d.to) // browsers hold a redirect after a form against its form-action
	}
	p.guard(c, target)
	kept := url.Values{paramLogoutSure: {"yes"}}
	for _, name := range []string{paramIDHint, formClientID, paramLogoutURI, paramState, paramUILocales} {
		if value := form.Get(name); value != "" {
			kept.Set(name, value)
		}
	}
	v := p.view(c, form.Get(paramUILocales), call.User)
	return filled(p.screens.leave, leavePage{View: v, Text: v.Words.Logout, Fields: hiddenFields(kept)})
}

// leave leads to where the client wants, else to where it is said that nobody is logged in.
func (d departure) leave() server.Answer {
	if d.to != "" {
		return goTo(d.to)
	}
	return goTo("/logout")
}
