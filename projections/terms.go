package projections

import (
	"database/sql/driver"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"usher/eventstore"
)

// terms are what a user is found by, as small hashes, sorted and each once: all that three characters in a row of the
// address or the name are, what either begins with, the roles, the status, and whether the address is verified. One index
// of them answers every kind of filter, alone and together, on Postgres (a GIN index of arrays) and on SQLite (FTS5)
// alike, and needs no extension that an operator would have to install.
//
// Two terms may have one hash, and three characters are less than a text: the terms say who may match, and the condition
// of the filter itself says who does.
type terms []int32

// The kinds of terms.
const (
	termGram     = 'g' // gramLength characters in a row
	termPrefix   = 'p' // what the address or the name begins with: fewer characters than a gram has
	termRole     = 'r'
	termStatus   = 's'
	termVerified = 'v'
)

const (
	gramLength = 3
	termBits   = 24
	// queryGrams bounds the grams of a query that are looked up; a text that has those in it is hardly another.
	queryGrams = 24
)

// term is FNV-1a of the kind and the text, in fewer bits. A user has some forty, so it is written out here.
func term(kind byte, text string) int32 {
	const start, prime = 2166136261, 16777619
	sum := (start ^ uint32(kind)) * prime
	for i := range len(text) {
		sum = (sum ^ uint32(text[i])) * prime
	}
	return int32((sum ^ sum>>termBits) & (1<<termBits - 1))
}

// grams calls yield with every gram of a text that is in the form of searchKey.
func grams(key string, yield func(gram string)) {
	var starts [gramLength]int // of the last characters
	n := 0
	for at := range key {
		if n >= gramLength {
			yield(key[starts[n%gramLength]:at])
		}
		starts[n%gramLength] = at
		n++
	}
	if n >= gramLength {
		yield(key[starts[n%gramLength]:])
	}
}

// prefixes calls yield with what a text begins with, of fewer characters than a gram.
func prefixes(key string, yield func(prefix string)) {
	n := 0
	for at := range key {
		if n > 0 {
			yield(key[:at])
		}
		if n++; n == gramLength {
			return
		}
	}
	if n > 0 {
		yield(key)
	}
}

// isShort says whether a key has fewer characters than a gram: it is looked for where a text begins, and nowhere else.
func isShort(key string) bool { return utf8.RuneCountInString(key) < gramLength }

// termsOf are the terms of a user.
func termsOf(u *userRow) terms {
	list := make(terms, 0, len(u.Email)+len(u.Name)+8)
	for _, key := range []string{searchKey(u.Email), searchKey(u.Name)} {
		grams(key, func(g string) { list = append(list, term(termGram, g)) })
		prefixes(key, func(p string) { list = append(list, term(termPrefix, p)) })
	}
	for _, role := range u.Roles {
		list = append(list, term(termRole, role))
	}
	list = append(list, term(termStatus, string(u.Status)), term(termVerified, strconv.FormatBool(u.EmailVerified)))
	return list.sorted()
}

// terms are those that every user has whom the filter lets through.
func (f UserFilter) terms() terms {
	var list terms
	switch key := searchKey(f.Query); {
	case key == "":
	case isShort(key):
		list = append(list, term(termPrefix, key))
	default:
		grams(key, func(g string) {
			if len(list) < queryGrams {
				list = append(list, term(termGram, g))
			}
		})
	}
	if f.Role != "" {
		list = append(list, term(termRole, f.Role))
	}
	if f.Status != "" {
		list = append(list, term(termStatus, string(f.Status)))
	}
	if f.EmailVerified != nil {
		list = append(list, term(termVerified, strconv.FormatBool(*f.EmailVerified)))
	}
	return list.sorted()
}

func (t terms) sorted() terms {
	slices.Sort(t)
	return slices.Compact(t)
}

// array is an array of Postgres, as text.
func (t terms) array() string {
	text := make([]byte, 0, 9*len(t)+2)
	text = append(text, '{')
	for i, n := range t {
		if i > 0 {
			text = append(text, ',')
		}
		text = strconv.AppendInt(text, int64(n), 10)
	}
	return string(append(text, '}'))
}

const termBase = 36

// words are a text for FTS5, a word each.
func (t terms) words() string {
	text := make([]byte, 0, 6*len(t))
	for i, n := range t {
		if i > 0 {
			text = append(text, ' ')
		}
		text = strconv.AppendInt(text, int64(n), termBase)
	}
	return string(text)
}

// Value implements driver.Valuer: it is the form that SQLite keeps.
func (t terms) Value() (driver.Value, error) { return t.words(), nil }

// all is the argument that asks for those who have all the terms.
func (t terms) all(d eventstore.Dialect) any {
	if d != eventstore.SQLite {
		return t.array()
	}
	return `"` + strings.ReplaceAll(t.words(), " ", `" AND "`) + `"`
}

// termColumn makes the column of terms. To a statement for many rows it goes as texts, because arrays of arrays are not
// taken apart into arrays.
func termColumn[R any](name string, value func(row *R) terms) column[R] {
	return column[R]{
		name: name, kind: "int[]",
		value: func(row *R) any { return value(row) },
		list: func(rows []R) any {
			texts := make([]string, len(rows))
			for i := range rows {
				texts[i] = value(&rows[i]).array()
			}
			return texts
		},
	}
}
