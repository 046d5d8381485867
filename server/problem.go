package server

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

	"usher.example/client"
	"usher.example/identity"
	"usher.example/identity/password"
	"usher.example/token"
)

// Codes that only HTTP has a use for, beside those of package identity.
const (
	CodeMethodNotAllowed identity.Code = "method_not_allowed"
	CodeBodyTooLarge     identity.Code = "body_too_large"
	CodeUnsupportedType  identity.Code = "unsupported_media_type"
	CodeInvalidCursor    identity.Code = "invalid_cursor"
	CodeInvalidPosition  identity.Code = "invalid_position"
	CodeNotParked        identity.Code = "not_parked"
	CodePoisonEvent      identity.Code = "poison_event"
	CodeRateLimited      identity.Code = "rate_limited"

	CodeInsufficientScope identity.Code = "insufficient_scope" // of the token (RFC 6750, section 3.1)
)

// problems is the one table from codes to HTTP: the status, the title, and whether trying again later may help.
var problems = map[identity.Code]struct {
	status int
	title  string
	retry  bool
}{
	identity.CodeInvalidRequest:     {http.StatusBadRequest, "The request is not valid", false},
	CodeInvalidCursor:               {http.StatusBadRequest, "The cursor is not one of this list", false},
	CodeInvalidPosition:             {http.StatusBadRequest, "That is not a position", false},
	identity.CodeUnauthenticated:    {http.StatusUnauthorized, "A valid access token is needed", false},
	identity.CodeInvalidCredentials: {http.StatusUnauthorized, "The credentials are wrong", false},
	identity.CodeTOTPRequired:       {http.StatusUnauthorized, "A second factor is needed", false},
	identity.CodeInvalidRefresh:     {http.StatusUnauthorized, "The refresh token is not valid", false},
	identity.CodeForbidden:          {http.StatusForbidden, "Not allowed", false},
	CodeInsufficientScope:           {http.StatusForbidden, "The token may not do that", false},
	identity.CodeEmailNotVerified:   {http.StatusForbidden, "The address is not verified", false},
	identity.CodeUserLocked:         {http.StatusForbidden, "The account is locked", false},
	identity.CodePasswordExpired:    {http.StatusForbidden, "The password is too old", false},
	identity.CodeUserDisabled:       {http.StatusForbidden, "The account is disabled", false},
	identity.CodeNotFound:           {http.StatusNotFound, "Not found", false},
	CodeMethodNotAllowed:            {http.StatusMethodNotAllowed, "The method is not allowed here", false},
	identity.CodeTOTPEnabled:        {http.StatusConflict, "There is a second factor already", false},
	identity.CodeTOTPNotEnabled:     {http.StatusConflict, "There is no second factor", false},
	identity.CodeEmailTaken:         {http.StatusConflict, "The address is taken", false},
	identity.CodeLastAdmin:          {http.StatusConflict, "The last administrator stays", false},
	CodeNotParked:                   {http.StatusConflict, "The event is in nobody's way", false},
	CodePoisonEvent:                 {http.StatusConflict, "An event still can't be applied", false},
	identity.CodeAlreadyDone:        {http.StatusConflict, "That is done already", false},
	identity.CodeConflict:           {http.StatusConflict, "Not as things are", false},
	CodeBodyTooLarge:                {http.StatusRequestEntityTooLarge, "The body is too large", false},
	CodeUnsupportedType:             {http.StatusUnsupportedMediaType, "The body is of another media type", false},
	identity.CodeInvalidEmail:       {http.StatusUnprocessableEntity, "The email is not valid", false},
	identity.CodeInvalidName:        {http.StatusUnprocessableEntity, "The name is not valid", false},
	identity.CodeInvalidAttributes:  {http.StatusUnprocessableEntity, "The attributes are not valid", false},
	identity.CodeInvalidCode:        {http.StatusUnprocessableEntity, "The code is not good", false},
	identity.CodeInvalidClient:      {http.StatusUnprocessableEntity, "The client can't be like that", false},
	identity.CodeInvalidURL:         {http.StatusUnprocessableEntity, "The URL is not valid", false},
	identity.CodeUnknownEvent:       {http.StatusUnprocessableEntity, "There is no such event type", false},
	identity.CodePasswordRefused:    {http.StatusUnprocessableEntity, "The password is refused", false},
	identity.CodeKeyReused:          {http.StatusUnprocessableEntity, "The idempotency key was used for another request", false},
	CodeRateLimited:                 {http.StatusTooManyRequests, "Too many requests", true},
	identity.CodeThrottled:          {http.StatusTooManyRequests, "Too often", true},
	identity.CodeInternal:           {http.StatusInternalServerError, "Something went wrong here", false},
	identity.CodeBehind:             {http.StatusServiceUnavailable, "The read model is behind", true},
	identity.CodeOverloaded:         {http.StatusServiceUnavailable, "Too much to do at the moment", true},
	identity.CodeUnavailable:        {http.StatusServiceUnavailable, "Not available at the moment", true},
	identity.CodeOutcomeUnknown:     {http.StatusServiceUnavailable, "It may have been done", true},
}

// Problem is an RFC 9457 problem detail, with a code for programs and the id of the request for the log.
type Problem struct {
	Type      string        `json:"type"`
	Title     string        `json:"title"`
	Status    int           `json:"status"`
	Detail    string        `json:"detail,omitempty"`
	Code      identity.Code `json:"code"`
	RequestID string        `json:"request_id"`
}

// ProblemType is what the type of every problem begins with; its code follows.
const ProblemType = "urn:usher:problem:"

// Refuse is an error with a code, and what the caller is told of it.
func Refuse(code identity.Code, format string, args ...any) error {
	return &identity.Error{Code: code, Detail: fmt.Sprintf(format, args...)}
}

// explain gives any error its code and the detail that the caller may see.
func (of Surface) explain(err error) (code identity.Code, detail string) {
	var known *identity.Error
	switch {
	case errors.As(err, &known):
		return known.Code, known.Detail
	case errors.Is(err, client.ErrUnknown):
		return identity.CodeNotFound, "there is no such client"
	case errors.Is(err, token.ErrNonce):
		return identity.CodeUnauthenticated, "the DPoP proof has to have the nonce of this answer's DPoP-Nonce header; try again with that"
	case errors.Is(err, token.ErrProof):
		return identity.CodeUnauthenticated, "the DPoP proof is not valid for this request, or was used before"
	case errors.Is(err, token.ErrBound):
		return identity.CodeUnauthenticated, "the access token is bound to a key; send it as DPoP, with a proof"
	case errors.Is(err, token.ErrInvalid):
		return identity.CodeUnauthenticated, "the access token is not valid"
	}
	if code, detail = of.Explain(err); code != "" {
		return code, detail
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
		return CodeMethodNotAllowed, ""
	}
	return identity.CodeInternal, ""
}

// Failure is a request that failed, as its caller may be told.
type Failure struct {
	Problem
	Err error // all of it, which the caller is not told
	// Challenge is what a caller is asked for who lacks a token, or a scope; "" for any other.
	Challenge string
}

// fail answers a request that failed as its surface tells of that. Errors that are ours to mend are logged, with all that the
// caller is not told. It is false where another answer was begun and broke off.
func (s *Server) fail(c *echo.Context, err error) bool {
	of := s.surface(c)
	code, detail := of.explain(err)
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
		s.Logger.Log(ctx, level, "request failed", slog.String("code", string(code)), slog.String("request_id", RequestID(c)),
			slog.String("method", c.Request().Method), slog.String("route", c.Path()), slog.Any("error", err))
	}
	if r, unwrapErr := echo.UnwrapResponse(c.Response()); unwrapErr == nil && r.Committed {
		return false
	}
	h := c.Response().Header()
	if known.retry {
		h.Set(echo.HeaderRetryAfter, strconv.Itoa(retryAfter(err)))
	}
	if known.status == http.StatusRequestEntityTooLarge {
		h.Set(echo.HeaderConnection, "close") // the rest of the body is not read
	}
	h[echo.HeaderCacheControl] = noStore
	err = of.Tell(c, Failure{Err: err, Challenge: s.challenge(c, known.status, err), Problem: Problem{
		Type: ProblemType + string(code), Title: known.title, Status: known.status, Detail: detail, Code: code, RequestID: RequestID(c),
	}})
	if err != nil {
		s.Logger.DebugContext(ctx, "answer was not sent", slog.Any("error", err))
	}
	return true
}

// TellProblem answers with the problem (RFC 9457), and asks for an access token where one is needed (RFC 6750, section 3).
func TellProblem(c *echo.Context, f Failure) error {
	if f.Challenge != "" {
		c.Response().Header().Set(echo.HeaderWWWAuthenticate, f.Challenge)
	}
	return Blob(c, f.Status, echo.MIMEApplicationProblemJSON, f.Problem)
}

// Blob answers with a value in JSON, under a media type of its own.
func Blob(c *echo.Context, status int, contentType string, value any) error {
	body, err := json.Marshal(value)
	if err != nil {
		return err
	}
	return c.Blob(status, contentType, body)
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

// CodeOf is the code of an error that package identity or token knows; of any other it is that of an internal one.
func CodeOf(err error) identity.Code {
	code, _ := Surface{Explain: func(error) (identity.Code, string) { return "", "" }}.explain(err)
	if _, known := problems[code]; !known {
		return identity.CodeInternal
	}
	return code
}
