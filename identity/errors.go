package identity

import (
	"context"
	"errors"
	"fmt"
	"time"

	"usher.example/eventstore"
	"usher.example/identity/password"
)

// Code says what is wrong, for programs. Codes never change; package api maps each to an HTTP status.
type Code string

// The codes.
const (
	CodeInvalidRequest     Code = "invalid_request"
	CodeInvalidEmail       Code = "invalid_email"
	CodeInvalidName        Code = "invalid_name"
	CodeInvalidAttributes  Code = "invalid_attributes"
	CodePasswordRefused    Code = "password_refused"
	CodeEmailTaken         Code = "email_taken"
	CodeLastAdmin          Code = "last_admin"             // who has to stay one
	CodeKeyReused          Code = "idempotency_key_reused" // for another request than its first
	CodeInvalidURL         Code = "invalid_url"            // of a webhook
	CodeInvalidClient      Code = "invalid_client"         // what is to be set of one
	CodeUnknownEvent       Code = "unknown_event_type"
	CodeConflict           Code = "conflict" // the thing is not in a state for that
	CodeInvalidCredentials Code = "invalid_credentials"
	CodeTOTPRequired       Code = "totp_required" // the password was right, and does not suffice
	CodeTOTPEnabled        Code = "totp_enabled"
	CodeTOTPNotEnabled     Code = "totp_not_enabled"
	CodeEmailNotVerified   Code = "email_not_verified"
	CodeUserLocked         Code = "user_locked"
	CodeUserDisabled       Code = "user_disabled"
	CodeInvalidCode        Code = "invalid_code"          // of a mail, or to confirm a second factor
	CodeAlreadyDone        Code = "already_done"          // by the same code of a mail
	CodeInvalidRefresh     Code = "invalid_refresh_token" // not one, replaced, or its session has ended
	CodeUnauthenticated    Code = "unauthenticated"       // no access token, or not a good one
	CodeForbidden          Code = "forbidden"
	CodeNotFound           Code = "not_found"
	CodePasswordExpired    Code = "password_expired"
	CodeThrottled          Code = "throttled" // too often of late
	CodeBehind             Code = "behind"    // a read model has not reached the position asked for
	CodeOverloaded         Code = "overloaded"
	CodeUnavailable        Code = "unavailable"     // nothing was changed
	CodeOutcomeUnknown     Code = "outcome_unknown" // it may have been done
	CodeInternal           Code = "internal"
)

// Error is a refusal with a code, and a detail that may be shown to the caller.
type Error struct {
	Code   Code
	Detail string
	Err    error // the cause, for the log; nil where the code says it all

	RetryAfter time.Duration // when trying again may help; 0 where nothing is known of it
}

func (e *Error) Error() string {
	text := string(e.Code)
	if e.Detail != "" {
		text += ": " + e.Detail
	}
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	return text
}

// Unwrap is the cause.
func (e *Error) Unwrap() error { return e.Err }

// Is makes errors.Is true for errors of the same code.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code && (t.Detail == "" || t.Detail == e.Detail)
}

// Errors to compare with, by errors.Is.
var (
	ErrEmailTaken          = &Error{Code: CodeEmailTaken}
	ErrLastAdmin           = &Error{Code: CodeLastAdmin}
	ErrKeyReused           = &Error{Code: CodeKeyReused}
	ErrInvalidEmail        = &Error{Code: CodeInvalidEmail}
	ErrInvalidName         = &Error{Code: CodeInvalidName}
	ErrInvalidAttributes   = &Error{Code: CodeInvalidAttributes}
	ErrPasswordRefused     = &Error{Code: CodePasswordRefused}
	ErrInvalidCredentials  = &Error{Code: CodeInvalidCredentials}
	ErrWrongPassword       = &Error{Code: CodeInvalidCredentials, Detail: "the password is wrong"}
	ErrTOTPRequired        = &Error{Code: CodeTOTPRequired, Detail: "a one-time password or a recovery code is needed too"}
	ErrInvalidCode         = &Error{Code: CodeInvalidCode, Detail: "the code is wrong, was used, has expired, or has another after it"}
	ErrAlreadyDone         = &Error{Code: CodeAlreadyDone, Detail: "what this code is for was done already"}
	ErrInvalidRefreshToken = &Error{Code: CodeInvalidRefresh}
	ErrSessionEnded        = &Error{Code: CodeUnauthenticated, Detail: "the session has ended"}
	ErrLoginOver           = &Error{Code: CodeInvalidRequest, Detail: "the login began too long ago, or the password was changed since; log in again"}
	ErrEmailNotVerified    = &Error{Code: CodeEmailNotVerified}
	ErrUserLocked          = &Error{Code: CodeUserLocked}
	ErrUserDisabled        = &Error{Code: CodeUserDisabled}
	ErrPasswordExpired     = &Error{Code: CodePasswordExpired}
	ErrThrottled           = &Error{Code: CodeThrottled}
	ErrNotFound            = &Error{Code: CodeNotFound}
)

func refuse(code Code, format string, args ...any) error {
	return &Error{Code: code, Detail: fmt.Sprintf(format, args...)}
}

func lastAdmin() error {
	return refuse(CodeLastAdmin, "there has to be an administrator, and this is the last one")
}

func noSuchUser() error { return refuse(CodeNotFound, "there is no such user") }

// CodeOf is the code of any error that this package answers with. An error that it does not know is CodeInternal.
func CodeOf(err error) Code {
	var e *Error
	switch {
	case errors.As(err, &e):
		return e.Code
	case erased(err):
		return CodeNotFound
	case errors.Is(err, eventstore.ErrOutcomeUnknown):
		return CodeOutcomeUnknown
	case errors.Is(err, eventstore.ErrOverloaded), errors.Is(err, password.ErrOverloaded):
		return CodeOverloaded
	case errors.Is(err, eventstore.ErrUnavailable), errors.Is(err, eventstore.ErrMasterKeyRetired), errors.Is(err, eventstore.ErrClosed), errors.Is(err, password.ErrStopped),
		errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return CodeUnavailable
	}
	return CodeInternal
}
