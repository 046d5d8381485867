package password

import (
	"errors"
	"fmt"
	"strings"
)

// ErrRefused is what every [*RefusedError] is.
var ErrRefused = errors.New("password: refused")

// Reason says, for a machine, why a password was refused.
type Reason string

// The reasons for refusing a password. The first four hold whatever the
// policy; [Policy.Check] finds all but Reused, which takes [Pool.Reused].
const (
	TooLong       Reason = "too_long"
	InvalidUTF8   Reason = "invalid_utf8"
	ContainsNUL   Reason = "contains_nul"
	TooShort      Reason = "too_short"
	Common        Reason = "common"
	Pattern       Reason = "pattern"
	ContainsEmail Reason = "contains_email"
	ContainsName  Reason = "contains_name"
	ContainsWord  Reason = "contains_word"
	FewClasses    Reason = "few_character_classes"
	Reused        Reason = "reused"
)

// RefusedError says why a password can't be used. It matches [ErrRefused] and
// holds nothing of the password.
type RefusedError struct {
	Reasons   []Reason // at least one
	MinLength int      // characters; set when Reasons holds TooShort
}

// Error is Advice with the package's name before it.
func (e *RefusedError) Error() string { return ErrRefused.Error() + ": " + e.Advice() }

// Is reports whether target is [ErrRefused].
func (e *RefusedError) Is(target error) bool { return target == ErrRefused }

// Advice says to whoever chose the password what is wrong with it and what to
// do, in sentences about "it".
func (e *RefusedError) Advice() string {
	texts := make([]string, len(e.Reasons))
	for i, reason := range e.Reasons {
		texts[i] = e.advice(reason)
	}
	return strings.Join(texts, "; ")
}

func (e *RefusedError) advice(reason Reason) string {
	switch reason {
	case TooLong:
		return fmt.Sprintf("it is longer than %d bytes: make it shorter", MaxBytes)
	case InvalidUTF8:
		return "it is not valid UTF-8: send it as UTF-8"
	case ContainsNUL:
		return "it contains a NUL character: leave that out"
	case TooShort:
		return fmt.Sprintf("it is shorter than %d characters: make it longer, several words are good", e.MinLength)
	case Common:
		return "it is one of the most used passwords, or nearly: choose one that others would not think of"
	case Pattern:
		return "it repeats or counts: choose one that follows no pattern"
	case ContainsEmail:
		return "it is little more than the email address: leave that out, or add more to it"
	case ContainsName:
		return "it is little more than the name: leave that out, or add more to it"
	case ContainsWord:
		return "it is little more than the name of this service or of who runs it: leave that out, or add more to it"
	case FewClasses:
		return fmt.Sprintf("it has characters of fewer than %d kinds: mix lowercase letters, uppercase letters, digits and others", strictClasses)
	case Reused:
		return "it was used before: choose a new one"
	}
	return string(reason)
}
