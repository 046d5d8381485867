package identity

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/idna"
	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"
)

// Email is an address that mail could be sent to (RFC 5321, internationalised by RFC 6531 and IDNA 2008).
type Email struct {
	typed, key string
}

// Limits of RFC 5321, in octets.
const (
	maxEmail = 254 // a path is at most 256, with its angle brackets
	maxLocal = 64
)

// String is the address as it was typed.
func (e Email) String() string { return e.typed }

// Key is the form that two spellings of one address share: the local part in NFKC and case-folded, the domain in lower
// case ASCII (punycode). It is for comparing only; mail goes to String.
func (e Email) Key() string { return e.key }

// Mailbox is the address as a mail server is told it: the local part as it was typed, and the domain in ASCII, which every
// server takes.
func (e Email) Mailbox() string {
	return e.typed[:strings.LastIndexByte(e.typed, '@')] + e.key[strings.LastIndexByte(e.key, '@'):]
}

// lookup is how domains are compared: mapped to lower case and NFC, checked as UTS 46 says for a look-up.
var lookup = idna.New(idna.MapForLookup(), idna.BidiRule(), idna.VerifyDNSLength(true), idna.StrictDomainName(true))

// ParseEmail reads an address, without the white space around it. It fails with an *Error of CodeInvalidEmail that says
// why. Quoted local parts, comments and address literals are refused: valid on paper, and in practice an attack.
func ParseEmail(text string) (Email, error) {
	text = strings.TrimSpace(text)
	switch {
	case text == "":
		return Email{}, refuse(CodeInvalidEmail, "the address is empty")
	case !utf8.ValidString(text):
		return Email{}, refuse(CodeInvalidEmail, "the address is not valid UTF-8")
	case len(text) > maxEmail:
		return Email{}, refuse(CodeInvalidEmail, "the address is longer than %d bytes", maxEmail)
	}
	local, domain, found := strings.Cut(text, "@")
	switch {
	case !found:
		return Email{}, refuse(CodeInvalidEmail, "the address has no @")
	case strings.Contains(domain, "@"):
		return Email{}, refuse(CodeInvalidEmail, "the address has more than one @")
	}
	local, err := localKey(local)
	if err != nil {
		return Email{}, err
	}
	domain, err = domainKey(domain)
	if err != nil {
		return Email{}, err
	}
	return Email{typed: text, key: local + "@" + domain}, nil
}

// localKey checks a local part and answers with its key. The key is checked as well: normalising can bring forth
// characters that were not there, such as the @ of its full-width form.
func localKey(local string) (string, error) {
	if err := checkLocal(local); err != nil {
		return "", err
	}
	if !strings.ContainsFunc(local, func(r rune) bool { return r >= utf8.RuneSelf }) {
		return strings.ToLower(local), nil // what all that follows would make of it
	}
	key := norm.NFKC.String(cases.Fold().String(norm.NFKC.String(local)))
	if err := checkLocal(key); err != nil {
		return "", err
	}
	return key, nil
}

func checkLocal(local string) error {
	switch {
	case local == "":
		return refuse(CodeInvalidEmail, "nothing stands before the @")
	case len(local) > maxLocal:
		return refuse(CodeInvalidEmail, "the part before the @ is longer than %d bytes", maxLocal)
	case local[0] == '.' || local[len(local)-1] == '.' || strings.Contains(local, ".."):
		return refuse(CodeInvalidEmail, "a dot begins or ends the part before the @, or follows another")
	}
	for _, r := range local {
		if !atom(r) && r != '.' {
			return refuse(CodeInvalidEmail, "the part before the @ has a character that can't be there")
		}
	}
	return nil
}

// atom says whether a character may be in an atom (RFC 5322, 3.2.3, and RFC 6531, 3.3). Of the other scripts it lets
// pass what is seen: no control, format or private characters, no spaces.
func atom(r rune) bool {
	if r < utf8.RuneSelf {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("!#$%&'*+-/=?^_`{|}~", r)
	}
	return r != utf8.RuneError && unicode.In(r, unicode.L, unicode.M, unicode.N, unicode.P, unicode.S)
}

func domainKey(domain string) (string, error) {
	switch {
	case domain == "":
		return "", refuse(CodeInvalidEmail, "nothing stands after the @")
	case domain[0] == '[':
		return "", refuse(CodeInvalidEmail, "the domain is an address literal")
	}
	ascii, err := lookup.ToASCII(domain)
	if err != nil {
		return "", refuse(CodeInvalidEmail, "the domain is not valid")
	}
	last := ascii[strings.LastIndexByte(ascii, '.')+1:]
	switch {
	case last == "":
		return "", refuse(CodeInvalidEmail, "a dot ends the domain")
	case strings.Trim(last, "0123456789") == "":
		return "", refuse(CodeInvalidEmail, "the domain is an address of numbers")
	case last == ascii && ascii != "localhost":
		return "", refuse(CodeInvalidEmail, "the domain has no dot")
	}
	return ascii, nil
}

// maxName bounds a user's name, in characters.
const maxName = 200

// ParseName reads a name, without the white space around it; it may be empty. It fails with an *Error of
// CodeInvalidName that says why.
func ParseName(text string) (string, error) {
	text = strings.TrimSpace(text)
	switch {
	case !utf8.ValidString(text):
		return "", refuse(CodeInvalidName, "the name is not valid UTF-8")
	case utf8.RuneCountInString(text) > maxName:
		return "", refuse(CodeInvalidName, "the name is longer than %d characters", maxName)
	}
	for _, r := range text {
		if unicode.In(r, unicode.Cc, unicode.Zl, unicode.Zp) {
			return "", refuse(CodeInvalidName, "the name has a control character")
		}
	}
	return text, nil
}
