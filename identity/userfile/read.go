package userfile

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"usher.example/identity"
	"usher.example/identity/password"
)

// Line is a user of a file.
type Line struct {
	Number int // from 1
	User   identity.ImportedUser
	Err    error // why the line can't be read; it shows nothing of the line
}

// Reader reads a file, a line at a time. What it holds of the file is bounded.
type Reader struct {
	in     *bufio.Reader
	number int         // of the last line that was read
	csv    *csv.Reader // nil for JSON Lines
	names  []string    // of the columns
}

const maxLine = 1 << 20 // bytes

// NewReader begins to read a file. Without a format, one whose first character is { is JSON Lines, and any other CSV. It
// fails where a CSV file has no header, or one with fields that there are not.
func NewReader(file io.Reader, format Format) (*Reader, error) {
	r := &Reader{in: bufio.NewReaderSize(file, 64<<10)}
	if mark, err := r.in.Peek(3); err == nil && string(mark) == "\ufeff" {
		if _, err := r.in.Discard(3); err != nil {
			return nil, err
		}
	}
	if format == "" {
		first, err := r.in.Peek(1)
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("read the file: %w", err)
		}
		format = CSV
		if len(first) == 0 || first[0] == '{' {
			format = JSONLines
		}
	}
	if format == JSONLines {
		return r, nil
	}
	r.csv = csv.NewReader(r.in)
	header, err := r.csv.Read()
	if errors.Is(err, io.EOF) {
		header, err = nil, nil
	}
	if err == nil {
		err = checkHeader(header)
	}
	if err != nil {
		return nil, err
	}
	r.names = header
	r.csv.ReuseRecord = true
	return r, nil
}

// Next reads the next user. It fails with io.EOF at the end of the file, or as reading it does. A line that can't be read
// is no failure of Next.
func (r *Reader) Next() (Line, error) {
	if r.csv != nil {
		return r.nextRecord()
	}
	for {
		r.number++
		text, long, err := r.line()
		if err != nil && (!errors.Is(err, io.EOF) || len(text) == 0 && !long) {
			return Line{}, err
		}
		switch text = bytes.TrimSpace(text); {
		case long:
			return Line{Number: r.number, Err: fmt.Errorf("the line has more than %d bytes", maxLine)}, nil
		case len(text) == 0:
			continue
		}
		l := Line{Number: r.number}
		l.User, l.Err = parseJSON(text)
		return l, nil
	}
}

// line reads a line of text; the rest of one that is too long is passed over.
func (r *Reader) line() (text []byte, long bool, err error) {
	for {
		piece, err := r.in.ReadSlice('\n')
		if long = long || len(text)+len(piece) > maxLine; long {
			text = nil
		} else {
			text = append(text, piece...)
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return text, long, err
		}
	}
}

func (r *Reader) nextRecord() (Line, error) {
	values, err := r.csv.Read()
	var malformed *csv.ParseError
	switch {
	case errors.As(err, &malformed):
		return Line{Number: malformed.StartLine, Err: fmt.Errorf("it is no CSV: %w", malformed.Err)}, nil
	case err != nil:
		return Line{}, err
	}
	l := Line{}
	l.Number, _ = r.csv.FieldPos(0)
	l.User, l.Err = r.parseCSV(values)
	return l, nil
}

// record is a user as JSON.
type record struct {
	Email         string          `json:"email"`
	Name          string          `json:"name,omitempty"`
	PasswordHash  string          `json:"password_hash,omitempty"`
	EmailVerified bool            `json:"email_verified"`
	Status        identity.Status `json:"status,omitempty"`
	Roles         []string        `json:"roles,omitempty"`
	Attributes    json.RawMessage `json:"attributes,omitempty"`
	CreatedAt     string          `json:"created_at,omitempty"`
}

func (c record) user() (u identity.ImportedUser, err error) {
	u = identity.ImportedUser{Email: c.Email, Name: c.Name, Hash: password.Hash(c.PasswordHash), EmailVerified: c.EmailVerified,
		Status: c.Status, Roles: c.Roles, Attributes: c.Attributes}
	if string(c.Attributes) == "null" {
		u.Attributes = nil
	}
	u.CreatedAt, err = parseTime(c.CreatedAt)
	return u, err
}

func parseJSON(text []byte) (identity.ImportedUser, error) {
	if !utf8.Valid(text) {
		return identity.ImportedUser{}, errors.New("it is not valid UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	var c record
	err := d.Decode(&c)
	if err == nil {
		if _, err = d.Token(); errors.Is(err, io.EOF) {
			return c.user()
		}
		err = errors.New("more than one value")
	}
	// What encoding/json says may have a value in it.
	var wrong *json.UnmarshalTypeError
	switch text := err.Error(); {
	case errors.As(err, &wrong) && wrong.Field != "":
		err = fmt.Errorf("the field %q is of the wrong type", wrong.Field)
	case strings.HasPrefix(text, "json: unknown field "):
		err = fmt.Errorf("there is no field %s", strings.TrimPrefix(text, "json: unknown field "))
	default:
		err = errors.New("it is not one JSON object")
	}
	return identity.ImportedUser{}, err
}

func (r *Reader) parseCSV(values []string) (identity.ImportedUser, error) {
	var c record
	for i, value := range values {
		if !utf8.ValidString(value) {
			return identity.ImportedUser{}, errors.New("it is not valid UTF-8")
		}
		// The record is used again for the next line.
		value = strings.Clone(strings.TrimSpace(value))
		switch r.names[i] {
		case fieldEmail:
			c.Email = value
		case fieldName:
			c.Name = value
		case fieldHash:
			c.PasswordHash = value
		case fieldVerified:
			var known bool
			if c.EmailVerified, known = truth[strings.ToLower(value)]; !known {
				return identity.ImportedUser{}, fmt.Errorf("%s is true or false", fieldVerified)
			}
		case fieldStatus:
			c.Status = identity.Status(value)
		case fieldRoles:
			c.Roles = strings.FieldsFunc(value, func(r rune) bool { return strings.ContainsRune(" ,;", r) })
		case fieldAttributes:
			if value != "" {
				c.Attributes = json.RawMessage(value)
			}
		case fieldCreated:
			c.CreatedAt = value
		}
	}
	return c.user()
}

var truth = map[string]bool{
	"": false, "false": false, "f": false, "no": false, "0": false,
	"true": true, "t": true, "yes": true, "1": true,
}

// parseTime reads a time of RFC 3339, also with a space in the place of the T, as databases write it.
func parseTime(text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02 15:04:05.999999999Z07:00", "2006-01-02 15:04:05.999999999Z07"} {
		if t, err := time.Parse(layout, text); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%s is a time such as 2026-01-02T15:04:05Z", fieldCreated)
}
