package main

import (
	"io"
	"os"
	"sync"
	"unicode"
	"unicode/utf8"

	"golang.org/x/term"
)

// visible passes text on without anything that a terminal would obey, or that would have it show the text in another order
// than it is read: control characters but for line breaks and tabs, those of C1 among them, and the marks that turn the
// direction of writing. Names and addresses come from anybody. Such a character is shown as \u and four digits, which is the
// same text to whoever reads JSON, so all that a command prints goes through here. It is safe for concurrent use.
type visible struct {
	w io.Writer

	mu   sync.Mutex
	rest []byte // the beginning of a character that is not whole yet
}

// Write implements io.Writer.
func (v *visible) Write(p []byte) (int, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	text := append(v.rest, p...)
	whole := len(text)
	for back := 1; back < utf8.UTFMax && back <= len(text); back++ {
		if start := len(text) - back; utf8.RuneStart(text[start]) {
			if !utf8.FullRune(text[start:]) {
				whole = start
			}
			break
		}
	}
	v.rest = append([]byte(nil), text[whole:]...)
	if _, err := v.w.Write(escape(text[:whole], "\n\t")); err != nil {
		return 0, err
	}
	return len(p), nil
}

// escape is a text with the characters escaped that a terminal must not get, but for those to keep.
func escape(text []byte, keep string) []byte {
	const hex = "0123456789abcdef"
	var out []byte // nil as long as nothing is escaped
	for at := 0; at < len(text); {
		r, size := utf8.DecodeRune(text[at:])
		switch whole := text[at : at+size]; {
		case r == utf8.RuneError && size == 1: // a byte that is no character may be one of C1 to a terminal
			out = append(begun(out, text[:at]), "\\x"...)
			out = append(out, hex[text[at]>>4], hex[text[at]&15])
		case mustHide(r) && !(r < utf8.RuneSelf && containsByte(keep, byte(r))):
			out = append(begun(out, text[:at]), '\\', 'u', hex[r>>12&15], hex[r>>8&15], hex[r>>4&15], hex[r&15])
		case out != nil:
			out = append(out, whole...)
		}
		at += size
	}
	if out == nil {
		return text
	}
	return out
}

// mustHide says whether a character does something other than to be seen. All such are of the first plane.
func mustHide(r rune) bool {
	return unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == '\u2028' || r == '\u2029'
}

// begun is what was escaped so far, or what came before the first thing that is.
func begun(out, before []byte) []byte {
	if out == nil {
		return append(make([]byte, 0, len(before)+32), before...)
	}
	return out
}

func containsByte(s string, b byte) bool {
	for i := range len(s) {
		if s[i] == b {
			return true
		}
	}
	return false
}

// oneLine is a text as a cell of a table shows it.
func oneLine(text string) string { return string(escape([]byte(text), "")) }

// terminal is the terminal that a command prints to, nil where it prints to anything else.
func terminal(w io.Writer) *os.File {
	if v, is := w.(*visible); is {
		w = v.w
	}
	if f, is := w.(*os.File); is && term.IsTerminal(int(f.Fd())) {
		return f
	}
	return nil
}

// asItIs is where an export goes that has to be byte for byte what it is: only a terminal is shown nothing that it would obey.
func asItIs(w io.Writer) io.Writer {
	if v, is := w.(*visible); is && terminal(v) == nil {
		return v.w
	}
	return w
}
