// Package userfile is users in files, as JSON Lines or CSV: reading and writing them, and bringing them in.
//
// Both forms have the same fields, by name and in any order: email, name, password_hash, email_verified, status, roles,
// attributes, created_at. All but email may be missing. In CSV the first line has the names, roles stand in one field
// separated by spaces, commas or semicolons, and attributes are a JSON object in one field. A field that a spreadsheet would
// take for a formula is written, and read, with a ' before it.
//
// What Write wrote Import brings in as it was, but for what is no more than a number here: ids, versions, positions; and for
// second factors, which don't leave their database. Password hashes are written only if they are asked for, and nothing of a
// line but its number and why it was refused is ever told.
package userfile

import (
	"fmt"
	"slices"
	"strings"
)

// Format is the form of a file.
type Format string

// The formats.
const (
	JSONLines Format = "jsonl"
	CSV       Format = "csv"
)

// ParseFormat reads the name of a format.
func ParseFormat(text string) (Format, error) {
	if f := Format(text); f == JSONLines || f == CSV {
		return f, nil
	}
	return "", fmt.Errorf("the format is %s or %s", JSONLines, CSV)
}

// The fields of a user.
const (
	fieldEmail      = "email"
	fieldName       = "name"
	fieldHash       = "password_hash"
	fieldVerified   = "email_verified"
	fieldStatus     = "status"
	fieldRoles      = "roles"
	fieldAttributes = "attributes"
	fieldCreated    = "created_at"
)

var fields = []string{fieldEmail, fieldName, fieldHash, fieldVerified, fieldStatus, fieldRoles, fieldAttributes, fieldCreated}

func checkHeader(names []string) error {
	for i, name := range names {
		if !slices.Contains(fields, name) {
			return fmt.Errorf("there is no field %q; there are %s", name, strings.Join(fields, ", "))
		}
		if slices.Contains(names[:i], name) {
			return fmt.Errorf("the field %q is there twice", name)
		}
	}
	if !slices.Contains(names, fieldEmail) {
		return fmt.Errorf("the first line of a CSV file has the names of its fields, and %q among them", fieldEmail)
	}
	return nil
}
