package userfile

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"usher.example/identity"
)

func read(t *testing.T, text string, format Format) (list []Line) {
	t.Helper()
	r, err := NewReader(strings.NewReader(text), format)
	if err != nil {
		t.Fatal(err)
	}
	for {
		l, err := r.Next()
		if errors.Is(err, io.EOF) {
			return list
		}
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, l)
	}
}

var everything = identity.ImportedUser{
	Email: "Ada@example.org", Name: `Ada "the first", Countess`, Hash: "$2b$12$x", EmailVerified: true, Status: identity.StatusLocked,
	Roles: []string{"admin", "writer"}, Attributes: json.RawMessage(`{"plan":"paid, monthly"}`), CreatedAt: time.Date(2019, 3, 1, 10, 0, 0, 500000000, time.UTC),
}

func TestRead(t *testing.T) {
	t.Parallel()
	plain := identity.ImportedUser{Email: "bob@example.org"}
	for name, c := range map[string]struct {
		text   string
		format Format
		want   []Line
	}{
		"JSON Lines": {`{"email":"Ada@example.org","name":"Ada \"the first\", Countess","password_hash":"$2b$12$x","email_verified":true,"status":"locked","roles":["admin","writer"],"attributes":{"plan":"paid, monthly"},"created_at":"2019-03-01T11:00:00.5+01:00"}` +
			"\n\n{\"email\":\"bob@example.org\",\"attributes\":null}\r\n", "", []Line{{Number: 1, User: everything}, {Number: 3, User: plain}}},
		"CSV": {"created_at,email,name,password_hash,email_verified,status,roles,attributes\n" +
			`2019-03-01 10:00:00.5+00:00,Ada@example.org,"Ada ""the first"", Countess",$2b$12$x,True,locked,"admin;writer","{""plan"":""paid, monthly""}"` + "\n" +
			",bob@example.org,,,,,,\n", "", []Line{{Number: 2, User: everything}, {Number: 3, User: plain}}},
		"CSV, just addresses":        {"email\nbob@example.org\n", "", []Line{{Number: 2, User: plain}}},
		"CSV with a mark of Windows": {"\ufeffemail,name\r\nbob@example.org,\r\n", "", []Line{{Number: 2, User: plain}}},
		"no last line break":         {`{"email":"bob@example.org"}`, JSONLines, []Line{{Number: 1, User: plain}}},
		"nothing":                    {"", "", nil},
		"white space":                {"\n \n", JSONLines, nil},
	} {
		got := read(t, c.text, c.format)
		for i := range got {
			if u := &got[i].User; len(u.Roles) == 0 {
				u.Roles = nil
			}
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// A line that can't be read is told of, without anything of it, and the others are read.
func TestReadRefuses(t *testing.T) {
	t.Parallel()
	const secret = "5ecret"
	for _, c := range []struct{ line, says string }{
		{`{"email":"` + secret + `","password":"` + secret + `"}`, `no field "password"`},
		{`{"email":7` + secret + `}`, "not one JSON object"},
		{`{"email":12345}`, `"email" is of the wrong type`},
		{`{"roles":"` + secret + `"}`, `"roles" is of the wrong type`},
		{`{"email":"a@example.org"} {"email":"` + secret + `"}`, "not one JSON object"},
		{`["` + secret + `"]`, "not one JSON object"},
		{`{"email":"a@example.org","created_at":"` + secret + `"}`, "created_at is a time"},
		{`{"email":"` + "\xff" + secret + `"}`, "UTF-8"},
		{`{"email":"` + strings.Repeat(secret, maxLine/6) + `"}`, "more than 1048576 bytes"},
		{`{"email":"`, "not one JSON object"},
	} {
		list := read(t, c.line+"\n"+`{"email":"bob@example.org"}`+"\n", JSONLines)
		if len(list) != 2 || list[0].Number != 1 || list[0].Err == nil || list[1].Number != 2 || list[1].User.Email != "bob@example.org" {
			t.Errorf("%.40s: read %+v", c.line, list)
			continue
		}
		if text := list[0].Err.Error(); !strings.Contains(text, c.says) || strings.Contains(text, secret) || strings.Contains(text, "12345") {
			t.Errorf("%.40s: %q, want %q and nothing of the line", c.line, text, c.says)
		}
	}
	for _, c := range []struct{ line, says string }{
		{"a@example.org,maybe", "email_verified is true or false"},
		{"a@example.org", "wrong number of fields"},
		{"a@example.org,true,more", "wrong number of fields"},
		{`a@example.org,"tr"ue`, "it is no CSV"},
		{"a\xff@example.org,true", "UTF-8"},
	} {
		list := read(t, "email,email_verified\n"+c.line+"\nbob@example.org,yes\n", CSV)
		if len(list) != 2 || list[0].Number != 2 || list[0].Err == nil || !strings.Contains(list[0].Err.Error(), c.says) || list[1].User.Email != "bob@example.org" || !list[1].User.EmailVerified {
			t.Errorf("%s: read %+v, want that %q", c.line, list, c.says)
		}
	}
	for header, says := range map[string]string{
		"mail,name\n": `no field "mail"`, "name\n": `"email" among them`, "email,name,email\n": "twice", "": `"email" among them`,
	} {
		if _, err := NewReader(strings.NewReader(header), CSV); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("header %q: %v, want that %q", header, err, says)
		}
	}
}

func TestWriteAndReadAgain(t *testing.T) {
	t.Parallel()
	list := []identity.ImportedUser{everything, {Email: "bob@example.org"}, {Email: "c@example.org", Name: "=1+1\nnext", Status: identity.StatusActive, Attributes: json.RawMessage("{}")}}
	for _, format := range []Format{JSONLines, CSV} {
		var file bytes.Buffer
		w, err := NewWriter(&file, format)
		if err != nil {
			t.Fatal(err)
		}
		for _, u := range list {
			if err := w.Write(u); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		for i, l := range read(t, file.String(), "") {
			want := list[i]
			if string(want.Attributes) == "{}" {
				want.Attributes = nil
			}
			if len(l.User.Roles) == 0 {
				l.User.Roles = nil
			}
			if diff := cmp.Diff(want, l.User); diff != "" || l.Err != nil {
				t.Errorf("%s, %v (-written +read):\n%s", format, l.Err, diff)
			}
		}
	}
}

func FuzzRead(f *testing.F) {
	for _, seed := range []string{`{"email":"a@example.org","attributes":{"a":[1]}}`, "email,name\na,b\n\"c\n", "\ufeff{", "email\n\n\n"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r, err := NewReader(strings.NewReader(text), "")
		if err != nil {
			return
		}
		for last := 0; ; {
			l, err := r.Next()
			if err != nil {
				return
			}
			if l.Number <= last {
				t.Fatalf("line %d after %d", l.Number, last)
			}
			last = l.Number
		}
	})
}
