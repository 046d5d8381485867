package main

import (
	"encoding/json"
	"net/mail"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestMailPreview(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	templates := filepath.Join(dir, "templates")
	if err := os.Mkdir(templates, 0o700); err != nil {
		t.Fatal(err)
	}
	template := filepath.Join(templates, "reset.de.html")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(template, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(`<p>Eigenes <a href="{{.Link}}">{{.Brand}}</a></p>`)
	env := []string{"MAIL_TEMPLATES=" + templates, "BRAND_NAME=Acme", "PUBLIC_URL=https://users.example.org"}

	o := usher(t, dir, env, "mail", "preview", "--language", "de").wantDone(t)
	for _, wanted := range []string{"== reset, de: Neues Passwort wählen\n", "https://users.example.org/account/reset?code=", "== new_device, de: "} {
		if !strings.Contains(o.stdout, wanted) {
			t.Errorf("it prints no %q:\n%s", wanted, o.stdout)
		}
	}
	var list []preview
	o = usher(t, dir, env, "mail", "preview", "verify", "--json").wantDone(t)
	if err := json.Unmarshal([]byte(o.stdout), &list); err != nil || len(list) != len(languages()) || list[5].Language != "ar" || !strings.Contains(list[5].HTML, `dir="rtl"`) {
		t.Errorf("--json prints %d mails, %v", len(list), err)
	}
	out := filepath.Join(dir, "out")
	usher(t, dir, env, "mail", "preview", "--out", out).wantDone(t)
	files, err := filepath.Glob(filepath.Join(out, "*"))
	if err != nil || len(files) != 3*10*len(languages()) {
		t.Errorf("%d files, %v", len(files), err)
	}
	page, err := os.ReadFile(filepath.Join(out, "reset.de.html"))
	if err != nil || !strings.HasPrefix(string(page), `<p>Eigenes <a href="https://users.example.org/account/reset?code=`) {
		t.Errorf("reset.de.html: %s, %v", page, err)
	}
	message, err := os.Open(filepath.Join(out, "verify.en.eml"))
	if err != nil {
		t.Fatal(err)
	}
	defer message.Close()
	m, err := mail.ReadMessage(message)
	if err != nil {
		t.Fatal(err)
	}
	if from := m.Header.Get("From"); from != `"Acme" <no-reply@users.example.org>` {
		t.Errorf("it is from %s", from)
	}
	for _, args := range [][]string{{"verfy"}, {"--language", "nl"}, {"verify", "reset"}} {
		if o := usher(t, dir, env, append([]string{"mail", "preview"}, args...)...); o.code != exitUse {
			t.Errorf("%v: exit code %d, want %d: %s", args, o.code, exitUse, o.stderr)
		}
	}

	// Every command that reads the settings says what is wrong with a template, and where.
	write("<p>\n{{.Nope}} {{.Link}}</p>")
	for _, command := range []string{"config", "serve"} {
		usher(t, dir, env, command).wantRefused(t, "MAIL_TEMPLATES: reset.de.html:2:2: ", "Nope")
	}
	if o := usher(t, dir, env, "check"); o.code != exitFailed || !strings.Contains(o.stdout, "MAIL_TEMPLATES: reset.de.html:2:2: ") {
		t.Errorf("check: exit code %d\n%s", o.code, o.stdout)
	}
}
