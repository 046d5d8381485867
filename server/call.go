package server

import (
	"context"
	"net/http"
	"net/url"

	"github.com/google/uuid"
	"github.com/labstack/echo/v5"

	"usher.example/client"
	"usher.example/eventstore"
	"usher.example/identity"
)

// Access says who may make a call, and how often.
type Access struct {
	quota *Quota            // of the network that the call comes from; nil for as often as it likes
	scope string            // that the caller needs; "" for a call that nobody has to be known for
	own   bool              // it is about the caller's own account
	by    func(*Call) error // finds out who that is; Identify when nil
}

// Own lets every user make a call about the own account, by a token of a scope that usher's own login gave, or a first-party client.
func Own(scope string) Access { return Access{scope: scope, own: true} }

// Scoped lets whoever has a scope make a call: users whose roles allow it, by a token that has it, and clients. The roles are those
// of the user's own state, so that they count from the moment they are granted or revoked and not from the next token.
func Scoped(scope string) Access { return Access{scope: scope} }

// Open lets everybody, as often as they like.
var Open = Access{}

// Anyone lets everybody, as often as a quota says of each network.
func Anyone(of *Quota) Access { return Access{quota: of} }

// permit says whether a caller may.
func (a Access) permit(who Caller) error {
	switch {
	case a.own && who.User == nil:
		return Refuse(identity.CodeForbidden, "that is about a user's own account, and this token is a client's own")
	case a.own && who.Client != nil && !who.Client.FirstParty:
		return Refuse(identity.CodeForbidden, "the account is for first-party clients")
	}
	return who.Need(a.scope)
}

// scopeError is that a token lacks a scope.
type scopeError struct{ scope string }

// Lacks is an error that says which scope a token lacks.
func Lacks(scope string) error { return &scopeError{scope} }

func (e *scopeError) Error() string { return "the scope " + e.scope + " is needed" }

// As makes it an *identity.Error.
func (e *scopeError) As(target any) bool {
	to, ok := target.(**identity.Error)
	if ok {
		*to = &identity.Error{Code: CodeInsufficientScope, Detail: e.Error()}
	}
	return ok
}

// Call is a request to be answered: who asks, and what goes with every request whatever it is for. It is used by one goroutine.
type Call struct {
	// Caller is who asks, as far as that is known: where the route's Access is for users it is, otherwise once Identify has
	// found it out.
	Caller
	// Browser is the session of the browser that asks, where IdentifyBrowser has found it.
	Browser identity.BrowserSession
	// Query are the parameters of a read.
	Query url.Values

	server *Server
	echo   *echo.Context
	access Access
	key    string // that makes a request repeatable; "" for none
}

// Request is the request itself.
func (c *Call) Request() *http.Request { return c.echo.Request() }

// Echo is the request and its answer as they are below this package, for what is not in JSON.
func (c *Call) Echo() *echo.Context { return c.echo }

// Admit lets the caller go on as an Access says, and fails for whoever may not. That of the route is admitted already; another is
// for a call that is one thing or another, depending on what is asked.
func (c *Call) Admit(a Access) error {
	if a.quota != nil {
		if err := c.server.spend(c.echo, a.quota, network(c.echo)); err != nil {
			return err
		}
	}
	c.access = a
	if a.scope == "" {
		return nil
	}
	by := a.by
	if by == nil {
		by = (*Call).Identify
	}
	if err := by(c); err != nil {
		return err
	}
	if err := a.permit(c.Caller); err != nil || !changes(c.echo.Request().Method) {
		return err
	}
	return c.server.spend(c.echo, c.quota(), c.name())
}

// HasCredentials says whether the request says who asks.
func (c *Call) HasCredentials() bool {
	return len(c.echo.Request().Header[echo.HeaderAuthorization]) > 0
}

// Identify finds out who asks. The user's own state decides with the access token: who was locked or disabled since it was issued, or
// whose session has ended, is refused; see IsRefused.
func (c *Call) Identify() error {
	r := c.echo.Request()
	scheme, raw, err := accessToken(r.Header[echo.HeaderAuthorization])
	if err != nil {
		return err
	}
	claims, who, err := c.server.Verify(r.Context(), raw)
	if err == nil {
		err = c.checkProof(scheme, raw, claims)
	}
	if err == nil {
		c.Caller = who
	}
	return err
}

// Again looks once more, after a request has waited, whether whoever sent it may have the answer: a lock, a logout or the end
// of the access token counts for requests that are open too, and the caller is who it is by then. by is SessionUser, or ReadSessionUser where what
// the answer tells of may have come after the lock.
func (c *Call) Again(ctx context.Context, by sessionUser) error {
	if c.Browser.ID != uuid.Nil {
		return c.againInBrowser(ctx, by)
	}
	_, raw, err := accessToken(c.echo.Request().Header[echo.HeaderAuthorization])
	if err != nil {
		return err
	}
	_, who, err := c.server.verifyBy(ctx, raw, by)
	if err != nil {
		return err
	}
	c.Caller = who // who may less by now, perhaps, than before the wait
	return c.access.permit(who)
}

func (c *Call) againInBrowser(ctx context.Context, by sessionUser) error {
	if c.server.isRevoked(c.Browser) {
		by = c.server.Identity.ReadSessionUser
	}
	u, err := by(ctx, c.Browser.User, c.Browser.ID)
	if err != nil {
		return err
	}
	c.Caller = Caller{User: u, Session: c.Browser.ID, Scopes: client.Scopes}
	return c.access.permit(c.Caller)
}

// Metadata is that of the events which the call causes.
func (c *Call) Metadata() eventstore.Metadata { return metadata(c.echo, c.Actor()) }

// Device is the token of the device that the request comes from, empty for none. One that is not good is as none.
func (c *Call) Device() identity.DeviceToken {
	return identity.DeviceToken(c.echo.Request().Header.Get(HeaderDevice))
}

// CommandID is the command id that the call's idempotency key stands for in a kind of requests of its caller; the nil UUID for no key.
func (c *Call) CommandID(kind string) uuid.UUID {
	if c.key == "" {
		return uuid.Nil
	}
	if name := c.name(); name != "" {
		kind += "\x00" + name
	}
	return identity.CommandID(kind, c.key)
}

// SecretCommandID is the one that the key stands for in a kind of requests that these secrets tell apart.
func (c *Call) SecretCommandID(kind string, secrets ...string) uuid.UUID {
	if c.key == "" {
		return uuid.Nil
	}
	return c.server.Identity.SecretCommandID(kind, c.key, secrets...)
}

// changes says whether a method is one of calls that change something.
func changes(method string) bool { return method != http.MethodGet && method != http.MethodHead }
