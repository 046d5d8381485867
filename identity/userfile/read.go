package userfile

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"usher.example/identity"
	"usher.example/identity/password"
)

// Line is a user of a file.
type Line struct {
	Number int // from 1
	Last   int // the last line that it is about, where that is another one
	User   identity.ImportedUser
	Err    error // why the line can't be read; it shows nothing of the line
}

// Reader reads a file, a line at a time. What it holds of the file is bounded.
type Reader struct {
	in     *bufio.Reader
	number int        // of the last line that was read
	again  []textLine // that are read once more before what follows
	names  []string   // of the columns; nil for JSON Lines
	csv    *csv.Reader
	text   bytes.Reader // of the record that csv reads
}

const (
	maxLine       = 1 << 20 // bytes, of a record too
	maxFieldLines = 8       // of a quoted field: a quote that is open for longer was never meant to be
)

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
	header, l, err := r.record()
	if errors.Is(err, io.EOF) {
		err = nil
	}
	if err = cmp.Or(err, l.Err); err == nil {
		err = checkHeader(header)
	}
	if err != nil {
		return nil, err
	}
	r.names = slices.Clone(header)
	return r, nil
}

// Next reads the next user. It fails with io.EOF at the end of the file, or as reading it does. A line that can't be read
// is no failure of Next.
func (r *Reader) Next() (Line, error) {
	if r.names != nil {
		values, l, err := r.record()
		if err == nil && l.Err == nil {
			l.User, l.Err = r.parseCSV(values)
		}
		return l, err
	}
	for {
		t, err := r.line()
		if err != nil {
			return Line{}, err
		}
		l := Line{Number: t.number}
		switch text := bytes.TrimSpace(t.text); {
		case t.long:
			l.Err = errTooLong
		case len(text) == 0:
			continue
		default:
			l.User, l.Err = parseJSON(text)
		}
		return l, nil
	}
}

var (
	errTooLong   = fmt.Errorf("it has more than %d bytes", maxLine)
	errOpenQuote = errors.New("open quote")
)

// textLine is a line of text with its line break. One that is too long has no text.
type textLine struct {
	number int
	text   []byte
	long   bool
}

// line reads a line of text; the rest of one that is too long is passed over. It fails with io.EOF where there is none.
func (r *Reader) line() (textLine, error) {
	if len(r.again) > 0 {
		l := r.again[0]
		r.again = r.again[1:]
		return l, nil
	}
	r.number++
	l := textLine{number: r.number}
	for {
		piece, err := r.in.ReadSlice('\n')
		if l.long = l.long || len(l.text)+len(piece) > maxLine; l.long {
			l.text = nil
		} else {
			l.text = append(l.text, piece...)
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF) && (len(l.text) > 0 || l.long):
			return l, nil
		default:
			return l, err
		}
	}
}

// record reads a record of CSV, and says in which lines it stands and what is wrong with it. After one of several lines that
// is no good, reading goes on with its second line: somebody forgot a quote, and the lines after it are records themselves.
func (r *Reader) record() (values []string, l Line, err error) {
	lines, wrong, err := r.gather()
	if err != nil {
		return nil, Line{}, err
	}
	l = Line{Number: lines[0].number, Err: wrong}
	if wrong == nil {
		values, l.Err = r.parseRecord(lines)
	}
	if last := lines[len(lines)-1].number; l.Err != nil && last > l.Number {
		l.Last = last
		r.again = append(slices.Clone(lines[1:]), r.again...)
	}
	return values, l, nil
}

// gather reads the lines of a record, of which there is one at least: more as long as a quoted field goes on. It fails as
// reading does; wrong is what is wrong with the record.
func (r *Reader) gather() (lines []textLine, wrong, err error) {
	open, bytes, field := false, 0, 0 // field is the line in which the quoted field began that goes on
	for {
		next, err := r.line()
		switch {
		case errors.Is(err, io.EOF) && len(lines) > 0:
			return lines, errOpenQuote, nil
		case err != nil:
			return nil, nil, err
		case len(lines) == 0 && !next.long && isBlank(next.text):
			continue
		}
		lines, bytes = append(lines, next), bytes+len(next.text)
		if next.long || bytes > maxLine {
			return lines, errTooLong, nil
		}
		var began bool
		if open, began = goesOn(next.text, open); !open {
			return lines, nil, nil
		}
		if began {
			field = next.number
		}
		if next.number-field+1 >= maxFieldLines {
			return lines, errOpenQuote, nil
		}
	}
}

func isBlank(text []byte) bool { return len(bytes.TrimRight(text, "\r\n")) == 0 }

// goesOn says whether a quoted field goes on after a line, at whose beginning one is open or not, and whether that field
// began in the line. Where the line is no CSV, nothing goes on.
func goesOn(line []byte, open bool) (after, began bool) {
	for {
		if !open {
			if len(line) == 0 || line[0] != '"' {
				comma := bytes.IndexByte(line, ',')
				if comma < 0 {
					return false, false
				}
				line = line[comma+1:]
				continue
			}
			open, began, line = true, true, line[1:]
		}
		quote := bytes.IndexByte(line, '"')
		if quote < 0 {
			return true, began
		}
		line = line[quote+1:]
		switch {
		case len(line) > 0 && line[0] == '"': // a quote within the field
			line = line[1:]
		case len(line) > 0 && line[0] == ',':
			open, line = false, line[1:]
		default: // the end, or what is no CSV
			return false, false
		}
	}
}

// parseRecord takes the lines of a record apart. The values are good until the next record.
func (r *Reader) parseRecord(lines []textLine) ([]string, error) {
	text := lines[0].text
	if len(lines) > 1 {
		text = nil
		for _, l := range lines {
			text = append(text, l.text...)
		}
	}
	r.text.Reset(text)
	if r.csv == nil {
		r.csv = csv.NewReader(&r.text)
		r.csv.ReuseRecord, r.csv.FieldsPerRecord = true, len(r.names) // 0 for the header, which says how many there are
	}
	values, err := r.csv.Read()
	var malformed *csv.ParseError
	if errors.As(err, &malformed) {
		err = fmt.Errorf("it is no CSV: %w", malformed.Err)
	}
	if err != nil {
		r.csv = nil // it may hold a part of the record
	}
	return values, err
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
		value = strings.Clone(strings.TrimSpace(unquoted(value)))
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
