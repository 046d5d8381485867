package password

import (
	_ "embed"
	"strings"
	"unicode"
	"unicode/utf8"
)

// commonList holds 38,460 of the most used passwords, 15,644 of them of eight
// characters or more: folded, sorted by their bytes, each with a line break
// after it. It is searched where it lies, in the program's read-only data, so
// it costs nothing at start and no heap.
//
// It joins two lists, so that neither's gaps are ours: the first 30,000 of the
// npm package @zxcvbn-ts/language-common 4.1.3 (MIT; from the ten million
// passwords that Mark Burnett published) and the 19,727 of Django 3.2.25 as
// Debian packages it (BSD-3-Clause; by Royce Williams, from the corpus of
// Have I Been Pwned). Their licences are in common-licences.txt. It is made by
//
//	{ jq -r '.[:30000][]' package/src/passwords.json; zcat django/contrib/auth/common-passwords.txt.gz; } |
//		awk 'length >= 4' | LC_ALL=C sort -u > common.txt
//
//go:embed common.txt
var commonList string

// listed reports whether a folded text is on the list.
func listed(text string) bool {
	low, high := 0, len(commonList) // the line lies in between, if there is one
	for low < high {
		middle := low + (high-low)/2
		begin := low + strings.LastIndexByte(commonList[low:middle], '\n') + 1
		end := middle + strings.IndexByte(commonList[middle:], '\n')
		switch line := commonList[begin:end]; {
		case line < text:
			low = end + 1
		case line > text:
			high = begin
		default:
			return true
		}
	}
	return false
}

// What is added to a listed word to make it pass: "dragon2024!", "1password".
const (
	maxAdded       = 5 // characters, none of them letters; more would be worth something
	minWord        = 6 // characters that the word has at least, else "2938" + "4756" would count,
	minWordLetters = 4 // unless it is made of letters
)

// isCommon reports whether a folded text is on the list: as it is, as one
// listed word over and over, or as a listed word with a few digits or signs
// before or after it.
func isCommon(text string) bool {
	if listed(text) {
		return true
	}
	text = repeated(text)
	for head := range maxAdded + 1 {
		word := text
		for range maxAdded + 1 - head {
			if longEnough(word) && listed(word) {
				return true
			}
			last, size := utf8.DecodeLastRuneInString(word)
			if unicode.IsLetter(last) {
				break
			}
			word = word[:len(word)-size]
		}
		first, size := utf8.DecodeRuneInString(text)
		if unicode.IsLetter(first) {
			break
		}
		text = text[size:]
	}
	return false
}

func longEnough(word string) bool {
	return len(word) >= minWord || len(word) >= minWordLetters && strings.IndexFunc(word, notLetter) < 0
}

func notLetter(r rune) bool { return !unicode.IsLetter(r) }
