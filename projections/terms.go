package projections

import (
	"database/sql/driver"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// terms are what a user is found by, as small hashes: all that three characters in a row of the address or the name are
// (see gram), what either begins with, the roles, the status, whether the address is verified, and the eras
// in which the user was created. One index of them answers every kind of filter, alone and together, on Postgres (a GIN
// index of arrays) and on SQLite (FTS5) alike, and needs no extension that an operator would have to install.
//
// Two terms may have one hash, and a few characters are less than a text: the terms say who may match, and the condition
// of the filter itself says who does.
type terms []int32

// The kinds of terms.
const (
	termPrefix   = 'p' // what the address or the name begins with: fewer characters than a gram has
	termRole     = 'r'
	termStatus   = 's'
	termVerified = 'v'
)

const (
	gramLength = 3
	termBits   = 27
	// queryGrams bounds the grams of a query that are looked up; a text that has those in it is hardly another.
	queryGrams = 10
)

// Three characters are too few to tell texts apart: all of "ste", "tep" and "phe" are in very many names that have no
// "stephe". So the term of a gram says of each of the two characters after it to which of a few sorts it belongs, or that
// the text ends before it. A query is looked up by all of its grams that two characters follow, and by any term of the
// one after them; in one of three characters that is any sort of both, so sorts are not to be too many.
//
// sortBits are the bits of a term for either character. Sort 0 is the end of the text.
var sortBits = [2]int{6, 2}

// often are the characters of addresses and names, those first that are in most of them: they are to be of different sorts.
const often = "aenirolsthdmcu.bgkyjpvw1230fzxq456789-_ @'"

// ranks are the places of ASCII characters among them.
var ranks = func() (ranks [utf8.RuneSelf]int32) {
	for r := range ranks {
		if ranks[r] = int32(strings.IndexByte(often, byte(r))); ranks[r] < 0 {
			ranks[r] = int32(r)
		}
	}
	return ranks
}()

// sortOf is the sort, from 1, of a character where there are bits for it.
func sortOf(r rune, bits int) int32 {
	if r < utf8.RuneSelf {
		r = ranks[r]
	}
	return 1 + r%(1<<bits-1)
}

// term is that of a kind and a text.
func term(kind byte, text string) int32 {
	h := uint64(kind)
	for i := range len(text) {
		h = (h ^ uint64(text[i])) * hashFactor
	}
	return int32(h * hashFactor >> (64 - termBits))
}

// hashFactor is 2^64 divided by the golden ratio: the highest bits of a product with it are a good hash (Knuth, The Art of
// Computer Programming 3, 6.4).
const hashFactor = 0x9e3779b97f4a7c15

// An era is a span of time, all of them on a level of one length, and eight of one level are one of the next. Their terms
// let an index that has no order answer for a part of the list: who has these grams and was created in one of these eras.
// It passes over what has the grams and is elsewhere, which is where the cost of a common text lies.
const (
	eraLevels    = 8
	shortestEra  = 6 // 2^6 s: about a minute
	eraStep      = 3 // 2^3 eras of a level make one of the next, and the longest have four years
	erasInSearch = 12
)

// eraOf is the number of the era of a level that a time is in.
func eraOf(level int, at time.Time) int64 { return at.Unix() >> (shortestEra + eraStep*level) }

func eraTerm(level int, number int64) int32 {
	return int32((uint64(number)<<8 | uint64(level)) * hashFactor >> (64 - termBits))
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
	text  [gramLength]rune
	after []rune // the characters that follow, at most as many as a term says something of
}

const runeBits = 21

// term is that of a gram after which the text ends, or goes on further than a term says.
func (g gram) term() int32 {
	h := uint64(0)
	for _, r := range g.text {
		h = h<<runeBits | uint64(r)
	}
	bits := 0
	for _, b := range sortBits {
		bits += b
	}
	t := int32(h * hashFactor >> (64 - termBits + bits))
	for i, b := range sortBits {
		t <<= b
		if i < len(g.after) {
			t |= sortOf(g.after[i], b)
		}
	}
	return t
}

// anyTerm are the terms that it may have if more characters follow, or none.
func (g gram) anyTerm() terms {
	list := terms{g.term()}
	shift := 0
	for i, b := range slices.Backward(sortBits[:]) {
		if i >= len(g.after) {
			for _, t := range list {
				for sort := int32(1); sort < 1<<b; sort++ {
					list = append(list, t|sort<<shift)
				}
			}
		}
		shift += b
	}
	return list.sorted()
}

// grams calls yield with every gram of a text that is in the form of searchKey.
func grams(key string, yield func(gram)) {
	runes := make([]rune, 0, 64)
	for _, r := range key {
		runes = append(runes, r)
	}
	for i := 0; i+gramLength <= len(runes); i++ {
		after := i + gramLength
		yield(gram{[gramLength]rune(runes[i:after]), runes[after:min(after+len(sortBits), len(runes))]})
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
	return list.sorted() // which the index of Postgres would do otherwise, at more cost
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
			case one == nil: // the first that has not, and so the one that most is known of
				one = g.anyTerm()
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

// termColumn makes the column of terms.
func termColumn[R any](name string, value func(row *R) terms) column[R] {
	return column[R]{
		name: name, kind: "int[]",
		value: func(row *R) any { return value(row) },
		list: func(rows []R) any {
			var l termLists
			for i := range rows {
				from := int64(len(l.all))
				l.all = append(l.all, value(&rows[i])...)
				l.parts = append(l.parts, from<<32|int64(len(l.all)))
			}
			return l
		},
	}
}

// termLists are the terms of many rows in one array, because arrays of arrays are not taken apart into arrays, and the part
// of it that each row has: how many come before it in the upper half of the number, and with it in the lower.
type termLists struct {
	all   []int32
	parts []int64
}
