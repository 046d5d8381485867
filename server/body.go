package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/labstack/echo/v5"

	"usher.example/identity"
)

// maxBody bounds a request's body.
const maxBody = 64 << 10

// decode reads a JSON body into the struct that into points to, strictly: one object, of known fields, each once and
// spelled as documented, all text valid Unicode without NUL. An empty body stands for {}. Errors have a code and never
// show what was sent, except the names of fields.
//
// null is refused, since a client that sends it means something and would believe that it was done, but where it takes
// something away: see PatchText and MergePatch.
func decode(c *echo.Context, fields map[string]nulls, into any) error {
	body, err := readBody(c)
	if err != nil || len(body) == 0 {
		return err
	}
	if !isMedia(c.Request().Header.Values(echo.HeaderContentType), echo.MIMEApplicationJSON) {
		return Refuse(CodeUnsupportedType, "the Content-Type has to be application/json")
	}
	if err := checkJSON(body, fields); err != nil {
		return &identity.Error{Code: identity.CodeInvalidRequest, Detail: err.Error()}
	}
	if err := json.Unmarshal(body, into); err != nil {
		var wrong *json.UnmarshalTypeError
		if errors.As(err, &wrong) && wrong.Field != "" {
			return Refuse(identity.CodeInvalidRequest, "the field %q is of the wrong type", wrong.Field)
		}
		return Refuse(identity.CodeInvalidRequest, "the body is not what is expected here")
	}
	return nil
}

// readBody reads a body of bounded size.
func readBody(c *echo.Context) ([]byte, error) {
	r := c.Request()
	if encoding := r.Header.Get(echo.HeaderContentEncoding); encoding != "" && encoding != "identity" {
		return nil, Refuse(CodeUnsupportedType, "the body must not be compressed")
	}
	body, err := io.ReadAll(http.MaxBytesReader(nil, r.Body, maxBody))
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return nil, Refuse(CodeBodyTooLarge, "the body is larger than %d bytes", maxBody)
	case err != nil:
		return nil, Refuse(identity.CodeInvalidRequest, "the body could not be read")
	}
	return bytes.TrimPrefix(body, byteOrderMark), nil
}

// byteOrderMark stands before some texts in UTF-8; a reader may pass over it (RFC 8259, section 8.1).
var byteOrderMark = []byte("\xef\xbb\xbf")

// isMedia says whether a Content-Type header names a media type. Parameters make no difference: neither of the types that are
// read here has any, and that the text is UTF-8 is seen by looking at it.
func isMedia(contentType []string, wanted string) bool {
	if len(contentType) != 1 {
		return false
	}
	media, _, err := mime.ParseMediaType(contentType[0])
	return media == wanted && (err == nil || errors.Is(err, mime.ErrInvalidMediaParameter))
}

// PatchText is a text in the body of a PATCH that null takes away, as the empty text does; nil where it is left out.
type PatchText struct{ Value *string }

func (t *PatchText) UnmarshalJSON(raw []byte) error {
	t.Value = new(string)
	return json.Unmarshal(raw, t.Value) // which leaves it empty for null
}

// MergePatch is a JSON merge patch (RFC 7396) in the body of a PATCH: in its objects null takes a member away. It can't be null
// itself, and nothing can in a list.
type MergePatch struct{ json.RawMessage }

// nulls says where in a field's value null may stand.
type nulls int

const (
	nullNowhere nulls = iota
	nullItself        // the value may be null
	nullMembers       // members of objects may, outside of lists
)

// nullsOf says where in a field of a type null may stand.
func nullsOf(t reflect.Type) nulls {
	switch t {
	case reflect.TypeFor[PatchText]():
		return nullItself
	case reflect.TypeFor[MergePatch]():
		return nullMembers
	}
	return nullNowhere
}

// checkJSON finds what encoding/json lets pass: it takes names in any case, the last of equal names, null for anything, and
// replaces what is not Unicode.
func checkJSON(body []byte, fields map[string]nulls) error {
	switch {
	case !utf8.Valid(body):
		return errors.New("the body is not valid UTF-8")
	case loneSurrogate(body):
		return errors.New("the body has half of a surrogate pair")
	case !json.Valid(body):
		return errors.New("the body is not one JSON value")
	case bytes.TrimLeft(body, " \t\r\n")[0] != '{':
		return errors.New("the body is not a JSON object")
	}
	return checkNames(body, fields)
}

// level is an object or a list that is being read.
type level struct {
	object bool
	list   bool // it is a list, or in one
	name   bool // the next token is a name
	seen   map[string]bool
}

// checkNames checks the names of an object's fields, all text in it, and where null stands. Below the first level any name
// will do.
func checkNames(body []byte, fields map[string]nulls) error {
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	var levels []level
	var field string // of the first level, that is being read
	for {
		t, err := d.Token()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil { // not after json.Valid
			return errors.New("the body is not one JSON value")
		}
		var at *level
		if len(levels) > 0 {
			at = &levels[len(levels)-1]
		}
		if text, ok := t.(string); ok {
			if strings.ContainsRune(text, 0) {
				return errors.New("the body has a NUL character")
			}
			if at.name {
				if _, known := fields[text]; len(levels) == 1 && !known {
					return fmt.Errorf("the field %s is unknown", Quote(text))
				}
				if at.seen[text] {
					return fmt.Errorf("the field %s is there twice", Quote(text))
				}
				if len(levels) == 1 {
					field = text
				}
				at.seen[text], at.name = true, false
				continue
			}
		}
		switch t {
		case json.Delim('}'), json.Delim(']'):
			levels = levels[:len(levels)-1]
			continue
		case nil:
			if err := checkNull(fields[field], field, len(levels), at.list); err != nil {
				return err
			}
		}
		if at != nil && at.object {
			at.name = true // after this value
		}
		switch t {
		case json.Delim('{'):
			levels = append(levels, level{object: true, list: at != nil && at.list, name: true, seen: map[string]bool{}})
		case json.Delim('['):
			levels = append(levels, level{list: true})
		}
	}
}

// checkNull refuses a null that stands in a field where it may not: as its value, at depth 1, or deeper in it.
func checkNull(may nulls, field string, depth int, list bool) error {
	switch {
	case depth == 1 && may == nullItself, depth > 1 && may == nullMembers && !list:
		return nil
	case depth == 1:
		return fmt.Errorf("the field %s can't be null; leave it out where it has no value", Quote(field))
	case may == nullMembers:
		return fmt.Errorf("in a list in the field %s there can be no null", Quote(field))
	}
	return fmt.Errorf("in the field %s there can be no null", Quote(field))
}

// Quote shows a name that was sent, in a bounded and printable form.
func Quote(name string) string {
	if runes := []rune(name); len(runes) > 40 {
		name = string(runes[:40]) + "…"
	}
	return strconv.QuoteToGraphic(name)
}

// loneSurrogate says whether an escape \uD800 to \uDFFF stands without its other half.
func loneSurrogate(body []byte) bool {
	for i := 0; i < len(body); i++ {
		if body[i] != '\\' {
			continue
		}
		r, ok := escaped(body[i:])
		if !ok {
			i++ // the character that the backslash escapes
			continue
		}
		i += 5
		if utf16.IsSurrogate(r) {
			second, ok := escaped(body[i+1:])
			if !ok || utf16.DecodeRune(r, second) == utf8.RuneError {
				return true
			}
			i += 6
		}
	}
	return false
}

// escaped reads an escape of the form \uXXXX.
func escaped(b []byte) (rune, bool) {
	if len(b) < 6 || b[0] != '\\' || b[1] != 'u' {
		return 0, false
	}
	n, err := strconv.ParseUint(string(b[2:6]), 16, 16)
	return rune(n), err == nil
}
