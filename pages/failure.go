package pages

import (
	"errors"
	"net/http"
	"strconv"

	"github.com/labstack/echo/v5"

	"usher.example/identity"
	"usher.example/identity/password"
	"usher.example/pages/look"
	"usher.example/server"
)

// failurePage says what went wrong where no other page does.
type failurePage struct {
	look.View
	Problem   string
	RequestID string // "" where nobody need look for it
}

// onPage is a request that failed, and the page that says so itself.
type onPage struct {
	error
	page func(server.Failure) ([]byte, error)
}

func (o onPage) Unwrap() error { return o.error }

// tell answers a request that failed: with a page to a browser, which names text/html, and with the problem to anybody else.
func (p *pages) tell(c *echo.Context, f server.Failure) error {
	p.guard(c) // what is on no route is told of here too
	if !server.WantsHTML(c.Request()) {
		return server.TellProblem(c, f)
	}
	if f.Code == identity.CodeUnauthenticated {
		return p.askToLogIn(c)
	}
	page := p.failed(c)
	var own onPage
	if errors.As(f.Err, &own) {
		page = own.page
	}
	html, err := page(f)
	if err != nil {
		return err
	}
	return c.HTMLBlob(f.Status, html)
}

// failed is the page of requests that have no page of their own.
func (p *pages) failed(c *echo.Context) func(server.Failure) ([]byte, error) {
	return func(f server.Failure) ([]byte, error) {
		v := p.view(c, nil)
		page := failurePage{View: v, Problem: problem(c, v.Words, f)}
		if f.Status >= http.StatusInternalServerError {
			page.RequestID = f.RequestID
		}
		return p.failure.Render(page)
	}
}

// problem says in words what went wrong.
func problem(c *echo.Context, w *look.Words, f server.Failure) string {
	switch f.Code {
	case identity.CodeInvalidCode:
		return w.Failed.InvalidCode
	case identity.CodeAlreadyDone:
		return w.Failed.AlreadyDone
	case identity.CodeEmailTaken:
		return w.Failed.EmailTaken
	case identity.CodeLastAdmin:
		return w.Data.LastAdmin
	case identity.CodeEmailNotVerified:
		return w.Security.FactorUnverified
	case identity.CodeTOTPEnabled:
		return w.Security.FactorOn
	case identity.CodeTOTPNotEnabled:
		return w.Security.FactorOver
	case identity.CodeUserLocked:
		return w.Failed.Locked
	case identity.CodeUserDisabled:
		return w.Failed.Disabled
	case identity.CodeNotFound:
		return w.Failed.NotFound
	case identity.CodeForbidden:
		return w.Failed.CrossSite
	case identity.CodeThrottled, server.CodeRateLimited:
		seconds, err := strconv.Atoi(c.Response().Header().Get(echo.HeaderRetryAfter))
		if err != nil {
			seconds = 1
		}
		return w.Failed.TooOften.For(seconds)
	case identity.CodeOverloaded, identity.CodeUnavailable, identity.CodeBehind:
		return w.Failed.Busy
	case identity.CodeOutcomeUnknown:
		return w.Failed.Unknown
	}
	if f.Status < http.StatusInternalServerError {
		return w.Failed.BadRequest
	}
	return w.Failed.Internal
}

// passwordErrors says in words why a password was refused; nothing for any other error.
func passwordErrors(w *look.Words, err error) []string {
	var refused *password.RefusedError
	if !errors.As(err, &refused) {
		return nil
	}
	list := make([]string, len(refused.Reasons))
	for i, reason := range refused.Reasons {
		list[i] = refusal(w, reason, refused.MinLength)
	}
	return list
}

func refusal(w *look.Words, r password.Reason, least int) string {
	switch r {
	case password.TooLong:
		return w.Refused.TooLong
	case password.TooShort:
		return w.Refused.TooShort.For(least)
	case password.Common:
		return w.Refused.Common
	case password.Pattern:
		return w.Refused.Pattern
	case password.ContainsEmail:
		return w.Refused.Email
	case password.ContainsName:
		return w.Refused.Name
	case password.ContainsWord:
		return w.Refused.Word
	case password.FewClasses:
		return w.Refused.Classes
	case password.Reused:
		return w.Refused.Reused
	}
	return w.Refused.Characters
}
