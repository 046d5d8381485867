// Package pages is what a person sees in a browser: the pages that mails link to, and where it is said what is here.
//
// It is one of the surfaces that stand on package server, and decides nothing: package identity carries out the commands. A page
// is a template, the Go struct that it is filled from, and the handlers that read, decide and show, in one file each.
//
// Guarantees: to open a page changes nothing, since programs that look for harm in mails open every link; what changes something
// is a form, which another website can't send; everything works without a script; no address with a code in it is told to
// anybody else; whatever goes wrong is said in words, and as a problem (RFC 9457) to whoever did not ask for HTML.
package pages

import (
	"embed"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"usher.example/pages/look"
	"usher.example/projections"
	"usher.example/server"
)

//go:embed *.html
var templates embed.FS

// Config is what the pages stand on, beside their server. All fields are needed.
type Config struct {
	Look      *look.Look
	PublicURL string // where browsers reach the server
	Activity  projections.Activity
	Exports   *server.Exports
}

// pages answers the requests of the pages.
type pages struct {
	*server.Server
	look       *look.Look
	activities projections.Activity
	exports    *server.Exports
	public     *url.URL
	referrer   []string
	crossSite  *http.CrossOriginProtection

	home       *look.Page[homePage]
	loginStill *still[loginPage]
	login      *look.Page[loginPage]
	onward     *look.Page[onwardPage]
	logout     *look.Page[logoutPage]
	register   *look.Page[registerPage]
	ask        *look.Page[askPage]
	code       *look.Page[codePage]
	account    *look.Page[accountPage]
	sessions   *look.Page[sessionsPage]
	consents   *look.Page[consentsPage]
	security   *look.Page[securityPage]
	factor     *look.Page[factorPage]
	codes      *look.Page[codesPage]
	activity   *look.Page[activityPage]
	prove      *look.Page[provePage]
	reset      *look.Page[resetPage]
	device     *look.Page[devicePage]
	failure    *look.Page[failurePage]
}

// Register adds the pages to a server. It fails where a template can't be used.
func Register(s *server.Server, c Config) error {
	p, err := newPages(s, c)
	if err != nil {
		return err
	}
	p.routes()
	return nil
}

func newPages(s *server.Server, c Config) (*pages, error) {
	public, err := url.Parse(c.PublicURL)
	if err != nil {
		return nil, fmt.Errorf("read the public URL: %w", err)
	}
	p := &pages{Server: s, look: c.Look, activities: c.Activity, exports: c.Exports, public: public, referrer: referrerPolicy(public), crossSite: http.NewCrossOriginProtection()}
	// Behind a proxy that does not pass the name on, a browser that sends no Sec-Fetch-Site is told by where it thinks it is.
	if err := p.crossSite.AddTrustedOrigin(public.Scheme + "://" + public.Host); err != nil {
		return nil, fmt.Errorf("read the public URL: %w", err)
	}
	err = errors.Join(
		parse(p, &p.home, "home.html"), parse(p, &p.failure, "failure.html"),
		parse(p, &p.login, "login.html"), parse(p, &p.onward, "onward.html"), parse(p, &p.logout, "logout.html"), parse(p, &p.register, "register.html"),
		parse(p, &p.account, "account.html"), parse(p, &p.sessions, "sessions.html"), parse(p, &p.consents, "consents.html"), parse(p, &p.security, "security.html"),
		parse(p, &p.factor, "factor.html"), parse(p, &p.codes, "codes.html"), parse(p, &p.activity, "activity.html"), parse(p, &p.prove, "prove.html"),
		parse(p, &p.ask, "ask.html"), parse(p, &p.code, "code.html"), parse(p, &p.reset, "reset.html"),
		parse(p, &p.device, "device.html"),
	)
	if err != nil {
		return nil, err
	}
	p.loginStill = &still[loginPage]{page: p.login, kept: map[string][]byte{}}
	return p, nil
}

// parse reads the template of a page.
func parse[T any](p *pages, into **look.Page[T], name string) (err error) {
	*into, err = look.Parse[T](p.look, templates, name)
	return err
}

func (p *pages) routes() {
	r := p.Routes(server.Surface{Tell: p.tell, Explain: explain})
	r.Elsewhere()
	show := func(path string, answer handler) { r.GET(path, server.Open, p.shown(answer)) }
	do := func(path string, of *server.Quota, answer handler) { r.POST(path, server.Anyone(of), p.sent(answer)) }
	for _, a := range p.look.Assets() {
		r.GET(a.Path, server.Open, asset(a))
	}
	r.Page("/", p.shown(p.showHome))
	show("/login", p.showLogin)
	do("/login", &server.QuotaLogin, p.doLogin)
	show("/logout", p.showLogout)
	r.POST("/logout", server.Open, p.sent(p.doLogout))
	show("/register", p.showRegister)
	do("/register", &server.QuotaRegister, p.doRegister)
	show("/account/forgot", p.showAsk(forgotText))
	do("/account/forgot", &server.QuotaMail, p.doAsk(forgotText, p.Identity.RequestPasswordReset))
	show("/account/resend", p.showAsk(resendText))
	do("/account/resend", &server.QuotaMail, p.doAsk(resendText, p.Identity.RequestVerificationOf))
	own := func(path string, shown, sent handler) {
		r.GET(path, server.Browser, p.shown(shown))
		if sent != nil {
			r.POST(path, server.Browser, p.sent(sent))
		}
	}
	prove := func(path string, about func(*visit) provePage, do handler) {
		shown, sent := p.provesFirst(about, do)
		own(path, shown, sent)
	}
	own("/account", p.showAccount, p.doAccount)
	own("/account/sessions", p.showSessions, p.doSessions)
	own("/account/security", p.showSecurity, p.doPassword)
	own("/account/consents", p.showConsents, p.doConsents)
	own("/account/activity", p.showActivity, nil)
	prove("/account/data", aboutErasure, p.eraseAccount)
	prove("/account/data/export", p.aboutExport, p.export)
	prove("/account/security/factor", aboutFactor, p.startFactor)
	own("/account/security/confirm", toSecurity, p.confirmFactor)
	prove("/account/security/off", aboutOff, p.stopFactor)
	prove("/account/security/codes", aboutCodes, p.makeCodes)
	own(pathDevice, p.showDevice, p.doDevice)
	show("/.well-known/change-password", toSecurity)
	show("/account/verify", p.showCode(verifyText))
	do("/account/verify", &server.QuotaCode, p.useCode(verifyText))
	show("/account/email", p.showCode(emailText))
	do("/account/email", &server.QuotaCode, p.useCode(emailText))
	show("/account/reset", p.showReset)
	do("/account/reset", &server.QuotaCode, p.doReset)
}
