package userfile

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
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

// A quote that is not closed costs its own line and no other, and what is held of the file stays bounded.
func TestOpenQuote(t *testing.T) {
	t.Parallel()
	const header, bob = "email,name\n", "bob@example.org,Bob\n"
	many := strings.Repeat("x@example.org,X\n", 100)
	for name, c := range map[string]struct {
		text string
		want []string // the lines in a few words
	}{
		"closed after 8 lines":      {header + "a@example.org,\"1\n2\n3\n4\n5\n6\n7\n8\"\n" + bob, []string{"2 a@example.org", "10 bob@example.org"}},
		"open for more":             {header + "a@example.org,\"1\n2\n3\n4\n5\n6\n7\n8\n9\"\n" + bob, []string{"2-9 open quote", "3 it is no CSV", "4 it is no CSV", "5 it is no CSV", "6 it is no CSV", "7 it is no CSV", "8 it is no CSV", "9 it is no CSV", "10 it is no CSV", "11 bob@example.org"}},
		"open until the end":        {header + bob + "a@example.org,\"A\n" + bob + "c@example.org,C", []string{"2 bob@example.org", "3-5 open quote", "4 bob@example.org", "5 c@example.org"}},
		"open on the last line":     {header + "a@example.org,\"A", []string{"2 open quote"}},
		"closed by another's quote": {header + "a@example.org,\"A\nc@example.org,\"C\"\n" + bob, []string{"2-3 it is no CSV", "3 c@example.org", "4 bob@example.org"}},
		"too many fields then":      {header + "a@example.org,\"A\nc@example.org\",C,\n" + bob, []string{"2-3 it is no CSV", "3 it is no CSV", "4 bob@example.org"}},
		"two fields of 8 lines":     {header + "\"a@example.org\n\n\n\n\n\n\n\",\"A\n\n\n\n\n\n\n\"\n" + bob, []string{"2 a@example.org", "17 bob@example.org"}},
		"quotes within":             {header + "\"a@example.org\",\"say \"\"A\"\", and\nB\"\r\n" + bob, []string{"2 a@example.org", "4 bob@example.org"}},
		"empty lines":               {header + "\n\r\n" + bob + "\n", []string{"4 bob@example.org"}},
		"a long line in it":         {header + "a@example.org,\"A\n" + strings.Repeat("x", maxLine+1) + "\n" + bob, []string{"2-3 it has more than", "3 it has more than", "4 bob@example.org"}},
		"long together":             {header + "a@example.org,\"A\n" + strings.Repeat("x", maxLine-10) + "\n" + strings.Repeat("y", 100) + "\"\n" + bob, []string{"2-3 it has more than", "3 it is no CSV", "4 it is no CSV", "5 bob@example.org"}},
	} {
		var got []string
		for _, l := range read(t, c.text, CSV) {
			text := fmt.Sprint(l.Number)
			if l.Last > 0 {
				text = fmt.Sprintf("%d-%d", l.Number, l.Last)
			}
			if l.Err == nil {
				got = append(got, text+" "+l.User.Email)
				continue
			}
			for _, words := range []string{"open quote", "it is no CSV", "it has more than"} {
				if strings.HasPrefix(l.Err.Error(), words) {
					got = append(got, text+" "+words)
				}
			}
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	list := read(t, header+"a@example.org,\"A\n"+many, CSV)
	if len(list) != 101 || list[0].Err == nil || list[100].Err != nil {
		t.Errorf("of 100 lines after an open quote %d were read", len(list)-1)
	}
}

// Whatever the file is, no more of it is held than a record and a line.
func TestReadIsBounded(t *testing.T) {
	t.Parallel()
	text := "email,name\n" + strings.Repeat("\"a@example.org,x\n", 50_000)
	r, err := NewReader(strings.NewReader(text), "")
	if err != nil {
		t.Fatal(err)
	}
	for n := 0; ; n++ {
		if _, err := r.Next(); err != nil {
			if n < 50_000 {
				t.Errorf("%d lines were told of, %v", n, err)
			}
			return
		}
		if len(r.again) > maxFieldLines {
			t.Fatalf("%d lines are held", len(r.again))
		}
	}
}

// A spreadsheet takes nothing of a file for a formula, and reading the file again brings back what was written.
func TestFormulas(t *testing.T) {
	t.Parallel()
	names := []string{"=1+1", "+1", "-1", "@SUM(1)", "\t=1", "＝1", "'=1", "''=1", "'quoted'", "O'Neill", "'", "a=1"}
	var file bytes.Buffer
	w, err := NewWriter(&file, CSV)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if err := w.Write(identity.ImportedUser{Email: "=a@example.org", Name: name}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	records, err := csv.NewReader(bytes.NewReader(file.Bytes())).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	for i, l := range read(t, file.String(), CSV) {
		for _, cell := range records[i+1] {
			if strings.IndexAny(cell, "=+-@\t\r＝＋－＠") == 0 {
				t.Errorf("%q is written as %q", names[i], cell)
			}
		}
		if want := strings.TrimSpace(names[i]); l.User.Name != want || l.User.Email != "=a@example.org" || l.Err != nil {
			t.Errorf("%q is read again as %q, %v", names[i], l.User.Name, l.Err)
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
