package server

import (
	"context"
	"encoding"
	"errors"
	"net/http"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"time"

	"github.com/google/uuid"

	"usher.example/identity"
)

// Handler answers a call whose Access was admitted.
type Handler func(*Call) (Answer, error)

// Handle makes a Handler of what a call does with what it is sent, which is read strictly into a struct:
//
//   - a field tagged json is one of the body (see decode), and one with `required:"true"` too must not be empty;
//   - one tagged path is a parameter of the route: text, or an id, in which case `missing:"…"` is what a path without one is
//     answered with, as not found;
//   - one tagged query is a parameter of the query: text, a bool, a time, or what reads itself from text. One that is there and
//     empty is as if it were not, unless the field is a pointer, which is nil for one that is not there.
//
// What is not in the struct is refused, in the body of a call that changes something as in the query of one that reads. A POST's
// Idempotency-Key has its form checked: what it means is for each call to say.
func Handle[In any](do func(context.Context, *Call, In) (Answer, error)) Handler {
	form := formOf(reflect.TypeFor[In]())
	return func(c *Call) (Answer, error) {
		var in In
		if err := form.read(c, &in); err != nil {
			return Answer{}, err
		}
		return do(c.echo.Request().Context(), c, in)
	}
}

// Nothing is what a call takes that needs no more than who makes it.
type Nothing struct{}

// form is what a struct has of a request.
type form struct {
	body     map[string]nulls // the names of its fields, and where in each null may stand
	required []part
	path     []part
	query    []part
	names    []string // of the query
}

// part is a field of a struct.
type part struct {
	index   []int
	name    string
	missing string
}

func formOf(t reflect.Type) form {
	f := form{body: map[string]nulls{}}
	for _, field := range reflect.VisibleFields(t) {
		if field.Anonymous {
			continue // its own fields come by themselves
		}
		p := part{index: field.Index, missing: field.Tag.Get("missing")}
		switch {
		case field.Tag.Get("path") != "" && (field.Type == reflect.TypeFor[uuid.UUID]() || field.Type.Kind() == reflect.String):
			p.name = field.Tag.Get("path")
			f.path = append(f.path, p)
		case field.Tag.Get("query") != "" && isParameter(field.Type):
			p.name = field.Tag.Get("query")
			f.query, f.names = append(f.query, p), append(f.names, p.name)
		case field.Tag.Get("json") != "":
			p.name = field.Tag.Get("json")
			f.body[p.name] = nullsOf(field.Type)
			if field.Tag.Get("required") != "" {
				f.required = append(f.required, p)
			}
		default:
			panic("server: the field " + field.Name + " of " + t.String() + " is no part of a request")
		}
	}
	return f
}

// isParameter says whether a parameter of a query can be read into a type: see part.readQuery.
func isParameter(t reflect.Type) bool {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t.Kind() == reflect.String || t.Kind() == reflect.Bool || reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]())
}

// read reads a request into the struct that into points to. What the body is comes before what the path names.
func (f form) read(c *Call, into any) error {
	to := reflect.ValueOf(into).Elem()
	method := c.echo.Request().Method
	if method == http.MethodPost {
		var err error
		if c.key, err = idempotencyKey(c.echo.Request().Header); err != nil {
			return err
		}
	}
	if changes(method) {
		if err := decode(c.echo, f.body, into); err != nil {
			return err
		}
		for _, p := range f.required {
			if to.FieldByIndex(p.index).IsZero() {
				return Refuse(identity.CodeInvalidRequest, "the field %q is needed", p.name)
			}
		}
	}
	for _, p := range f.path {
		if err := p.readPath(to.FieldByIndex(p.index), c.echo.Param(p.name)); err != nil {
			return err
		}
	}
	if changes(method) {
		return nil
	}
	var err error
	if c.Query, err = query(c.echo.Request().URL.RawQuery, f.names); err != nil {
		return err
	}
	for _, p := range f.query {
		if err := p.readQuery(to.FieldByIndex(p.index), c.Query); err != nil {
			return err
		}
	}
	return nil
}

func (p part) readPath(to reflect.Value, text string) error {
	into, ok := to.Addr().Interface().(*uuid.UUID)
	if !ok {
		to.SetString(text)
		return nil
	}
	id, err := uuid.Parse(text)
	if err != nil || len(text) != 36 { // it reads other forms too
		return Refuse(identity.CodeNotFound, "%s", p.missing)
	}
	*into = id
	return nil
}

func (p part) readQuery(to reflect.Value, values url.Values) error {
	text := values.Get(p.name)
	if to.Kind() == reflect.Pointer && values.Has(p.name) {
		to.Set(reflect.New(to.Type().Elem()))
		to = to.Elem()
	} else if text == "" {
		return nil
	}
	switch into := to.Addr().Interface().(type) {
	case *bool:
		if text != "true" && text != "false" {
			return Refuse(identity.CodeInvalidRequest, "%s is true or false", p.name)
		}
		*into = text == "true"
	case *time.Time:
		t, ok := parseTime(text)
		if !ok {
			return Refuse(identity.CodeInvalidRequest, "%s is a time such as 2026-01-02T15:04:05Z, not before 1970", p.name)
		}
		*into = t
	case encoding.TextUnmarshaler:
		if err := into.UnmarshalText([]byte(text)); errors.As(err, new(*identity.Error)) {
			return err
		} else if err != nil {
			return Refuse(identity.CodeInvalidRequest, "%s is not valid", p.name)
		}
	default:
		to.SetString(text)
	}
	return nil
}

// query reads a query, strictly: each parameter known and at most once.
func query(raw string, known []string) (url.Values, error) {
	values, err := url.ParseQuery(raw)
	if err != nil {
		return nil, Refuse(identity.CodeInvalidRequest, "the query is not valid")
	}
	for name, list := range values {
		if !slices.Contains(known, name) {
			return nil, Refuse(identity.CodeInvalidRequest, "the parameter %s is unknown", Quote(name))
		}
		if len(list) > 1 {
			return nil, Refuse(identity.CodeInvalidRequest, "the parameter %s is there twice", Quote(name))
		}
	}
	return values, nil
}

// parseTime reads a time of RFC 3339, from 1970 on, to the microsecond.
func parseTime(text string) (time.Time, bool) {
	t, err := time.Parse(time.RFC3339Nano, text)
	return t.UTC().Truncate(time.Microsecond), err == nil && t.Year() >= 1970
}

// idempotencyKey is a request's key, or "" where it has none.
func idempotencyKey(h http.Header) (string, error) {
	values := h.Values(HeaderIdempotencyKey)
	if len(values) == 0 {
		return "", nil
	}
	if len(values) > 1 || !printable.MatchString(values[0]) {
		return "", Refuse(identity.CodeInvalidRequest, "the Idempotency-Key has to be one value of 1 to 255 printable ASCII characters")
	}
	return values[0], nil
}

var printable = regexp.MustCompile(`^[\x21-\x7e]{1,255}$`)
