package oidc

import (
	"context"
	"slices"
	"strings"
	"time"

	"usher.example/client"
	"usher.example/server"
	"usher.example/token"
)

// Names of parameters of an exchange, and the type of tokens that there is (RFC 8693, sections 2.1 and 3).
const (
	formSubject       = "subject_token"
	formSubjectType   = "subject_token_type"
	formRequestedType = "requested_token_type"
	formActor         = "actor_token"
	formAudience      = "audience"

	typeAccessToken = "urn:ietf:params:oauth:token-type:access_token"
)

// maxActors bounds through how many hands a token goes.
const maxActors = 4

// exchange gives a client a token in the place of a user's, by which it acts for the user (RFC 8693). It is of the same session, and so
// ends with it, and may do no more and live no longer than the one that is shown.
func (p *provider) exchange(ctx context.Context, r request) (server.Answer, error) {
	get := r.form.Get
	switch requested := get(formRequestedType); {
	case get(formSubject) == "":
		return server.Answer{}, refuse(invalidRequest, "the parameter subject_token is needed")
	case get(formSubjectType) != typeAccessToken:
		return server.Answer{}, refuse(invalidRequest, "the subject_token_type is %s", typeAccessToken)
	case requested != "" && requested != typeAccessToken:
		return server.Answer{}, refuse(invalidRequest, "the requested_token_type is %s, or left out", typeAccessToken)
	case get(formActor) != "":
		return server.Answer{}, refuse(invalidRequest, "the client itself is who acts; there is no actor_token")
	}
	key, err := boundTo(r)
	if err != nil {
		return server.Answer{}, err
	}
	claims, who, err := p.Verify(ctx, get(formSubject))
	switch {
	case server.IsRefused(err), err == nil && who.User == nil:
		return server.Answer{}, refuse(invalidRequest, "the subject_token is no access token of a user that is good here")
	case err != nil:
		return server.Answer{}, err
	case claims.Confirmation != "" && claims.Confirmation != key:
		return server.Answer{}, refuse(invalidRequest, "the subject_token is bound to a key, and the request has no proof of that")
	case len(claims.Actors) >= maxActors:
		return server.Answer{}, refuse(invalidRequest, "the subject_token was exchanged %d times, which is as often as can be", maxActors)
	}
	scopes, err := exchangeable(r, who)
	if err != nil {
		return server.Answer{}, err
	}
	audience, err := p.narrowed(r, claims.Audience)
	if err != nil {
		return server.Answer{}, err
	}
	id := r.client.ID.String()
	grant := token.Grant{
		Subject: claims.Subject, Client: id, Session: claims.Session, Scopes: scopes, Audience: audience, Confirmation: key,
		Actors: append([]string{id}, claims.Actors...), Lifetime: time.Duration(r.client.AccessTokenSeconds) * time.Second, Until: claims.ExpiresAt,
	}
	if r.client.FirstParty { // see tokens
		grant.Roles = who.User.Roles
	}
	raw, issued, err := p.Issuer.Issue(grant)
	if err != nil {
		return server.Answer{}, err
	}
	answer := grantedToken(raw, issued)
	answer.IssuedType = typeAccessToken
	return server.OK(answer), nil
}

// exchangeable are the scopes that a client asks for, or all that it can have where it asks for none: of those that the subject token
// still has, that the client may have and, for an application of others, that the user lets it have.
func exchangeable(r request, who server.Caller) ([]string, error) {
	may := r.client.Allowed(who.Scopes)
	if !r.client.FirstParty {
		id := r.client.ID.String()
		if !who.User.Allows(id, who.Session) {
			return nil, refuse(accessDenied, "the user does not let the client do anything")
		}
		consented := who.User.Consented(id)
		may = slices.DeleteFunc(may, func(scope string) bool { return !slices.Contains(consented, scope) })
	}
	asked := client.ParseScopes(r.form.Get(formScope))
	if len(asked) == 0 {
		asked = may
	}
	for _, scope := range asked {
		if !slices.Contains(may, scope) {
			return nil, refuse(invalidScope, "a scope that is asked for is more than the subject_token has and the client may have; there are: %s", strings.Join(may, " "))
		}
	}
	if len(asked) == 0 {
		return nil, refuse(invalidScope, "the subject_token has no scope that the client may have")
	}
	return asked, nil
}

// narrowed is whom a token is for: the one that the client names, which has to be among those that the subject token is for; else all.
func (p *provider) narrowed(r request, audience []string) ([]string, error) {
	if err := p.checkResource(r.form); err != nil {
		return nil, err
	}
	asked := r.form.Get(formAudience)
	switch {
	case asked == "":
		return audience, nil
	case !slices.Contains(audience, asked):
		return nil, refuse(invalidTarget, "the subject_token is not for this audience; it is for: %s", strings.Join(audience, " "))
	}
	return []string{asked}, nil
}
