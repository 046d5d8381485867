package oidc

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"time"

	"usher.example/client"
	"usher.example/identity"
	"usher.example/server"
)

const (
	pathDevice     = "/oauth2/device_authorization"
	pageDevice     = "/device" // where the code is typed that a device shows
	formDeviceCode = "device_code"
)

// The errors that a device is told (RFC 8628, section 3.5), beside access_denied.
const (
	authorizationPending = "authorization_pending"
	slowDown             = "slow_down"
	expiredToken         = "expired_token"
)

// denied is what a device is told that is not let in.
var denied = refuse(accessDenied, "the user has said no, or has taken the yes back")

// deviceAsked is the answer of RFC 8628, section 3.2.
type deviceAsked struct {
	DeviceCode string `json:"device_code"`
	UserCode   string `json:"user_code"`
	Page       string `json:"verification_uri"`
	Complete   string `json:"verification_uri_complete"`
	ExpiresIn  int64  `json:"expires_in"` // seconds
	Interval   int64  `json:"interval"`   // seconds
}

// askByDevice answers POST /oauth2/device_authorization.
func (p *provider) askByDevice(ctx context.Context, r request) (server.Answer, error) {
	if !r.client.May(client.GrantDevice) {
		return server.Answer{}, refuse(unauthorizedClient, "the client may not use the grant %s", client.GrantDevice)
	}
	if err := p.checkResource(r.form); err != nil {
		return server.Answer{}, err
	}
	a := &authorization{client: r.client, form: r.form}
	if err := readScopes(a); err != nil {
		return server.Answer{}, err
	}
	asked, err := p.Identity.AskByDevice(ctx, identity.DeviceRequest{Client: r.client.ID.String(), Scopes: a.scopes, Address: r.Metadata().Address})
	if err != nil {
		return server.Answer{}, err
	}
	page := strings.TrimSuffix(p.PublicURL, "/") + pageDevice
	return server.OK(deviceAsked{
		DeviceCode: string(asked.Device), UserCode: asked.User.Shown(), Page: page, Complete: page + "?" + url.Values{"user_code": {asked.User.Shown()}}.Encode(),
		ExpiresIn: int64(asked.Lifetime / time.Second), Interval: int64(asked.Pace / time.Second),
	}), nil
}

// grantDevice gives a device the tokens that somebody lets it have (RFC 8628, section 3.4).
func (p *provider) grantDevice(ctx context.Context, r request) (server.Answer, error) {
	code := r.form.Get(formDeviceCode)
	if code == "" {
		return server.Answer{}, refuse(invalidRequest, "the parameter device_code is needed")
	}
	key, err := boundTo(r)
	if err != nil {
		return server.Answer{}, err
	}
	if err := p.checkResource(r.form); err != nil {
		return server.Answer{}, err
	}
	by := identity.Grantee{Client: r.client.ID.String()}
	if r.client.IsPublic() {
		by.Confirmation = key
	}
	result, err := p.Identity.PollDevice(ctx, identity.DeviceCode(code), by, r.Metadata())
	switch {
	case errors.Is(err, identity.ErrDevicePending):
		return server.Answer{}, refuse(authorizationPending, "nobody has answered yet")
	case errors.Is(err, identity.ErrDeviceTooSoon):
		return server.Answer{}, refuse(slowDown, "wait for 5 seconds longer between two requests from now on")
	case errors.Is(err, identity.ErrDeviceDenied):
		return server.Answer{}, denied
	case err == nil && !p.stillMay(r.client, result):
		return server.Answer{}, errors.Join(denied, p.Identity.EndGrant(ctx, result.Session, result.User.ID, identity.EndedRevoked, r.Metadata()))
	case errors.Is(err, identity.ErrDeviceExpired):
		return server.Answer{}, refuse(expiredToken, "nobody has answered in time; ask anew")
	case errors.Is(err, identity.ErrDeviceUnknown):
		return server.Answer{}, refuse(invalidGrant, "the device_code is none of this client's, or was used before")
	case err != nil:
		return server.Answer{}, err
	}
	return p.tokens(r, result, result.Grant.Scopes, "", key)
}
