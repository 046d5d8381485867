package mail

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	htmltemplate "html/template"
	"io/fs"
	"path"
	"slices"
	"strings"
	"text/template"

	"github.com/jba/templatecheck"
	"golang.org/x/net/html"

	"usher.example/words"
)

//go:embed templates
var ours embed.FS

// The parts of a mail, as the files of their templates end.
const (
	textPart = ".txt"
	htmlPart = ".html"
)

// anyKind is what the templates of mails are called that have none of their own.
const anyKind = "letter"

// pair are the templates of a mail.
type pair struct {
	text, html *templatecheck.CheckedTemplate[Letter]
	subject    *templatecheck.CheckedTemplate[Letter] // nil for that of our words
	textFile   source
	htmlFile   source
}

// source is where a template comes from.
type source struct {
	name     string
	lines    int
	replaced bool // it is not ours
}

// findTemplates finds the templates of every mail in every language: for each of its parts the first of these files that a folder
// has, and else ours, letter.txt and letter.html:
//
//	verify.de.html   of mails of that kind, in German
//	verify.html      of mails of that kind
//	letter.de.html   of all mails in German
//	letter.html      of all mails
//
// A text template may define a template "subject", which becomes the subject. Each is checked against Letter as it is read. A file
// that has a name like that of a template and is none is refused: it would be of no use to whoever put it there.
func findTemplates(replaced fs.FS) (map[manner]*pair, error) {
	files, err := readFiles(replaced)
	if err != nil {
		return nil, err
	}
	found, parsed := map[manner]*pair{}, map[string]*pair{}
	parse := func(names []string, part string) (*pair, error) {
		name := names[slices.IndexFunc(names, func(n string) bool { return files[n] != nil })]
		if parsed[name] == nil {
			p, err := files[name].parse(part)
			if err != nil {
				return nil, err
			}
			parsed[name] = p
		}
		return parsed[name], nil
	}
	for _, k := range kinds {
		for _, tag := range words.Languages {
			text, err := parse(candidates(k, tag.String(), textPart), textPart)
			if err != nil {
				return nil, err
			}
			html, err := parse(candidates(k, tag.String(), htmlPart), htmlPart)
			if err != nil {
				return nil, err
			}
			found[manner{k, tag.String()}] = &pair{text: text.text, subject: text.subject, textFile: text.textFile, html: html.html, htmlFile: html.htmlFile}
		}
	}
	return found, nil
}

// candidates are the files of which the first there is has the template of a part.
func candidates(k kind, language, part string) []string {
	return []string{string(k) + "." + language + part, string(k) + part, anyKind + "." + language + part, anyKind + part}
}

// file is a template as it is written.
type file struct {
	source
	text string
}

// readFiles reads all templates there are, by the names of their files.
func readFiles(replaced fs.FS) (map[string]*file, error) {
	known, files := map[string]bool{}, map[string]*file{}
	for _, part := range []string{textPart, htmlPart} {
		text, err := ours.ReadFile("templates/" + anyKind + part)
		if err != nil {
			return nil, err
		}
		files[anyKind+part] = &file{source{name: anyKind + part}, string(text)}
		for _, k := range kinds {
			for _, tag := range words.Languages {
				for _, name := range candidates(k, tag.String(), part) {
					known[name] = true
				}
			}
		}
	}
	if replaced == nil {
		return files, nil
	}
	list, err := fs.ReadDir(replaced, ".")
	if err != nil {
		return nil, err
	}
	for _, entry := range list {
		name := entry.Name()
		if part := path.Ext(name); part != textPart && part != htmlPart {
			continue
		}
		if !known[name] {
			return nil, fmt.Errorf("%s: there is no such template; they are called %s or %s, with or without a language (%s), and end in .txt or .html: verify.de.html",
				name, anyKind, strings.Join(Names(), ", "), strings.Join(languageNames(), ", "))
		}
		text, err := fs.ReadFile(replaced, name)
		if err != nil {
			return nil, err
		}
		files[name] = &file{source{name, bytes.Count(text, []byte("\n")) + 1, true}, string(text)}
	}
	return files, nil
}

func languageNames() []string {
	list := make([]string, len(words.Languages))
	for i, tag := range words.Languages {
		list[i] = tag.String()
	}
	return list
}

// parse reads a template as that of a part, and checks it.
func (f *file) parse(part string) (p *pair, err error) {
	if part == htmlPart {
		p = &pair{htmlFile: f.source}
		t, err := htmltemplate.New(f.name).Parse(f.text)
		if err != nil {
			return nil, f.located(err)
		}
		p.html, err = templatecheck.NewChecked[Letter](t)
		return p, f.located(err)
	}
	p = &pair{textFile: f.source}
	t, err := template.New(f.name).Parse(f.text)
	if err != nil {
		return nil, f.located(err)
	}
	if p.text, err = templatecheck.NewChecked[Letter](t); err != nil {
		return nil, f.located(err)
	}
	if subject := t.Lookup("subject"); subject != nil {
		p.subject, err = templatecheck.NewChecked[Letter](subject)
	}
	return p, f.located(err)
}

// located is an error of a template as it is told: it begins with the file and the line, the last one where it does not say which.
func (s source) located(err error) error {
	if err == nil {
		return nil
	}
	text := err.Error()
	for _, prefix := range []string{"template: ", "html/template:", s.name + ":"} {
		text = strings.TrimPrefix(text, prefix)
	}
	if text == "" || text[0] < '0' || text[0] > '9' {
		text = fmt.Sprintf("%d:%s", s.lines, text)
	}
	return errors.New(s.name + ":" + text)
}

// templateError is why a template could not be filled.
type templateError struct {
	error
	of source
}

func (e *templateError) Unwrap() error { return e.error }

// fill writes what comes of a template. It fails with a *templateError.
func (s source) fill(t *templatecheck.CheckedTemplate[Letter], into *bytes.Buffer, letter Letter) error {
	if err := t.Execute(into, letter); err != nil {
		return &templateError{fmt.Errorf("write a mail: %w", err), s}
	}
	return nil
}

// maxHTML bounds an HTML part, in bytes: Gmail cuts off what is longer.
const maxHTML = 100_000

// try writes every mail in every language, about somebody who does not exist, and looks at what comes of templates that are not ours.
func (l *Letters) try() error {
	for _, k := range kinds {
		for _, w := range l.words.All() {
			for _, letter := range l.examples(k, w) {
				t := l.templates[manner{k, w.Language}]
				m, err := l.write(k, exampleUser, letter)
				var wrong *templateError
				if errors.As(err, &wrong) {
					return wrong.of.located(errors.Unwrap(wrong.error))
				}
				if err != nil {
					return err
				}
				if err := t.textFile.accept(lacksText(m)); err != nil {
					return err
				}
				if err := t.htmlFile.accept(lacksHTML(m)); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// accept is the error of a template that writes something that can't be sent; nil for ours, and where there is nothing wrong.
func (s source) accept(wrong string) error {
	if wrong == "" || !s.replaced {
		return nil
	}
	return fmt.Errorf("%s:%d: %s", s.name, s.lines, wrong)
}

const lacksLink = "it ends without {{.Link}}, and whoever gets the mail needs that"

// lacksText is what is wrong with a text part, and its subject.
func lacksText(m Message) string {
	switch {
	case m.Subject == "":
		return "the subject is empty"
	case m.Link != "" && !slices.Contains(strings.Fields(m.Text), m.Link):
		return lacksLink + ", with white space around it"
	}
	return ""
}

// lacksHTML is what is wrong with an HTML part.
func lacksHTML(m Message) string {
	switch {
	case len(m.HTML) > maxHTML:
		return fmt.Sprintf("the mail has %d bytes, and some mail programs cut off what is over %d", len(m.HTML), maxHTML)
	case m.Link != "" && !hasLink(m.HTML, m.Link):
		return lacksLink + `, as in <a href="{{.Link}}">`
	}
	return ""
}

// hasLink says whether HTML has a link to somewhere.
func hasLink(text, link string) bool {
	for tokens := html.NewTokenizer(strings.NewReader(text)); ; {
		switch tokens.Next() {
		case html.ErrorToken: // the end
			return false
		case html.StartTagToken:
			token := tokens.Token()
			if token.Data == "a" && slices.Contains(token.Attr, html.Attribute{Key: "href", Val: link}) {
				return true
			}
		}
	}
}
