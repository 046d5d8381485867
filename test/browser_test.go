package test

import (
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"testing"
	"time"

	"usher.example/internal/devstack"
)

// visitor is somebody with a browser, which keeps cookies and follows nothing. Cookies know no ports, so it is the same to every process.
type visitor struct{ http *http.Client }

func newVisitor(t *testing.T) visitor {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return visitor{&http.Client{Jar: jar, Timeout: time.Minute, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

// visit opens a page of a process, or sends a form where there is one, and answers with the status, where that leads, and the page.
func (v visitor) visit(t *testing.T, c *client, path string, form url.Values) (status int, leads, body string) {
	t.Helper()
	method := http.MethodGet
	if form != nil {
		method = http.MethodPost
	}
	r, err := http.NewRequestWithContext(t.Context(), method, c.base+path, strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Accept", "text/html")
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Sec-Fetch-Site", "same-origin")
	}
	response, err := v.http.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	raw, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, response.Header.Get("Location"), string(raw)
}

// A browser that one process has logged in is known to the other, until whatever ends its session, in both.
func TestBrowserOfTwoServers(t *testing.T) {
	t.Parallel()
	d, _ := newRunningServer(t)
	_, a := d.startServe("--with", "publisher,projections")
	_, b := d.startServe()
	admin := a.login(t, d.admin)
	name, value := bearer(admin)
	v := newVisitor(t)
	ada := a.mustRegister(t, "ada@example.org")
	status, leads, body := v.visit(t, a, "/login", url.Values{"email": {"ada@example.org"}, "password": {userPassword}})
	if status != http.StatusSeeOther || leads != "/account" {
		t.Fatalf("to log in: %d to %q: %s", status, leads, body)
	}
	at, err := url.Parse(a.base)
	if err != nil {
		t.Fatal(err)
	}
	for path, c := range map[string]*client{"/account": b, "/account/sessions": b, "/account/security": a} {
		if status, leads, body := v.visit(t, c, path, nil); status != http.StatusOK || !strings.Contains(body, "Somebody") {
			t.Errorf("%s: %d to %q: %s", path, status, leads, body)
		}
	}
	devstack.Eventually(t, "what happened is listed", func() bool {
		status, _, body := v.visit(t, b, "/account/activity", nil)
		return status == http.StatusOK && strings.Contains(body, "You logged in")
	})
	for _, end := range []struct {
		name string
		do   func()
	}{
		{"logged out by an administrator", func() {
			a.want(t, http.StatusNoContent, "POST", "/v1/users/"+ada.ID+"/logout-all", nil, name, value)
		}},
		{"logged out", func() {
			if status, leads, body := v.visit(t, a, "/logout", url.Values{}); status != http.StatusSeeOther {
				t.Errorf("to log out: %d to %q: %s", status, leads, body)
			}
		}},
		{"locked", func() {
			a.want(t, http.StatusNoContent, "POST", "/v1/users/"+ada.ID+"/lock", nil, name, value)
		}},
	} {
		stolen := newVisitor(t)
		for _, cookie := range v.http.Jar.Cookies(at) {
			d.keepSecret(cookie.Value)
		}
		stolen.http.Jar.SetCookies(at, v.http.Jar.Cookies(at))
		if status, _, _ := stolen.visit(t, b, "/account", nil); status != http.StatusOK {
			t.Errorf("before it is %s: %d", end.name, status)
		}
		end.do()
		for _, c := range []*client{a, b} {
			devstack.Eventually(t, "it has ended, "+end.name, func() bool {
				status, leads, _ := stolen.visit(t, c, "/account", nil)
				return status == http.StatusSeeOther && leads == "/login?return=%2Faccount"
			})
		}
		status, leads, body := v.visit(t, b, "/login?return=/account/data", url.Values{"email": {"ada@example.org"}, "password": {userPassword}})
		if locked := end.name == "locked"; locked != (status == http.StatusForbidden) || !locked && leads != "/account/data" {
			t.Errorf("to log in once it is %s: %d to %q: %s", end.name, status, leads, body)
		}
	}
}
