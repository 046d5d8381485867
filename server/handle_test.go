package server

import (
	"context"
	"encoding/json"
	"errors"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"usher.example/identity"
)

// even is a number that reads itself.
type even int

func (e *even) UnmarshalText(text []byte) error {
	if len(text) != 1 || (text[0]-'0')%2 != 0 {
		return Refuse(identity.CodeInvalidRequest, "%s is odd", text)
	}
	*e = even(text[0] - '0')
	return nil
}

type inShelf struct {
	ID uuid.UUID `path:"id" missing:"there is no such shelf"`
}

type bookWish struct {
	inShelf
	Title string     `json:"title" required:"true"`
	Note  PatchText  `json:"note"`
	Extra MergePatch `json:"extra"`
	Of    *time.Time `json:"of"`
}

type bookQuery struct {
	inShelf
	Word   string    `query:"word"`
	Exact  *string   `query:"exact"`
	Lent   bool      `query:"lent"`
	Signed *bool     `query:"signed"`
	Since  time.Time `query:"since"`
	Number even      `query:"number"`
	Reader uuid.UUID `query:"reader"`
}

// What a call takes is read strictly, and what it answers has what it says of position and place.
func TestHandle(t *testing.T) {
	t.Parallel()
	s := New(Config{})
	r := s.Routes(Surface{})
	r.POST("/shelves/:id/:row", Open, Handle(func(_ context.Context, call *Call, in struct {
		bookWish
		Row string `path:"row"`
	}) (Answer, error) {
		if (call.CommandID("put") != uuid.Nil) != (in.Row == "kept") {
			return Answer{}, errors.New("that is not what the key says")
		}
		note := "none"
		if in.Note.Value != nil {
			note = "[" + *in.Note.Value + "]"
		}
		return Created("/books/1", in.ID.String()+" "+in.Row+" "+in.Title+" "+note+" "+string(in.Extra.RawMessage)).At(7), nil
	}))
	r.GET("/shelves/:id", Open, Handle(func(_ context.Context, call *Call, in bookQuery) (Answer, error) {
		raw, err := json.Marshal(in)
		return OK(json.RawMessage(raw)), err
	}))
	r.DELETE("/shelves/:id", Open, Handle(func(context.Context, *Call, inShelf) (Answer, error) { return Done(0), nil }))
	const id = "01980000-0000-7000-8000-00000000000a"
	for _, c := range []struct {
		method, path, body string
		key                string
		status             int
		has                string
	}{
		{"POST", "/shelves/" + id + "/top", `{"title":"Emma"}`, "", 201, id + ` top Emma none `},
		{"POST", "/shelves/" + id + "/top", `{"title":"Emma","note":null,"extra":{"a":null}}`, "", 201, `Emma [] {\"a\":null}`},
		{"POST", "/shelves/" + id + "/kept", `{"title":"Emma"}`, "k", 201, id},
		{"POST", "/shelves/" + id + "/kept", `{"title":"Emma"}`, "a key", 400, "Idempotency-Key"},
		{"POST", "/shelves/" + id + "/top", `{"title":""}`, "", 400, `the field \"title\" is needed`},
		{"POST", "/shelves/" + id + "/top", ``, "", 400, `the field \"title\" is needed`},
		{"POST", "/shelves/" + id + "/top", `{"title":null}`, "", 400, `can't be null`},
		{"POST", "/shelves/" + id + "/top", `{"title":"Emma","of":"today"}`, "", 400, "not what is expected"},
		{"POST", "/shelves/" + id + "/top", `{"title":"Emma","ID":"x"}`, "", 400, `the field \"ID\" is unknown`},
		{"POST", "/shelves/" + id + "/top", `{"title":"Emma","row":"x"}`, "", 400, `the field \"row\" is unknown`},
		{"POST", "/shelves/1/top", `{"title":"Emma"}`, "", 404, "there is no such shelf"},
		{"POST", "/shelves/urn:uuid:" + id + "/top", `{"title":"Emma"}`, "", 404, "there is no such shelf"},
		{"GET", "/shelves/" + id, ``, "", 200, `{"ID":"` + id + `","Word":"","Exact":null,"Lent":false,"Signed":null,"Since":"0001-01-01T00:00:00Z","Number":0,"Reader":"00000000-0000-0000-0000-000000000000"}`},
		{"GET", "/shelves/" + id + "?word=a&exact=&lent=true&signed=false&since=2026-05-06T07:08:09%2B02:00&number=4", ``, "", 200,
			`"Word":"a","Exact":"","Lent":true,"Signed":false,"Since":"2026-05-06T05:08:09Z","Number":4`},
		{"GET", "/shelves/" + id + "?word=&lent=&since=&number=", ``, "", 200, `"Exact":null,"Lent":false,"Signed":null`},
		{"GET", "/shelves/" + id + "?signed=", ``, "", 400, "signed is true or false"},
		{"GET", "/shelves/" + id + "?lent=yes", ``, "", 400, "lent is true or false"},
		{"GET", "/shelves/" + id + "?since=1969-12-31T23:59:59Z", ``, "", 400, "not before 1970"},
		{"GET", "/shelves/" + id + "?number=3", ``, "", 400, "3 is odd"},
		{"GET", "/shelves/" + id + "?reader=3", ``, "", 400, "reader is not valid"},
		{"GET", "/shelves/" + id + "?title=a", ``, "", 400, `the parameter \"title\" is unknown`},
		{"GET", "/shelves/" + id + "?word=a&word=b", ``, "", 400, `is there twice`},
		{"GET", "/shelves/" + id + "?word=%zz", ``, "", 400, `the query is not valid`},
		{"GET", "/shelves/1", ``, "", 404, "there is no such shelf"},
		{"DELETE", "/shelves/" + id + "?word=a", ``, "", 204, ``}, // what a change takes is in its body
		{"DELETE", "/shelves/" + id, `{"title":"Emma"}`, "", 400, `the field \"title\" is unknown`},
	} {
		q := httptest.NewRequest(c.method, c.path, strings.NewReader(c.body))
		q.Header.Set("Content-Type", "application/json")
		if c.key != "" {
			q.Header.Set(HeaderIdempotencyKey, c.key)
		}
		w := httptest.NewRecorder()
		s.ServeHTTP(w, q)
		if w.Code != c.status || !strings.Contains(w.Body.String(), c.has) {
			t.Errorf("%s %s %s: %d %s, want %d with %s", c.method, c.path, c.body, w.Code, w.Body, c.status, c.has)
		}
		if h := w.Header(); c.status == 201 && (h.Get(HeaderPosition) != "7" || h.Get("Location") != "/books/1") {
			t.Errorf("%s %s: %v", c.method, c.path, h)
		}
	}
}

// A struct with a field that nothing can be read into is a mistake, which shows at the start.
func TestHandleRefusesFieldsOfNothing(t *testing.T) {
	t.Parallel()
	for _, of := range []any{
		struct{ Name string }{},
		struct {
			Row int `path:"row"`
		}{},
		struct {
			Row *[]string `query:"row"`
		}{},
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%T passed", of)
				}
			}()
			formOf(reflect.TypeOf(of))
		}()
	}
}
