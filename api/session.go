package api

import (
	"net/http"

	"github.com/labstack/echo/v5"

	"usher.example/identity"
	"usher.example/server"
)

// refresh answers POST /v1/auth/refresh.
func (a *api) refresh(c *echo.Context) error {
	result, err := a.doRefresh(c)
	a.metrics.refreshed(err)
	if err != nil {
		return err
	}
	return a.grant(c, result)
}

func (a *api) doRefresh(c *echo.Context) (identity.LoginResult, error) {
	var body struct {
		RefreshToken string `json:"refresh_token"`
	}
	if err := server.Decode(c, &body); err != nil {
		return identity.LoginResult{}, err
	}
	if err := required("refresh_token", body.RefreshToken); err != nil {
		return identity.LoginResult{}, err
	}
	m, err := server.Metadata(c, identity.ActorAnonymous)
	if err != nil {
		return identity.LoginResult{}, err
	}
	return a.Identity.Refresh(c.Request().Context(), identity.RefreshToken(body.RefreshToken), m)
}

// logout answers POST /v1/auth/logout: it ends the session of the refresh token in the body, whatever has become of the access
// token by then, or without one that of the access token.
func (a *api) logout(c *echo.Context) error {
	var body struct {
		RefreshToken identity.RefreshToken `json:"refresh_token"`
	}
	if err := server.Decode(c, &body); err != nil {
		return err
	}
	if body.RefreshToken != "" {
		return a.logoutBy(c, body.RefreshToken)
	}
	who, err := a.command(c, nil)
	if err != nil {
		return err
	}
	result, err := a.Identity.EndSession(c.Request().Context(), who.ID, who.Session, identity.EndedLogout, who.metadata)
	if err != nil {
		return err
	}
	return done(c, result.Position)
}

// logoutBy ends the session of a refresh token, which counts as a refresh does.
func (a *api) logoutBy(c *echo.Context, t identity.RefreshToken) error {
	if err := a.Spend(c, &quotaRefresh, server.Network(c)); err != nil {
		return err
	}
	m, err := server.Metadata(c, "")
	if err != nil {
		return err
	}
	result, err := a.Identity.EndSessionOf(c.Request().Context(), t, identity.EndedLogout, m)
	if err != nil {
		return err
	}
	return done(c, result.Position)
}

// logoutAll answers POST /v1/auth/logout-all: it ends every session of the caller, this one too.
func (a *api) logoutAll(c *echo.Context) error {
	who, p, err := a.optionalProof(c)
	if err != nil {
		return err
	}
	position, err := a.Identity.EndOwnSessions(c.Request().Context(), who.ID, who.Session, p, who.metadata)
	if err != nil {
		return err
	}
	return done(c, position)
}

// listSessions answers GET /v1/me/sessions.
func (a *api) listSessions(c *echo.Context) error {
	who, err := a.Caller(c)
	if err != nil {
		return err
	}
	if _, err := server.Query(c); err != nil {
		return err
	}
	list, err := a.Identity.Sessions(c.Request().Context(), who.ID, who.Session)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, struct {
		Items []identity.Session `json:"items"`
	}{list})
}

// endSession answers DELETE /v1/me/sessions/{id}.
func (a *api) endSession(c *echo.Context) error {
	who, p, err := a.optionalProof(c)
	if err != nil {
		return err
	}
	session, err := pathID(c, "there is no such session")
	if err != nil {
		return err
	}
	result, err := a.Identity.EndOwnSession(c.Request().Context(), who.ID, who.Session, session, p, who.metadata)
	if err != nil {
		return err
	}
	return done(c, result.Position)
}
