package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"reflect"
	"slices"
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
// The idempotency key of a POST has its form checked here too: what it means is for each call to say.
func decode(c *echo.Context, into any) error {
	if c.Request().Method == http.MethodPost {
		if _, err := idempotencyKey(c); err != nil {
			return err
		}
	}
	body, err := readBody(c)
	if err != nil || len(body) == 0 {
		return err
	}
	if !isMedia(c.Request().Header.Values(echo.HeaderContentType), echo.MIMEApplicationJSON) {
		return refuse(codeUnsupportedType, "the Content-Type has to be application/json")
	}
	if err := checkJSON(body, fieldNames(into)); err != nil {
		return &identity.Error{Code: identity.CodeInvalidRequest, Detail: err.Error()}
	}
	if err := json.Unmarshal(body, into); err != nil {
		var wrong *json.UnmarshalTypeError
		if errors.As(err, &wrong) && wrong.Field != "" {
			return refuse(identity.CodeInvalidRequest, "the field %q is of the wrong type", wrong.Field)
		}
		return refuse(identity.CodeInvalidRequest, "the body is not what is expected here")
	}
	return nil
}

// readBody reads a body of bounded size.
func readBody(c *echo.Context) ([]byte, error) {
	r := c.Request()
	if encoding := r.Header.Get(echo.HeaderContentEncoding); encoding != "" && encoding != "identity" {
		return nil, refuse(codeUnsupportedType, "the body must not be compressed")
	}
	body, err := io.ReadAll(http.MaxBytesReader(nil, r.Body, maxBody))
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return nil, refuse(codeBodyTooLarge, "the body is larger than %d bytes", maxBody)
	case err != nil:
		return nil, refuse(identity.CodeInvalidRequest, "the body could not be read")
	}
	return body, nil
}

// isMedia says whether a Content-Type header is that of text in UTF-8 of a media type.
func isMedia(contentType []string, wanted string) bool {
	if len(contentType) != 1 {
		return false
	}
	media, params, err := mime.ParseMediaType(contentType[0])
	if err != nil || media != wanted {
		return false
	}
	charset, given := params["charset"]
	return !given || strings.EqualFold(charset, "utf-8")
}

// fieldNames are the JSON names of the fields of the struct that v points to.
func fieldNames(v any) []string {
	t := reflect.TypeOf(v).Elem()
	names := make([]string, t.NumField())
	for i := range names {
		names[i], _, _ = strings.Cut(t.Field(i).Tag.Get("json"), ",")
	}
	return names
}

// checkJSON finds what encoding/json lets pass: it takes names in any case, the last of equal names, and replaces what is
// not Unicode.
func checkJSON(body []byte, names []string) error {
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
	return checkNames(body, names)
}

// checkNames checks the names of an object's fields, and all text in it. Below the first level any name will do.
func checkNames(body []byte, names []string) error {
	type level struct {
		object bool
		name   bool // the next token is a name
		seen   map[string]bool
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	var levels []level
	for {
		t, err := d.Token()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("the body is not one JSON value: %w", err)
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
				if len(levels) == 1 && !slices.Contains(names, text) {
					return fmt.Errorf("the field %s is unknown", quote(text))
				}
				if at.seen[text] {
					return fmt.Errorf("the field %s is there twice", quote(text))
				}
				at.seen[text], at.name = true, false
				continue
			}
		}
		switch t {
		case json.Delim('}'), json.Delim(']'):
			levels = levels[:len(levels)-1]
			continue
		}
		if at != nil && at.object {
			at.name = true // after this value
		}
		switch t {
		case json.Delim('{'):
			levels = append(levels, level{object: true, name: true, seen: map[string]bool{}})
		case json.Delim('['):
			levels = append(levels, level{})
		}
	}
}

// quote shows a name that was sent, in a bounded and printable form.
func quote(name string) string {
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
