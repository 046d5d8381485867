package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/labstack/echo/v5"

	"usher.example/identity"
	"usher.example/identity/password"
	"usher.example/projections"
	"usher.example/token"
)

// Codes that only HTTP has a use for, beside those of package identity.
const (
	codeMethodNotAllowed identity.Code = "method_not_allowed"
	codeBodyTooLarge     identity.Code = "body_too_large"
	codeUnsupportedType  identity.Code = "unsupported_media_type"
	codeInvalidCursor    identity.Code = "invalid_cursor"
	codeInvalidPosition  identity.Code = "invalid_position"
	codeNotParked        identity.Code = "not_parked"
	codePoisonEvent      identity.Code = "poison_event"
	codeRateLimited      identity.Code = "rate_limited"
)

// problems is the one table from codes to HTTP: the status, the title, and whether trying again later may help.
var problems = map[identity.Code]struct {
	status int
	title  string
	retry  bool
}{
	identity.CodeInvalidRequest:     {http.StatusBadRequest, "The request is not valid", false},
	codeInvalidCursor:               {http.StatusBadRequest, "The cursor is not one of this list", false},
	codeInvalidPosition:             {http.StatusBadRequest, "That is not a position", false},
	identity.CodeUnauthenticated:    {http.StatusUnauthorized, "A valid access token is needed", false},
	identity.CodeInvalidCredentials: {http.StatusUnauthorized, "The credentials are wrong", false},
	identity.CodeTOTPRequired:       {http.StatusUnauthorized, "A second factor is needed", false},
	identity.CodeInvalidRefresh:     {http.StatusUnauthorized, "The refresh token is not valid", false},
	identity.CodeForbidden:          {http.StatusForbidden, "Not allowed", false},
	identity.CodeEmailNotVerified:   {http.StatusForbidden, "The address is not verified", false},
	identity.CodeUserLocked:         {http.StatusForbidden, "The account is locked", false},
	identity.CodePasswordExpired:    {http.StatusForbidden, "The password is too old", false},
	identity.CodeUserDisabled:       {http.StatusForbidden, "The account is disabled", false},
	identity.CodeNotFound:           {http.StatusNotFound, "Not found", false},
	codeMethodNotAllowed:            {http.StatusMethodNotAllowed, "The method is not allowed here", false},
	identity.CodeTOTPEnabled:        {http.StatusConflict, "There is a second factor already", false},
	identity.CodeTOTPNotEnabled:     {http.StatusConflict, "There is no second factor", false},
	identity.CodeEmailTaken:         {http.StatusConflict, "The address is taken", false},
	identity.CodeLastAdmin:          {http.StatusConflict, "The last administrator stays", false},
	codeNotParked:                   {http.StatusConflict, "The event is in nobody's way", false},
	codePoisonEvent:                 {http.StatusConflict, "An event still can't be applied", false},
	identity.CodeAlreadyDone:        {http.StatusConflict, "That is done already", false},
	identity.CodeConflict:           {http.StatusConflict, "Not as things are", false},
	codeBodyTooLarge:                {http.StatusRequestEntityTooLarge, "The body is too large", false},
	codeUnsupportedType:             {http.StatusUnsupportedMediaType, "The body has to be JSON", false},
	identity.CodeInvalidEmail:       {http.StatusUnprocessableEntity, "The email is not valid", false},
	identity.CodeInvalidName:        {http.StatusUnprocessableEntity, "The name is not valid", false},
	identity.CodeInvalidAttributes:  {http.StatusUnprocessableEntity, "The attributes are not valid", false},
	identity.CodeInvalidCode:        {http.StatusUnprocessableEntity, "The code is not good", false},
	identity.CodeInvalidURL:         {http.StatusUnprocessableEntity, "The URL is not valid", false},
	identity.CodeUnknownEvent:       {http.StatusUnprocessableEntity, "There is no such event type", false},
	identity.CodePasswordRefused:    {http.StatusUnprocessableEntity, "The password is refused", false},
	identity.CodeKeyReused:          {http.StatusUnprocessableEntity, "The idempotency key was used for another request", false},
	codeRateLimited:                 {http.StatusTooManyRequests, "Too many requests", true},
	identity.CodeThrottled:          {http.StatusTooManyRequests, "Too often", true},
	identity.CodeInternal:           {http.StatusInternalServerError, "Something went wrong here", false},
	identity.CodeBehind:             {http.StatusServiceUnavailable, "The read model is behind", true},
	identity.CodeOverloaded:         {http.StatusServiceUnavailable, "Too much to do at the moment", true},
	identity.CodeUnavailable:        {http.StatusServiceUnavailable, "Not available at the moment", true},
	identity.CodeOutcomeUnknown:     {http.StatusServiceUnavailable, "It may have been done", true},
}

// problem is an RFC 9457 problem detail, with a code for programs and the id of the request for the log.
type problem struct {
	Type      string        `json:"type"`
	Title     string        `json:"title"`
	Status    int           `json:"status"`
	Detail    string        `json:"detail,omitempty"`
	Code      identity.Code `json:"code"`
	RequestID string        `json:"request_id"`
}

const problemType = "urn:usher:problem:"

func refuse(code identity.Code, format string, args ...any) error {
	return &identity.Error{Code: code, Detail: fmt.Sprintf(format, args...)}
}

// explain gives any error its code and the detail that the caller may see.
func explain(err error) (code identity.Code, detail string) {
	var known *identity.Error
	var filter *projections.FilterError
	switch {
	case errors.As(err, &known):
		return known.Code, known.Detail
	case errors.Is(err, token.ErrInvalid):
		return identity.CodeUnauthenticated, "the access token is not valid"
	case errors.Is(err, projections.ErrBadCursor):
		return codeInvalidCursor, ""
	case errors.As(err, &filter):
		return identity.CodeInvalidRequest, filter.Detail
	case errors.Is(err, projections.ErrNotFound):
		return identity.CodeNotFound, ""
	case errors.Is(err, projections.ErrBehind):
		return identity.CodeBehind, ""
	case errors.Is(err, projections.ErrUnknownProjection):
		return identity.CodeBehind, "the read model has not been made yet"
	case errors.Is(err, projections.ErrOtherVersion):
		return identity.CodeBehind, "the read model is that of another version of usher, and lacks what this needs until it is rebuilt"
	}
	if code = identity.CodeOf(err); code == identity.CodeOutcomeUnknown {
		return code, "repeat the request with the same Idempotency-Key to find out and to finish it"
	}
	if code != identity.CodeInternal {
		return code, ""
	}
	switch echo.StatusCode(err) {
	case http.StatusNotFound:
		return identity.CodeNotFound, "nothing is served here; GET /openapi.yaml says what is"
	case http.StatusMethodNotAllowed:
		return codeMethodNotAllowed, ""
	}
	return identity.CodeInternal, ""
}

// fail answers with the problem that an error is, or in OAuth's form (see oauthFailure). Errors that are ours to mend are logged, with all that the caller is
// not told.
func (s *Server) fail(c *echo.Context, err error) {
	code, detail := explain(err)
	known, ok := problems[code]
	if !ok {
		code, detail, known = identity.CodeInternal, "", problems[identity.CodeInternal]
	}
	ctx := c.Request().Context()
	var logged loggedError
	if known.status >= http.StatusInternalServerError && !errors.As(err, &logged) && !errors.Is(context.Cause(ctx), context.Canceled) {
		level := slog.LevelWarn
		if code == identity.CodeInternal {
			level = slog.LevelError
		}
		s.logger.Log(ctx, level, "request failed", slog.String("code", string(code)), slog.String("request_id", requestID(c)),
			slog.String("method", c.Request().Method), slog.String("route", c.Path()), slog.Any("error", err))
	}
	if r, unwrapErr := echo.UnwrapResponse(c.Response()); unwrapErr == nil && r.Committed {
		return
	}
	h := c.Response().Header()
	if known.retry {
		h.Set(echo.HeaderRetryAfter, strconv.Itoa(retryAfter(err)))
	}
	if known.status == http.StatusUnauthorized {
		h.Set(echo.HeaderWWWAuthenticate, challenge(err))
	}
	if known.status == http.StatusRequestEntityTooLarge {
		h.Set(echo.HeaderConnection, "close") // the rest of the body is not read
	}
	h[echo.HeaderCacheControl] = noStore
	contentType, answer := echo.MIMEApplicationProblemJSON, any(problem{
		Type: problemType + string(code), Title: known.title, Status: known.status, Detail: detail, Code: code, RequestID: requestID(c),
	})
	if errors.As(err, new(oauthFailure)) {
		contentType, answer = echo.MIMEApplicationJSON, oauthError{oauthCode(known.status), detail}
	}
	body, err := json.Marshal(answer)
	if err == nil {
		err = c.Blob(known.status, contentType, body)
	}
	if err != nil {
		s.logger.DebugContext(ctx, "answer was not sent", slog.Any("error", err))
	}
}

// retryAfter is when to come back, in seconds.
func retryAfter(err error) int {
	wait := defaultRetry
	var busy *password.OverloadedError
	var refusal *identity.Error
	switch {
	case errors.As(err, &busy):
		wait = busy.RetryAfter
	case errors.As(err, &refusal):
		wait = refusal.RetryAfter
	}
	return max(1, int(math.Ceil(wait.Seconds())))
}

const defaultRetry = time.Second
