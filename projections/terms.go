package projections

import (
	"database/sql/driver"
	"hash/fnv"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// terms are what a user is found by, as small hashes, sorted and each once: all that three characters in a row of the
// address or the name are, what either begins with, the roles, the status, whether the address is verified, and the eras
// in which the user was created. One index of them answers every kind of filter, alone and together, on Postgres (a GIN
// index of arrays) and on SQLite (FTS5) alike, and needs no extension that an operator would have to install.
//
// Two terms may have one hash, and a few characters are less than a text: the terms say who may match, and the condition
// of the filter itself says who does.
type terms []int32

// The kinds of terms.
const (
	termGram     = 'g' // gramLength characters in a row, and of which sort the two after them are
	termPrefix   = 'p' // what the address or the name begins with: fewer characters than a gram has
	termRole     = 'r'
	termStatus   = 's'
	termVerified = 'v'
	termEra      = 'e'
)

const (
	gramLength = 3
	termBits   = 24
	// queryGrams bounds the grams of a query that are looked up; a text that has those in it is hardly another.
	queryGrams = 10
)

// Three characters are too few to tell texts apart: all of "ste", "tep" and "phe" are in very many names that have no
// "stephe". So the term of a gram says of each of the two characters after it to which of a few sorts it belongs, or that
// the text ends before it. A text of five characters and more is looked up by such terms alone, and a shorter one by those
// of every sort that may follow, which are not to be too many.
//
// sortBits are the bits of a term for either character. Sort 0 is the end of the text.
var sortBits = [2]int{3, 2}

func term(kind byte, text string) int32 {
	h := fnv.New32a()
	_, _ = h.Write([]byte{kind})
	_, _ = h.Write([]byte(text))
	sum := h.Sum32()
	return int32((sum ^ sum>>termBits) & (1<<termBits - 1))
}

// An era is a span of time, all of them on a level of one length, and eight of one level are one of the next. Their terms
// let an index that has no order answer for a part of the list: who has these grams and was created in one of these eras.
// It passes over what has the grams and is elsewhere, which is where the cost of a common text lies.
const (
	eraLevels    = 8
	shortestEra  = 6 // 2^6 s: about a minute, and 34 million minutes in 64 years
	eraStep      = 3 // 2^3 eras of a level make one of the next, and the longest have four years
	erasInSearch = 12
)

// eraOf is the number of the era of a level that a time is in.
func eraOf(level int, at time.Time) int64 { return at.Unix() >> (shortestEra + eraStep*level) }

func eraTerm(level int, number int64) int32 {
	return term(termEra, strconv.Itoa(level)+" "+strconv.FormatInt(number, 10))
}

// erasBetween are the terms of eras that have all the time from one to another in them, and little more.
func erasBetween(from, to time.Time) terms {
	level := 0
	for level < eraLevels-1 && eraOf(level, to)-eraOf(level, from) >= erasInSearch {
		level++
	}
	var list terms
	for number := eraOf(level, from); number <= eraOf(level, to); number++ {
		list = append(list, eraTerm(level, number))
	}
	return list.sorted()
}

// gram is a part of a text that is in the form of searchKey.
type gram struct {
	text  string // of gramLength characters
	after []rune // the characters that follow, at most as many as a term says something of
}

// term is that of a gram after which the text ends, or goes on further than a term says.
func (g gram) term() int32 { return g.anyTerm(false)[0] }

// anyTerm are the terms that it may have, if more characters may follow.
func (g gram) anyTerm(more bool) terms {
	list := terms{term(termGram, g.text)}
	for i, bits := range sortBits {
		for k, t := range list {
			list[k] = t << bits & (1<<termBits - 1)
			if i < len(g.after) {
				list[k] |= 1 + g.after[i]%(1<<bits-1)
				continue
			}
			for sort := int32(1); more && sort < 1<<bits; sort++ {
				list = append(list, list[k]|sort)
			}
		}
	}
	return list
}

// grams calls yield with every gram of a text that is in the form of searchKey.
func grams(key string, yield func(gram)) {
	runes := []rune(key)
	at := 0 // in the text
	for i := 0; i+gramLength <= len(runes); i++ {
		length := 0
		for _, r := range runes[i : i+gramLength] {
			length += utf8.RuneLen(r)
		}
		after := i + gramLength
		yield(gram{key[at : at+length], runes[after:min(after+len(sortBits), len(runes))]})
		at += utf8.RuneLen(runes[i])
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
	list := make(terms, 0, len(u.Email)+len(u.Name)+eraLevels+8)
	for _, key := range []string{searchKey(u.Email), searchKey(u.Name)} {
		grams(key, func(g gram) { list = append(list, g.term()) })
		prefixes(key, func(p string) { list = append(list, term(termPrefix, p)) })
	}
	for _, role := range u.Roles {
		list = append(list, term(termRole, role))
	}
	list = append(list, term(termStatus, string(u.Status)), term(termVerified, strconv.FormatBool(u.EmailVerified)))
	for level := range eraLevels {
		list = append(list, eraTerm(level, eraOf(level, u.CreatedAt)))
	}
	return list.sorted()
}

// terms are those that every user has whom the filter lets through: all of some, and one of others where there are any.
func (f UserFilter) terms() (all, one terms) {
	switch key := searchKey(f.Query); {
	case key == "":
	case isShort(key):
		all = append(all, term(termPrefix, key))
	default:
		var whole []gram
		grams(key, func(g gram) {
			switch {
			case len(g.after) == len(sortBits):
				whole = append(whole, g)
			case len(whole) == 0 && one == nil: // the first has most after it
				one = g.anyTerm(true).sorted()
			}
		})
		for i := range min(len(whole), queryGrams) {
			all = append(all, whole[i*len(whole)/min(len(whole), queryGrams)].term())
		}
	}
	if f.Role != "" {
		all = append(all, term(termRole, f.Role))
	}
	if f.Status != "" {
		all = append(all, term(termStatus, string(f.Status)))
	}
	if f.EmailVerified != nil {
		all = append(all, term(termVerified, strconv.FormatBool(*f.EmailVerified)))
	}
	return all.sorted(), one
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

// match is a text for FTS5 that asks for those who have all of the terms, or one of them.
func (t terms) match(operator string) string {
	return `("` + strings.ReplaceAll(t.words(), " ", `" `+operator+` "`) + `")`
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
