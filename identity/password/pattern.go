package password

import (
	"strings"
	"unicode/utf8"
)

// repeated is the shortest text that makes up the given one, once or over and over.
func repeated(text string) string {
	if text == "" {
		return ""
	}
	// A text that repeats is found inside its own double before the end.
	return text[:strings.Index((text + text)[1:], text)+1]
}

// maxPieces is what a password that follows a pattern consists of at most:
// see pieces.
const maxPieces = 3

// isPattern reports whether a folded text repeats or counts: aaaaaaaa,
// 12345678, abcd4321, 121212, aaabbbccc.
func isPattern(text string) bool {
	return pieces([]rune(repeated(text))) <= min(maxPieces, utf8.RuneCountInString(text)-1)
}

// pieces counts the runs of a text. A run is three or more characters that are
// equal, or follow each other in Unicode's order, up or down: letters of an
// alphabet and digits. Any other character is a run of its own.
func pieces(text []rune) int {
	n := 0
	for i := 0; i < len(text); n++ {
		i += run(text[i:])
	}
	return n
}

// run is the length of the run that a text begins with.
func run(text []rune) int {
	if len(text) < 3 {
		return 1
	}
	step := text[1] - text[0]
	if step < -1 || step > 1 || text[2]-text[1] != step {
		return 1
	}
	n := 3
	for n < len(text) && text[n]-text[n-1] == step {
		n++
	}
	return n
}
