package password

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Subject is what is known about the person whose password is checked: the
// first things that somebody who knows them tries.
type Subject struct {
	Email string
	Name  string
}

// ownWord is the name of this software, which is tried too.
const ownWord = "usher"

// minFact is how many characters a word has at least to count: shorter ones
// are found in passwords by chance.
const minFact = 4

// fact is a word that is no secret, folded.
type fact struct {
	word   string
	reason Reason // for refusing a password that is made of it
}

// facts lists the words that a password of the subject must not be made of. Of
// an email address these are the address, what is before the @, and each label
// of the domain.
func (s Subject) facts() []fact {
	var all []fact
	add := func(reason Reason, texts ...string) {
		for _, text := range texts {
			for _, word := range words(text) {
				all = append(all, fact{word, reason})
			}
		}
	}
	add(ContainsEmail, s.Email)
	if at := strings.LastIndexByte(s.Email, '@'); at >= 0 {
		add(ContainsEmail, s.Email[:at])
		add(ContainsEmail, strings.Split(s.Email[at+1:], ".")...)
	}
	add(ContainsName, s.Name)
	return all
}

// words are the folded spellings of a text that somebody would type: the whole
// of it with and without what is between its words, each word, and the letters
// of each word that has digits too.
func words(text string) []string {
	text = fold(text)
	parts := strings.FieldsFunc(text, func(r rune) bool { return !unicode.In(r, unicode.L, unicode.M, unicode.N) })
	letters := strings.FieldsFunc(text, func(r rune) bool { return !unicode.In(r, unicode.L, unicode.M) })
	all := append(append([]string{text, strings.Join(parts, "")}, parts...), letters...)
	all = slices.DeleteFunc(all, func(word string) bool { return utf8.RuneCountInString(word) < minFact })
	slices.Sort(all)
	return slices.Compact(all)
}

// without takes every fact out of a folded text and says for which reasons.
// Facts may overlap: a character that is part of any of them goes.
func without(text string, facts []fact) (rest string, reasons []Reason) {
	known := make([]bool, len(text))
	for _, f := range facts {
		for from := 0; ; {
			at := strings.Index(text[from:], f.word)
			if at < 0 {
				break
			}
			from += at
			for i := range len(f.word) {
				known[from+i] = true
			}
			_, size := utf8.DecodeRuneInString(f.word)
			from += size
			if !slices.Contains(reasons, f.reason) {
				reasons = append(reasons, f.reason)
			}
		}
	}
	var kept strings.Builder
	for i := range len(text) {
		if !known[i] {
			kept.WriteByte(text[i])
		}
	}
	return kept.String(), reasons
}
