package pages

import (
	"context"
	"net/http"

	"usher.example/pages/look"
	"usher.example/server"
)

// logoutPage is where somebody logs out, and where it is said that nobody is logged in.
type logoutPage struct {
	look.View
	Text  look.LogoutPage
	Title string
	Told  string // what has been done; "" while nothing has
}

// doneErased is what the page is asked to say once an account is erased.
const doneErased = "erased"

func (p *pages) showLogout(_ context.Context, v *visit) (server.Answer, error) {
	page := logoutPage{View: v.View, Text: v.Words.Logout, Title: v.Words.Logout.Title}
	switch {
	case v.User != nil:
	case v.query.Get("done") == doneErased:
		page.Title, page.Told = page.Text.ErasedTitle, page.Text.Erased
	default:
		page.Title, page.Told = page.Text.DoneTitle, page.Text.Done
	}
	return show(p.logout, page)
}

func (p *pages) doLogout(ctx context.Context, v *visit) (server.Answer, error) {
	if err := p.endPresent(ctx, v); err != nil {
		return server.Answer{}, err
	}
	v.leave()
	return v.done(0), nil
}

// leave has the browser forget what it has of somebody: the session, and pages that were shown. Not all cookies, as the header that does
// that takes those of other hosts of the same domain too, and not what the device is known by, which is for the next login.
func (v *visit) leave() {
	v.LogOutBrowser()
	v.Echo().Response().Header()[http.CanonicalHeaderKey("Clear-Site-Data")] = []string{`"cache", "storage"`}
}
