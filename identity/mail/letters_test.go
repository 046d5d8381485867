package mail

import (
	"bytes"
	"fmt"
	"image"
	"image/png"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	netmail "net/mail"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"
	"unicode"

	"github.com/google/uuid"
	"golang.org/x/net/html"

	"usher.example/brand"
	"usher.example/eventstore"
	"usher.example/identity"
	"usher.example/words"
	"usher.example/words/wordstest"
)

func TestWords(t *testing.T) {
	t.Parallel()
	c, err := loadWords()
	if err != nil {
		t.Fatal(err)
	}
	wordstest.Complete(t, c)
	for _, k := range kinds {
		if c.All()[0].of(k).Subject == "" {
			t.Errorf("a mail of the kind %s says nothing", k)
		}
	}
}

// part is one of a message's.
type part struct {
	media, text string
	id          string
}

// partsOf reads a message as mail programs do: the header, and the parts that are no multipart themselves, in their order.
func partsOf(t *testing.T, raw []byte) (netmail.Header, []part) {
	t.Helper()
	m, err := netmail.ReadMessage(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	var list []part
	var read func(contentType, encoding, id string, body io.Reader)
	read = func(contentType, encoding, id string, body io.Reader) {
		media, params, err := mime.ParseMediaType(contentType)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(media, "multipart/") {
			list = append(list, part{media: media})
			for parts := multipart.NewReader(body, params["boundary"]); ; {
				p, err := parts.NextRawPart()
				if err == io.EOF {
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				read(p.Header.Get("Content-Type"), p.Header.Get("Content-Transfer-Encoding"), p.Header.Get("Content-ID"), p)
			}
		}
		if encoding == "quoted-printable" {
			body = quotedprintable.NewReader(body)
		}
		text, err := io.ReadAll(body)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, part{media, strings.ReplaceAll(string(text), "\r\n", "\n"), id})
	}
	read(m.Header.Get("Content-Type"), m.Header.Get("Content-Transfer-Encoding"), "", m.Body)
	return m.Header, list
}

func written(t *testing.T, m Message) (netmail.Header, []part) {
	t.Helper()
	var raw bytes.Buffer
	if err := m.Write(&raw, netmail.Address{Name: "Usher ✓", Address: "no-reply@usher.test"}); err != nil {
		t.Fatal(err)
	}
	return partsOf(t, raw.Bytes())
}

// TestEveryMail looks at every mail in every language, as it is sent.
func TestEveryMail(t *testing.T) {
	t.Parallel()
	l := lettersOf(t, LettersConfig{Brand: brand.Brand{Name: "Müller & <Söhne>", Colour: "#ffd700"}})
	subjects := map[string]string{}
	for _, name := range Names() {
		for _, tag := range words.Languages {
			language := tag.String()
			t.Run(name+"."+language, func(t *testing.T) {
				m, err := l.Example(name, language)
				if err != nil {
					t.Fatal(err)
				}
				header, parts := written(t, m)
				if len(parts) != 3 || parts[0].media != "multipart/alternative" || parts[1].media != "text/plain" || parts[2].media != "text/html" {
					t.Fatalf("the parts are %+v", parts)
				}
				text, page := parts[1].text, parts[2].text
				subject, err := new(mime.WordDecoder).DecodeHeader(header.Get("Subject"))
				if err != nil || subject == "" || strings.ContainsFunc(subject, func(r rune) bool { return !unicode.IsPrint(r) }) {
					t.Errorf("the subject is %q, %v", subject, err)
				}
				if other := subjects[language+subject]; other != "" {
					t.Errorf("the subject is that of %s: %q", other, subject)
				}
				subjects[language+subject] = name
				for _, h := range []struct{ name, want string }{
					{"Auto-Submitted", "auto-generated"}, {"Content-Language", language}, {"To", "<ada@example.org>"}, {"User-Agent", ""}, {"X-Mailer", ""},
				} {
					if got := header.Get(h.name); got != h.want {
						t.Errorf("%s: %q, want %q", h.name, got, h.want)
					}
				}
				if len(page) > 102_000/4 {
					t.Errorf("the HTML has %d bytes", len(page))
				}
				var direction = map[bool]string{true: "rtl", false: "ltr"}[language == "ar"]
				if want := fmt.Sprintf(`<html lang=%q dir=%q>`, language, direction); !strings.Contains(page, want) {
					t.Errorf("the HTML lacks %s", want)
				}
				if !strings.Contains(text, "Müller & <Söhne>") || !strings.Contains(page, "Müller &amp; &lt;Söhne&gt;") {
					t.Error("the brand's name is not as it should be")
				}
				wantSafe(t, page)
				links := linksOf(t, page)
				if want := kind(name).carriesCode(); want != (m.Link != "") || want != (len(links) > 0) || want != strings.Contains(text, "/account/") || !strings.Contains(text, m.Link+"\n") {
					t.Errorf("the link is %q, in HTML %v:\n%s", m.Link, links, text)
				}
				for _, link := range links {
					if link != m.Link || !strings.HasPrefix(link, "https://usher.test/account/"+name+"?code=") {
						t.Errorf("it links to %s", link)
					}
				}
				if strings.Count(text, "://")+strings.Count(text, "www.") != len(links) {
					t.Errorf("the text has more that mail programs make links of:\n%s", text)
				}
			})
		}
	}
}

// wantSafe expects HTML that fetches nothing, runs nothing, needs no wide screen, and is what it says.
func wantSafe(t *testing.T, page string) {
	t.Helper()
	tokens := html.NewTokenizer(strings.NewReader(page))
	for {
		switch tokens.Next() {
		case html.ErrorToken:
			if tokens.Err() != io.EOF {
				t.Error(tokens.Err())
			}
			for _, wanted := range []string{"prefers-color-scheme: dark", `name="color-scheme" content="light dark"`, "max-width:30em", "overflow-wrap:anywhere"} {
				if !strings.Contains(page, wanted) {
					t.Errorf("the HTML lacks %q", wanted)
				}
			}
			for _, refused := range []string{"ZgotmplZ", "url(", "@import", "@font-face", "width=\"", "min-width", ";width:", "\"width:"} {
				if strings.Contains(page, refused) {
					t.Errorf("the HTML has %q", refused)
				}
			}
			return
		case html.StartTagToken, html.SelfClosingTagToken:
			token := tokens.Token()
			if slices.Contains([]string{"script", "link", "table", "iframe", "form", "object", "embed", "base", "video", "audio"}, token.Data) {
				t.Errorf("the HTML has <%s>", token.Data)
			}
			for _, a := range token.Attr {
				if a.Key == "src" && !strings.HasPrefix(a.Val, "cid:") || a.Key == "srcset" || a.Key == "background" || strings.HasPrefix(a.Key, "on") {
					t.Errorf("the HTML has %s=%q", a.Key, a.Val)
				}
			}
		}
	}
}

func linksOf(t *testing.T, page string) (list []string) {
	t.Helper()
	root, err := html.Parse(strings.NewReader(page))
	if err != nil {
		t.Fatal(err)
	}
	for n := range root.Descendants() {
		for _, a := range n.Attr {
			if a.Key == "href" {
				list = append(list, a.Val)
			}
		}
	}
	return list
}

// The language is the one that the user chose, and else English.
func TestLanguageOfMails(t *testing.T) {
	t.Parallel()
	l := lettersOf(t, LettersConfig{})
	for attributes, want := range map[string]string{
		`{}`: "en", `{"locale":"de"}`: "de", `{"locale":"de-AT"}`: "de", `{"locale":"ar_EG"}`: "ar", `{"locale":"nl"}`: "en", `{"locale":"ja","plan":"x"}`: "ja",
		`{"locale":null}`: "en", `{"locale":["de"]}`: "en", `{"locale":{"de":1}}`: "en", `{"locale":"` + strings.Repeat("de-", 2000) + `"}`: "en", ``: "en", `{"locale":"fr\r\nBcc: x"}`: "en",
	} {
		letter := l.about(kindReset, eventstore.Event{}, &identity.User{Attributes: []byte(attributes)})
		if letter.Language != want {
			t.Errorf("attributes %.60s: %s, want %s", attributes, letter.Language, want)
		}
	}
}

// What a user or a client typed is never HTML, nor a link, and a name goes to nobody but whoever it is the name of.
func TestWhatUsersTyped(t *testing.T) {
	t.Parallel()
	evil := "<b>Ada</b> \"'& https://evil.test \u202eadA\r\nBcc: eve@evil.test"
	l := lettersOf(t, LettersConfig{Replaced: fstest.MapFS{
		"letter.txt":  {Data: []byte(`{{define "subject"}}{{.Subject}}, {{.Name}}{{end}}Hello {{.Name}}! {{.Link}} {{range .Facts}}{{.Value}}{{end}}`)},
		"letter.html": {Data: []byte(`<p title="{{.Name}}">Hello {{.Name}}!</p><a href="{{.Link}}">go</a>{{range .Facts}}<p>{{.Value}}</p>{{end}}`)},
	}})
	user := uuid.Must(uuid.NewV7())
	event := eventstore.Event{Stream: eventstore.UserStream(user), RecordedAt: time.Now(), Metadata: eventstore.Metadata{Actor: identity.ActorUser(user), UserAgent: evil}}
	for _, k := range kinds {
		for _, verified := range []bool{true, false} {
			letter := l.about(k, event, &identity.User{ID: user, Name: evil, EmailVerified: verified, Attributes: []byte(`{}`)})
			if k.carriesCode() {
				letter.Link = l.link(k, "x")
			}
			m, err := l.write(k, exampleUser, letter)
			if err != nil {
				t.Fatal(err)
			}
			header, parts := written(t, m)
			text, page := parts[1].text, parts[2].text
			said := verified && k != kindEmail
			if strings.Contains(text, "Ada") != (said || !k.carriesCode()) || strings.Contains(m.Subject, "Ada") != said {
				t.Errorf("%s, verified %t: %q\n%s", k, verified, m.Subject, text)
			}
			if header.Get("Bcc") != "" || strings.ContainsAny(m.Subject, "\r\n\u202e") || strings.ContainsAny(text, "\u202e") {
				t.Errorf("%s: the header is %v\n%q", k, header, text)
			}
			for _, refused := range []string{"<b>", "://evil.test", "\u202e", "title=\"<", "\nBcc"} {
				if strings.Contains(page, refused) || refused != "<b>" && strings.Contains(text, refused) {
					t.Errorf("%s has %q:\n%s", k, refused, page)
				}
			}
			for _, link := range linksOf(t, page) {
				if !strings.HasPrefix(link, "https://usher.test/") && link != "" {
					t.Errorf("%s links to %s", k, link)
				}
			}
		}
	}
}

// Each template may be replaced: the nearest one counts.
func TestReplacedTemplates(t *testing.T) {
	t.Parallel()
	l := lettersOf(t, LettersConfig{Brand: brand.Brand{Name: "Acme"}, Replaced: fstest.MapFS{
		"verify.de.txt":  {Data: []byte("DE {{.Link}}\n")},
		"verify.txt":     {Data: []byte("{{define \"subject\"}}Welcome\n to {{.Brand}}{{end}}ANY {{.Link}}\n")},
		"letter.de.html": {Data: []byte(`<p lang="{{.Language}}">LETTER DE {{.Lead}} {{with .Link}}<a href="{{.}}">{{.}}</a>{{end}}</p>`)},
		"letter.txt":     {Data: []byte("LETTER {{.Site}} {{.Link}}\n")},
		"README.md":      {Data: []byte("{{.Nothing}}")},
		"..data":         {Mode: 0o755 | 1<<31},
	}})
	for _, c := range []struct{ name, language, subject, text, html string }{
		{"verify", "de", "E-Mail-Adresse bestätigen", "DE https://usher.test", `<p lang="de">LETTER DE Mit dieser`},
		{"verify", "fr", "Welcome to Acme", "ANY https://usher.test", `<html lang="fr"`},
		{"reset", "de", "Neues Passwort wählen", "LETTER usher.test https", `<p lang="de">LETTER DE Für das Konto`},
		{"totp_enabled", "en", "One-time passwords were switched on", "LETTER usher.test \n", "<html"},
	} {
		m, err := l.Example(c.name, c.language)
		if err != nil {
			t.Fatal(err)
		}
		if m.Subject != c.subject || !strings.Contains(m.Text, c.text) || !strings.Contains(m.HTML, c.html) {
			t.Errorf("%s.%s = %q\n%s\n%s", c.name, c.language, m.Subject, m.Text, m.HTML)
		}
	}
	if _, err := l.Example("verfy", "de"); err == nil {
		t.Error("there is a mail verfy")
	}
}

// What can't be sent is refused before anything is, with the file and the line.
func TestRefusedTemplates(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, text, err string }{
		{"verify.html", "<p>\n{{.Nope}}</p>", "verify.html:2:2: "},
		{"verify.html", "<p>\n{{range .Notes}}{{.Nope}}{{end}}</p>", "verify.html:2:18: "},
		{"verify.txt", "{{if}}", "verify.txt:1: "},
		{"verify.ja.txt", "\n\n{{.Nope}} {{.Link}}", "verify.ja.txt:3:2: "},
		{"verify.html", "<p>\nHello\n</p>\n", "verify.html:4: it ends without {{.Link}}"},
		{"reset.ar.html", "<p>{{.Link}}</p>", "reset.ar.html:1: it ends without {{.Link}}"},
		{"email.html", `<a href="https://elsewhere.test/?code={{.Link}}">x</a>`, "email.html:1: it ends without {{.Link}}"},
		{"email.txt", "See {{.Link}}.", "email.txt:1: it ends without {{.Link}}"},
		{"letter.txt", "Hello\n", "letter.txt:2: it ends without {{.Link}}"},
		{"letter.de.txt", "{{if .Name}}{{.Link}}{{end}}", "letter.de.txt:1: it ends without {{.Link}}"},
		{"verify.html", "\n<a href=\"{{.Link}}", "verify.html:2: ends in a non-text context"},
		{"letter.txt", `{{define "subject"}} {{end}}{{.Link}}`, "letter.txt:1: the subject is empty"},
		{"letter.txt", "{{define \"subject\"}}\n{{.Nope}}{{end}}{{.Link}}", "letter.txt:2:2: "},
		{"letter.txt", "{{.Link}}\n{{index .Notes 7}}", "letter.txt:2:2: "},
		{"new_device.html", strings.Repeat("x", maxHTML+1), "new_device.html:1: the mail has 100001 bytes"},
		{"verfy.html", "", "verfy.html: there is no such template"},
		{"verify.nl.txt", "{{.Link}}", "verify.nl.txt: there is no such template"},
		{"letter.html", `{{template "nowhere" .}}`, "letter.html:1"},
	} {
		_, err := NewLetters(LettersConfig{AccountURL: lettersOf(t, LettersConfig{}).account, Replaced: fstest.MapFS{c.name: {Data: []byte(c.text)}}})
		if err == nil || !strings.HasPrefix(err.Error(), c.err) {
			t.Errorf("%s %.40q: %v, want %q", c.name, c.text, err, c.err)
		}
	}
}

// The logo goes along, so that nothing is fetched, where mail programs show such; else the name stands there.
func TestLogoOfMails(t *testing.T) {
	t.Parallel()
	var logo bytes.Buffer
	if err := png.Encode(&logo, image.NewGray(image.Rect(0, 0, 8, 8))); err != nil {
		t.Fatal(err)
	}
	l := lettersOf(t, LettersConfig{Brand: brand.Brand{Name: "Acme\u202e\r\nBcc: x", Logo: logo.Bytes()}})
	m, err := l.Example("verify", "en")
	if err != nil {
		t.Fatal(err)
	}
	_, parts := written(t, m)
	var media []string
	for _, p := range parts {
		media = append(media, p.media)
	}
	if want := []string{"multipart/related", "multipart/alternative", "text/plain", "text/html", "image/png"}; !slices.Equal(media, want) {
		t.Fatalf("the parts are %v, want %v", media, want)
	}
	page, picture := parts[3].text, parts[4]
	wantSafe(t, page)
	if id := strings.Trim(picture.id, "<>"); !strings.Contains(page, `src="cid:`+id+`"`) || !strings.Contains(page, `alt="Acme`) {
		t.Errorf("the picture %q is not in the HTML:\n%s", picture.id, page)
	}
	if strings.ContainsAny(m.Text+page, "\u202e\r") {
		t.Error("the brand's name turns around what follows")
	}
	for _, other := range [][]byte{[]byte(`<svg xmlns="http://www.w3.org/2000/svg"/>`), append(logo.Bytes(), make([]byte, maxLogo)...)} {
		m, err := lettersOf(t, LettersConfig{Brand: brand.Brand{Name: "Acme", Logo: other}}).Example("verify", "en")
		if err != nil || m.Logo != nil || strings.Contains(m.HTML, "<img") || !strings.Contains(m.HTML, "Acme") {
			t.Errorf("a logo of %d bytes: %v, %s", len(other), err, m.HTML)
		}
	}
	if _, err := NewLetters(LettersConfig{AccountURL: l.account, Brand: brand.Brand{Logo: []byte("text")}}); err == nil {
		t.Error("a text is a logo")
	}
}
