package password

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// DefaultMinLength is the least number of characters a new password has.
const DefaultMinLength = 8

// ErrRefused is what every [*RefusedError] is.
var ErrRefused = errors.New("password: refused")

// Reason says, for a machine, why a password was refused.
type Reason string

// The reasons for refusing a password.
const (
	TooShort    Reason = "too_short"
	TooLong     Reason = "too_long"
	InvalidUTF8 Reason = "invalid_utf8"
	ContainsNUL Reason = "contains_nul"
)

// RefusedError says why a password can't be used. It matches [ErrRefused] and
// holds nothing of the password.
type RefusedError struct {
	Reasons   []Reason // at least one
	MinLength int      // characters; set when Reasons holds TooShort
}

// Error names the reasons.
func (e *RefusedError) Error() string {
	texts := make([]string, len(e.Reasons))
	for i, reason := range e.Reasons {
		switch reason {
		case TooShort:
			texts[i] = fmt.Sprintf("shorter than %d characters", e.MinLength)
		case TooLong:
			texts[i] = fmt.Sprintf("longer than %d bytes", MaxBytes)
		case InvalidUTF8:
			texts[i] = "not valid UTF-8"
		case ContainsNUL:
			texts[i] = "contains a NUL character"
		default:
			texts[i] = string(reason)
		}
	}
	return ErrRefused.Error() + ": " + strings.Join(texts, ", ")
}

// Is reports whether target is [ErrRefused].
func (e *RefusedError) Is(target error) bool { return target == ErrRefused }

// Policy decides which new passwords are accepted. It follows NIST SP 800-63B:
// length counts, there are no rules about the kinds of characters.
type Policy struct {
	// MinLength is the least number of characters (Unicode code points).
	// Zero stands for DefaultMinLength.
	MinLength int
}

// Check returns nil or a [*RefusedError] with every reason that applies.
func (p Policy) Check(password Password) error {
	reasons := password.defects()
	least := p.MinLength
	if least == 0 {
		least = DefaultMinLength
	}
	if len(password) <= MaxBytes {
		// One ligature can stand for eighteen letters once normalised, and one
		// letter be typed as three code points: the smaller count is the honest one.
		length := min(utf8.RuneCountInString(string(password)), utf8.RuneCountInString(password.normalised()))
		if length < least {
			reasons = append(reasons, TooShort)
		}
	}
	if reasons == nil {
		return nil
	}
	return &RefusedError{Reasons: reasons, MinLength: least}
}
