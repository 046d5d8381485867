package userfile

import (
	"bufio"
	"encoding/csv"
	"encoding/json"
	"io"
	"strconv"
	"strings"
	"time"

	"usher.example/identity"
)

// Writer writes a file. Flush ends it.
type Writer struct {
	out  *bufio.Writer
	json *json.Encoder
	csv  *csv.Writer // nil for JSON Lines
}

// NewWriter begins a file.
func NewWriter(file io.Writer, format Format) (*Writer, error) {
	w := &Writer{out: bufio.NewWriterSize(file, 64<<10)}
	if format == CSV {
		w.csv = csv.NewWriter(w.out)
		return w, w.csv.Write(fields)
	}
	w.json = json.NewEncoder(w.out)
	w.json.SetEscapeHTML(false)
	return w, nil
}

// Write writes a user.
func (w *Writer) Write(u identity.ImportedUser) error {
	c := record{Email: u.Email, Name: u.Name, PasswordHash: string(u.Hash), EmailVerified: u.EmailVerified, Status: u.Status, Roles: u.Roles,
		Attributes: u.Attributes}
	if string(u.Attributes) == "{}" {
		c.Attributes = nil
	}
	if !u.CreatedAt.IsZero() {
		c.CreatedAt = u.CreatedAt.UTC().Format(time.RFC3339Nano)
	}
	if w.csv == nil {
		return w.json.Encode(c)
	}
	cells := []string{c.Email, c.Name, c.PasswordHash, strconv.FormatBool(c.EmailVerified), string(c.Status),
		strings.Join(c.Roles, " "), string(c.Attributes), c.CreatedAt}
	for i, cell := range cells {
		if isFormula(cell) {
			cells[i] = "'" + cell
		}
	}
	return w.csv.Write(cells)
}

// isFormula says whether a spreadsheet would take a cell for a formula, and so run what some user chose to be called; also
// behind quotes, as those are how such a cell is written.
func isFormula(cell string) bool {
	return strings.IndexAny(strings.TrimLeft(cell, "'"), "=+-@\t\r＝＋－＠") == 0
}

// unquoted is a cell as it was before it was written.
func unquoted(cell string) string {
	if rest, quoted := strings.CutPrefix(cell, "'"); quoted && isFormula(rest) {
		return rest
	}
	return cell
}

// Flush writes what is still held.
func (w *Writer) Flush() error {
	if w.csv != nil {
		w.csv.Flush()
		if err := w.csv.Error(); err != nil {
			return err
		}
	}
	return w.out.Flush()
}
