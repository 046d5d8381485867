package password

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// What a [Policy] asks for, whatever is set.
const (
	// DefaultMinLength is the least number of characters (Unicode code points)
	// of a new password, and the most that a password has to have besides the
	// words that it must not be made of.
	DefaultMinLength = 8
	// StrictMinLength is the least that the strict policy can be set to.
	StrictMinLength = 12
	// StrictHistory is the least history of the strict policy.
	StrictHistory = 5
	// MaxHistory is the longest history: checking it costs a new password that
	// many computations.
	MaxHistory = 24

	strictClasses = 3
)

// PolicyConfig sets up a [Policy].
type PolicyConfig struct {
	// Type is "lenient", "default" or "strict". Empty stands for "default".
	Type string
	// MinLength is the least number of characters. Zero stands for
	// DefaultMinLength. The strict policy asks for StrictMinLength or more.
	MinLength int
	// History is how many earlier passwords are refused; the present one is the
	// first of them. The strict policy refuses StrictHistory or more.
	History int
	// Words that no password may be made of, of four characters or more: names
	// of the organisation, of its products, of its town.
	Words []string
}

// Policy decides which new passwords are accepted. There are three, and each
// refuses what the one before it refuses:
//
//   - lenient looks at the length, and at what no policy accepts: more than
//     [MaxBytes] bytes, invalid UTF-8, a NUL.
//   - default follows NIST SP 800-63B. The length counts, the kinds of
//     characters don't. A password is refused if it is one of the most used, or
//     one of them with a little added (38,460 are listed; case and width of the
//     letters don't matter); if it repeats or counts, like aaaaaaaa, 12345678
//     or abcd1234; and if it is made of what is no secret.
//   - strict is for those who are bound to other rules than NIST's: twelve
//     characters at least, of three kinds (lowercase letters, uppercase
//     letters, digits, everything else) at least, and none of the last five.
//
// No secret are the words of the person's email address and name, the word
// usher and those of [PolicyConfig], of four characters or more, in whatever
// case. A password may contain them, since a long phrase that mentions Anna is
// no worse for it; they just count for nothing. Without them it has to be as
// long as the minimum, of which DefaultMinLength are asked at most, and to be
// neither common nor a pattern: "anna likes blue whales" is accepted, and
// "anna2024!", "annapassword" and "anna12345678" are not.
//
// The zero Policy is the default one. Policies are made by [NewPolicy].
type Policy struct {
	lenient, strict bool
	minLength       int
	history         int
	words           []fact
}

// NewPolicy returns an error that names the field for a type that is not
// known, a negative length, a history outside 0 to MaxHistory, and a word of
// fewer than four characters.
func NewPolicy(c PolicyConfig) (Policy, error) {
	p := Policy{minLength: c.MinLength, history: c.History}
	switch c.Type {
	case "lenient":
		p.lenient = true
	case "default", "":
	case "strict":
		p.strict = true
		p.minLength = max(p.minLength, StrictMinLength)
		p.history = max(p.history, StrictHistory)
	default:
		return Policy{}, errors.New("password: Type of a policy is lenient, default or strict")
	}
	if c.MinLength < 0 {
		return Policy{}, errors.New("password: MinLength is not negative")
	}
	if c.History < 0 || c.History > MaxHistory {
		return Policy{}, fmt.Errorf("password: History is 0 to %d", MaxHistory)
	}
	for _, word := range c.Words {
		spellings := words(word)
		if len(spellings) == 0 {
			return Policy{}, fmt.Errorf("password: Words have at least %d characters", minFact)
		}
		for _, spelling := range spellings {
			p.words = append(p.words, fact{spelling, ContainsWord})
		}
	}
	return p, nil
}

// History is how many hashes of a user's passwords, the present one first, are
// to be kept and given to [Pool.Reused] when a new one is chosen.
func (p Policy) History() int { return p.history }

// MinLength is the least number of characters.
func (p Policy) MinLength() int {
	if p.minLength == 0 {
		return DefaultMinLength
	}
	return p.minLength
}

// Check returns nil or a [*RefusedError] with every reason that applies to a
// new password of the subject. It takes microseconds.
func (p Policy) Check(password Password, subject Subject) error {
	reasons := password.defects()
	if len(password) <= MaxBytes {
		text := password.normalised()
		// One ligature can stand for eighteen letters once normalised, and one
		// letter be typed as three code points: the smaller count is the honest one.
		if min(utf8.RuneCountInString(string(password)), utf8.RuneCountInString(text)) < p.MinLength() {
			reasons = append(reasons, TooShort)
		}
		if !p.lenient {
			reasons = append(reasons, p.guessable(fold(text), subject)...)
		}
		if p.strict && classes(text) < strictClasses {
			reasons = append(reasons, FewClasses)
		}
	}
	if reasons == nil {
		return nil
	}
	return &RefusedError{Reasons: reasons, MinLength: p.MinLength()}
}

// guessable says why a folded password would be among the first guesses.
func (p Policy) guessable(text string, subject Subject) []Reason {
	facts := slices.Concat(subject.facts(), []fact{{ownWord, ContainsWord}}, p.words)
	rest, contained := without(text, facts)
	switch {
	case contained == nil:
		rest = "" // it is the whole text, looked at as such
	case utf8.RuneCountInString(rest) < min(p.MinLength(), DefaultMinLength):
		rest = "" // too short, whatever it is
	default:
		contained = nil
	}
	var reasons []Reason
	if isCommon(text) || isCommon(rest) {
		reasons = append(reasons, Common)
	}
	if isPattern(text) || isPattern(rest) {
		reasons = append(reasons, Pattern)
	}
	return append(reasons, contained...)
}

// classes counts the kinds of characters. Letters that are neither lowercase
// nor uppercase, as in Thai or Chinese, are of the kind of everything else.
func classes(text string) int {
	var found [4]bool
	for _, r := range text {
		switch {
		case unicode.IsLower(r):
			found[0] = true
		case unicode.IsUpper(r):
			found[1] = true
		case unicode.IsDigit(r):
			found[2] = true
		default:
			found[3] = true
		}
	}
	n := 0
	for _, one := range found {
		if one {
			n++
		}
	}
	return n
}

// fold is the spelling in which texts are compared, so that neither case nor
// the width of letters matters. Through uppercase, because some letters have
// two lowercase forms, and nobody's guess depends on which.
func fold(text string) string {
	return strings.ToLower(strings.ToUpper(norm.NFKC.String(text)))
}
