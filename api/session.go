package api

import (
	"net/http"

	"github.com/labstack/echo/v5"

	"usher.example/identity"
)

// refresh answers POST /v1/auth/refresh.
func (s *Server) refresh(c *echo.Context) error {
	result, err := s.doRefresh(c)
	s.metrics.refreshed(err)
	if err != nil {
		return err
	}
	return s.grant(c, result)
}

func (s *Server) doRefresh(c *echo.Context) (identity.LoginResult, error) {
	var body struct {
		RefreshToken string `json:"refresh_token"`
	}
	if err := decode(c, &body); err != nil {
		return identity.LoginResult{}, err
	}
	if err := required("refresh_token", body.RefreshToken); err != nil {
		return identity.LoginResult{}, err
	}
	m, err := metadata(c, identity.ActorAnonymous)
	if err != nil {
		return identity.LoginResult{}, err
	}
	return s.Identity.Refresh(c.Request().Context(), identity.RefreshToken(body.RefreshToken), m)
}

// logout answers POST /v1/auth/logout: it ends the session of the refresh token in the body, whatever has become of the access
// token by then, or without one that of the access token.
func (s *Server) logout(c *echo.Context) error {
	var body struct {
		RefreshToken identity.RefreshToken `json:"refresh_token"`
	}
	if err := decode(c, &body); err != nil {
		return err
	}
	if body.RefreshToken != "" {
		return s.logoutBy(c, body.RefreshToken)
	}
	who, err := s.command(c, nil)
	if err != nil {
		return err
	}
	result, err := s.Identity.EndSession(c.Request().Context(), who.ID, who.session, identity.EndedLogout, who.metadata)
	if err != nil {
		return err
	}
	return done(c, result.Position)
}

// logoutBy ends the session of a refresh token, which counts as a refresh does.
func (s *Server) logoutBy(c *echo.Context, t identity.RefreshToken) error {
	if err := s.spend(c, &quotaRefresh, network(c)); err != nil {
		return err
	}
	m, err := metadata(c, "")
	if err != nil {
		return err
	}
	result, err := s.Identity.EndSessionOf(c.Request().Context(), t, identity.EndedLogout, m)
	if err != nil {
		return err
	}
	return done(c, result.Position)
}

// logoutAll answers POST /v1/auth/logout-all: it ends every session of the caller, this one too.
func (s *Server) logoutAll(c *echo.Context) error {
	who, p, err := s.optionalProof(c)
	if err != nil {
		return err
	}
	position, err := s.Identity.EndOwnSessions(c.Request().Context(), who.ID, who.session, p, who.metadata)
	if err != nil {
		return err
	}
	return done(c, position)
}

// listSessions answers GET /v1/me/sessions.
func (s *Server) listSessions(c *echo.Context) error {
	who, err := s.caller(c)
	if err != nil {
		return err
	}
	if _, err := query(c); err != nil {
		return err
	}
	list, err := s.Identity.Sessions(c.Request().Context(), who.ID, who.session)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, struct {
		Items []identity.Session `json:"items"`
	}{list})
}

// endSession answers DELETE /v1/me/sessions/{id}.
func (s *Server) endSession(c *echo.Context) error {
	who, p, err := s.optionalProof(c)
	if err != nil {
		return err
	}
	session, err := pathID(c, "there is no such session")
	if err != nil {
		return err
	}
	result, err := s.Identity.EndOwnSession(c.Request().Context(), who.ID, who.session, session, p, who.metadata)
	if err != nil {
		return err
	}
	return done(c, result.Position)
}
