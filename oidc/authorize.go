package oidc

import (
	"context"
	"errors"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"usher.example/client"
	"usher.example/identity"
	"usher.example/server"
)

// Names of parameters of an authorization request, and of its answer.
const (
	paramResponseType = "response_type"
	paramResponseMode = "response_mode"
	paramRedirectURI  = "redirect_uri"
	paramState        = "state"
	paramNonce        = "nonce"
	paramPrompt       = "prompt"
	paramMaxAge       = "max_age"
	paramLoginHint    = "login_hint"
	paramUILocales    = "ui_locales"
	paramChallenge    = "code_challenge"
	paramMethod       = "code_challenge_method"
	paramCode         = "code"
	paramIssuer       = "iss"
	paramError        = "error"
	paramDescription  = "error_description"
	// paramSince is ours: when somebody was sent to log in anew, which they have done once their login is younger.
	paramSince = "usher_since"

	modeQuery    = "query"
	modeFormPost = "form_post"

	methodS256 = "S256"
)

// authorization is a request for a code (RFC 6749, section 4.1.1), whose redirect URI is known to be the client's: what is wrong with it
// is told there.
type authorization struct {
	client   client.Client
	form     url.Values
	redirect string
	mode     string
	prompts  []string
	scopes   []string
	maxAge   time.Duration // since the login; negative for any
	since    time.Time     // of the login at the earliest
}

// authorize answers GET /oauth2/authorize. What is wrong before it is known where the client is told of that is told on a page, so
// that nobody is led to where somebody else says (RFC 6749, section 4.1.2.1).
func (p *provider) authorize(call *server.Call) (server.Answer, error) {
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
	answer, err := p.agree(ctx, call, a)
	var refused *problem
	if errors.As(err, &refused) {
		return p.answerClient(call, a, url.Values{paramError: {refused.code}, paramDescription: {refused.detail}})
	}
	return answer, err
}

// authorizeSent answers POST /oauth2/authorize. Forms of other websites come without our cookies, so it goes on as a GET, which has them.
func (p *provider) authorizeSent(call *server.Call) (server.Answer, error) {
	form, err := call.Form()
	if err != nil {
		return server.Answer{}, err
	}
	return goTo(pathAuthorize + "?" + form.Encode()), nil
}

// readAuthorization finds the client, and where it is told what came of the request.
func (p *provider) readAuthorization(ctx context.Context, form url.Values) (*authorization, error) {
	id, err := uuid.Parse(form.Get(formClientID))
	if err != nil {
		return nil, refuse(invalidRequest, "the parameter client_id is not that of a client")
	}
	c, err := p.Clients.Get(ctx, id)
	if errors.Is(err, client.ErrUnknown) {
		return nil, refuse(invalidRequest, "there is no client with this client_id")
	}
	if err != nil {
		return nil, err
	}
	a := &authorization{client: c, form: form, redirect: form.Get(paramRedirectURI), mode: modeQuery}
	switch {
	case a.redirect == "":
		return nil, refuse(invalidRequest, "the parameter redirect_uri is needed")
	case !c.RedirectsTo(a.redirect):
		return nil, refuse(invalidRequest, "the redirect_uri is none of the client's; each is compared as it stands")
	}
	if form.Get(paramResponseMode) == modeFormPost {
		a.mode = modeFormPost
	}
	return a, nil
}

// check reads the rest of a request. It fails with a *problem.
func (p *provider) check(a *authorization) error {
	get := a.form.Get
	switch mode := get(paramResponseMode); {
	case a.form.Has("request"):
		return refuse("request_not_supported", "there are no request objects")
	case a.form.Has("request_uri"):
		return refuse("request_uri_not_supported", "there are no request objects")
	case get(paramResponseType) == "":
		return refuse(invalidRequest, "the parameter response_type is needed")
	case get(paramResponseType) != paramCode:
		return refuse("unsupported_response_type", "the response_type is code")
	case mode != "" && mode != modeQuery && mode != modeFormPost:
		return refuse(invalidRequest, "the response_mode is query or form_post")
	case !a.client.May(client.GrantCode):
		return refuse(unauthorizedClient, "the client may not use the grant %s", client.GrantCode)
	}
	for _, check := range []func(*authorization) error{checkPKCE, checkPrompt, readScopes, readAges} {
		if err := check(a); err != nil {
			return err
		}
	}
	return p.checkResource(a.form)
}

// checkPKCE wants a challenge of every client (RFC 9700, section 2.1.1), but for one that is known not to be able to. That one has a
// nonce, which ties the code to the browser too.
func checkPKCE(a *authorization) error {
	challenge, method := a.form.Get(paramChallenge), a.form.Get(paramMethod)
	switch {
	case challenge == "" && method == "" && a.client.NoPKCE:
		if a.form.Get(paramNonce) == "" || !slices.Contains(client.ParseScopes(a.form.Get(formScope)), client.ScopeOpenID) {
			return refuse(invalidRequest, "a client without PKCE sends a nonce, and asks for the scope openid")
		}
		return nil
	case challenge == "":
		return refuse(invalidRequest, "the parameter code_challenge is needed (PKCE, RFC 7636)")
	case method != methodS256:
		return refuse(invalidRequest, "the code_challenge_method is S256")
	case !challengeForm.MatchString(challenge):
		return refuse(invalidRequest, "the code_challenge is the SHA-256 of the code_verifier, in base64url")
	}
	return nil
}

// The prompts of OpenID Connect Core, section 3.1.2.1.
const (
	promptNone    = "none"
	promptLogin   = "login"
	promptConsent = "consent"
	promptSelect  = "select_account" // there is one account in a browser, so this is to log in
)

var prompts = []string{promptNone, promptLogin, promptConsent, promptSelect}

func checkPrompt(a *authorization) error {
	a.prompts = strings.Fields(a.form.Get(paramPrompt))
	for _, prompt := range a.prompts {
		if !slices.Contains(prompts, prompt) {
			return refuse(invalidRequest, "a prompt is none, login, consent or select_account")
		}
	}
	if a.asks(promptNone) && len(a.prompts) > 1 {
		return refuse(invalidRequest, "the prompt none goes with no other")
	}
	return nil
}

func (a *authorization) asks(prompt string) bool { return slices.Contains(a.prompts, prompt) }

// readScopes passes over scopes that there are none of, as OpenID Connect asks for (Core, section 3.1.2.1), and refuses those that the
// client can't have. A client that asks for none asks for all that it can have.
func readScopes(a *authorization) error {
	may := a.client.Allowed(client.GrantScopes)
	asked := client.ParseScopes(a.form.Get(formScope))
	if len(asked) == 0 {
		asked = may
	}
	for _, scope := range asked {
		switch {
		case slices.Contains(may, scope):
			a.scopes = append(a.scopes, scope)
		case slices.Contains(client.GrantScopes, scope):
			return refuse(invalidScope, "the scope %s is none that the client can have; it can have: %s", scope, strings.Join(may, " "))
		}
	}
	if len(a.scopes) == 0 {
		return refuse(invalidScope, "none of the scopes is one that there is; there are: %s", strings.Join(may, " "))
	}
	return nil
}

func readAges(a *authorization) error {
	a.maxAge = -1
	if text := a.form.Get(paramMaxAge); text != "" {
		seconds, err := strconv.ParseUint(text, 10, 31)
		if err != nil {
			return refuse(invalidRequest, "max_age is a number of seconds")
		}
		a.maxAge = time.Duration(seconds) * time.Second
	}
	if since, err := strconv.ParseInt(a.form.Get(paramSince), 10, 64); err == nil {
		a.since = time.Unix(since, 0)
	}
	return nil
}

// agree answers a request: with a code, or by leading to where somebody logs in. What is refused is a *problem.
func (p *provider) agree(ctx context.Context, call *server.Call, a *authorization) (server.Answer, error) {
	if err := p.check(a); err != nil {
		return server.Answer{}, err
	}
	err := call.IdentifyBrowser()
	if err != nil && !errors.Is(err, identity.ErrSessionEnded) {
		return server.Answer{}, err
	}
	if err != nil || p.isStale(call.Browser.BeganAt(), a) {
		if a.asks(promptNone) {
			return server.Answer{}, refuse("login_required", "nobody is logged in, or not since lately enough")
		}
		return p.askToLogIn(a), nil
	}
	if !a.client.FirstParty {
		return server.Answer{}, refuse("consent_required", "users can't be asked for consent yet: the client has to be a first-party one")
	}
	text, err := p.newCode(call, a)
	if err != nil {
		return server.Answer{}, err
	}
	return p.answerClient(call, a, url.Values{paramCode: {text}})
}

// isStale says whether a login is from too long ago for a request, which may ask for a new one too.
func (p *provider) isStale(began time.Time, a *authorization) bool {
	switch anew := a.asks(promptLogin) || a.asks(promptSelect) || a.maxAge == 0; {
	case anew && a.since.IsZero():
		return true
	case anew:
		return began.Before(a.since)
	}
	return a.maxAge > 0 && p.Now().Sub(began) > a.maxAge
}

// askToLogIn leads to where somebody logs in, and from there back to the same request. Whoever is logged in logs in anew.
func (p *provider) askToLogIn(a *authorization) server.Answer {
	back := url.Values{}
	for name, values := range a.form {
		back[name] = values
	}
	back.Set(paramSince, strconv.FormatInt(p.Now().Unix(), 10))
	q := url.Values{"return": {pathAuthorize + "?" + back.Encode()}, paramPrompt: {promptLogin}}
	for _, name := range []string{paramLoginHint, paramUILocales} {
		if value := a.form.Get(name); value != "" {
			q.Set(name, value)
		}
	}
	return goTo("/login?" + q.Encode())
}

// newCode names the grant that may begin, and seals what for. It writes nothing.
func (p *provider) newCode(call *server.Call, a *authorization) (string, error) {
	grant, err := p.Identity.NewGrant()
	if err != nil {
		return "", err
	}
	return p.codes.seal(code{
		Grant: grant, User: call.User.ID, Client: a.client.ID, Session: call.Session, Scopes: a.scopes, Methods: call.Browser.Methods,
		Redirect: a.redirect, Challenge: a.form.Get(paramChallenge), Nonce: a.form.Get(paramNonce), Until: p.Now().Add(codeLifetime).Unix(),
	})
}

// answerClient leads back to the client with what came of its request. That it is ours is in it, so that no client takes it for that
// of another server (RFC 9207).
func (p *provider) answerClient(call *server.Call, a *authorization, values url.Values) (server.Answer, error) {
	values.Set(paramIssuer, p.Issuer.Name())
	if state := a.form.Get(paramState); state != "" {
		values.Set(paramState, state)
	}
	if a.mode == modeFormPost {
		return p.postToClient(call, a, values)
	}
	to, err := withQuery(a.redirect, values)
	if err != nil {
		return server.Answer{}, err
	}
	return goTo(to), nil
}

// withQuery adds parameters to a URI, and keeps those that it has as they stand.
func withQuery(uri string, values url.Values) (string, error) {
	u, err := url.Parse(uri)
	if err != nil {
		return "", err
	}
	if u.RawQuery != "" {
		u.RawQuery += "&"
	}
	u.RawQuery += values.Encode()
	return u.String(), nil
}
