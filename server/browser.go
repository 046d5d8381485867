package server

import (
	"errors"
	"net/http"
	"time"

	"usher.example/client"
	"usher.example/identity"
	"usher.example/token"
)

// Browser lets every user make a call, by the session that the browser has: see Call.IdentifyBrowser. Whatever changes something is to
// be sent by a page of ours (see http.CrossOriginProtection), since a browser sends its cookies with everything.
var Browser = Access{scope: client.ScopeAccountWrite, own: true, by: (*Call).IdentifyBrowser}

// Cookies of ours. Over https their names begin with hostPrefix, by which browsers see to it that no other host of the same domain
// set them.
const (
	cookieSession = "usher"
	cookieDevice  = "usher-device"
	hostPrefix    = "__Host-"
)

// deviceKept is for how long a browser keeps what its device is known by: the longest that browsers keep any.
const deviceKept = 400 * 24 * time.Hour

// IdentifyBrowser finds out whose browser asks, by its session's cookie. As far as memory tells it costs no statement; once in an access
// token's lifetime the log is asked, and the browser gets a cookie that says so. It fails with CodeUnauthenticated where nobody is
// logged in, and takes a cookie away that is good for nothing.
func (c *Call) IdentifyBrowser() error {
	s, ctx := c.server, c.echo.Request().Context()
	text := c.cookie(cookieSession)
	if text == "" {
		return identity.ErrSessionEnded
	}
	b, err := s.Identity.ReadBrowser(identity.BrowserToken(text))
	if err == nil && (!s.Identity.IsFresh(b) || s.isRevoked(b)) {
		if b, err = s.Identity.KeepBrowser(ctx, b, c.Metadata()); err == nil {
			c.keepBrowser(b)
		}
	}
	var u *identity.User
	if err == nil {
		u, err = s.Identity.SessionUser(ctx, b.User, b.ID)
	}
	if errors.Is(err, identity.ErrSessionEnded) {
		c.setCookie(cookieSession, "", -1)
	}
	if err != nil {
		return err
	}
	c.Caller, c.Browser = Caller{User: u, Session: b.ID, Scopes: client.Scopes}, b
	return nil
}

// isRevoked says whether a browser's session is among those that are known to have ended, or may be: the log tells.
func (s *Server) isRevoked(b identity.BrowserSession) bool {
	return s.Verifier.Revoked(token.Claims{Subject: b.User.String(), Session: b.ID.String(), IssuedAt: b.SeenAt})
}

// LogInBrowser gives the browser the session that a login has begun, and its device what it is known by. Each login has another cookie,
// so that nobody is logged in by one that somebody else has put there.
func (c *Call) LogInBrowser(r identity.LoginResult) {
	c.keepBrowser(r.BrowserSession())
	c.KnowDevice(r.Device)
}

// LogOutBrowser takes its session from the browser. To end it is another matter.
func (c *Call) LogOutBrowser() { c.setCookie(cookieSession, "", -1) }

// BrowserDevice is the token of the device that the browser is on, empty for none.
func (c *Call) BrowserDevice() identity.DeviceToken {
	return identity.DeviceToken(c.cookie(cookieDevice))
}

// KnowDevice gives the browser what its device is known by from now on, if there is anything.
func (c *Call) KnowDevice(t identity.DeviceToken) {
	if t != "" {
		c.setCookie(cookieDevice, string(t), deviceKept)
	}
}

// ForgetDevice has the browser forget what its device is known by.
func (c *Call) ForgetDevice() { c.setCookie(cookieDevice, "", -1) }

func (c *Call) keepBrowser(b identity.BrowserSession) {
	s := c.server
	c.setCookie(cookieSession, string(s.Identity.BrowserToken(b)), s.Identity.IdleUntil(b).Sub(s.Now()))
}

// cookie is the value of a cookie, "" where there is none, or more than one and so at least one that is not ours.
func (c *Call) cookie(name string) string {
	if found := c.echo.Request().CookiesNamed(c.server.cookieName(name)); len(found) == 1 {
		return found[0].Value
	}
	return ""
}

// setCookie sets a cookie for a time; a negative one takes it away. It replaces what this answer sets by that name already.
func (c *Call) setCookie(name, value string, kept time.Duration) {
	age := int(kept.Seconds())
	if kept < 0 {
		age = -1
	}
	cookie := &http.Cookie{
		Name: c.server.cookieName(name), Value: value, Path: "/", MaxAge: age,
		HttpOnly: true, Secure: !c.server.PlainHTTP, SameSite: http.SameSiteLaxMode,
	}
	h := c.echo.Response().Header()
	others := h["Set-Cookie"][:0:0]
	for _, line := range h["Set-Cookie"] {
		if set, err := http.ParseSetCookie(line); err != nil || set.Name != cookie.Name {
			others = append(others, line)
		}
	}
	h["Set-Cookie"] = append(others, cookie.String())
}

func (s *Server) cookieName(name string) string {
	if s.PlainHTTP {
		return name
	}
	return hostPrefix + name
}

// AuthenticationMethods are those that proved who has a browser's session, as tokens name them (RFC 8176).
func AuthenticationMethods(methods []string) []string {
	names := map[string]string{identity.MethodPassword: "pwd", identity.MethodTOTP: "otp", identity.MethodRecoveryCode: "otp"}
	var amr []string
	for _, m := range methods {
		if name := names[m]; name != "" {
			amr = append(amr, name)
		}
	}
	if len(amr) > 1 {
		amr = append(amr, "mfa")
	}
	return amr
}
