package server

import (
	"net/url"
	"strings"
	"unicode/utf8"

	"github.com/labstack/echo/v5"

	"usher.example/identity"
)

// Form reads a body of form parameters, each at most once, in valid Unicode without NUL. One without a value is as
// if it were not there, and one that is unknown is left alone: RFC 6749, section 3.2, asks for that.
func (c *Call) Form() (url.Values, error) {
	body, err := readBody(c.echo)
	if err != nil || len(body) == 0 {
		return url.Values{}, err
	}
	if !isMedia(c.echo.Request().Header.Values(echo.HeaderContentType), echo.MIMEApplicationForm) {
		return nil, Refuse(CodeUnsupportedType, "the Content-Type has to be application/x-www-form-urlencoded")
	}
	return parseForm(string(body))
}

// Parameters are those of the query of a call that reads, and of the form of any other: read as Form reads them.
func (c *Call) Parameters() (url.Values, error) {
	if r := c.echo.Request(); !changes(r.Method) {
		return parseForm(r.URL.RawQuery)
	}
	return c.Form()
}

func parseForm(text string) (url.Values, error) {
	form, err := url.ParseQuery(text)
	if err != nil {
		return nil, Refuse(identity.CodeInvalidRequest, "the parameters are not encoded as those of a form")
	}
	for name, values := range form {
		switch {
		case len(values) > 1:
			return nil, Refuse(identity.CodeInvalidRequest, "a parameter is there twice")
		case !IsText(name) || !IsText(values[0]):
			return nil, Refuse(identity.CodeInvalidRequest, "a parameter is not valid UTF-8, or has a NUL character")
		}
	}
	return form, nil
}

// IsText says whether a text is valid Unicode without NUL.
func IsText(s string) bool { return utf8.ValidString(s) && !strings.ContainsRune(s, 0) }
