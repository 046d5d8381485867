package api

import (
	"fmt"
	"net/http"
	"testing"

	"usher.example/identity"
)

// Who has an address is found by it.
var addressScenarios = []scenario{
	{name: "who has an address", path: "/v1/users?email=ada%40example.org", as: "admin", status: 200, has: []string{`{"items":[{"id":"{ada}"`}, lacks: []string{"next_cursor", "late@example.org"}},
	{name: "who has it, typed otherwise", path: "/v1/users?email=ADA@Example.ORG&limit=1", as: "admin", status: 200, has: []string{`"id":"{ada}"`}},
	{name: "who has it, as of a position", path: "/v1/users?email=ada@example.org", as: "admin", headers: []string{"Usher-Min-Position", "{head}"}, status: 200, has: []string{`"id":"{ada}"`}},
	{name: "who has it, ahead of the log", path: "/v1/users?email=ada@example.org", as: "admin", headers: []string{"Usher-Min-Position", "99999999"}, status: 503, code: identity.CodeBehind},
	{name: "who has the address of nobody", path: "/v1/users?email=nobody@example.org", as: "admin", status: 200, has: []string{`{"items":[]}`}},
	{name: "who has a part of it", path: "/v1/users?email=da@example.org", as: "admin", status: 200, has: []string{`{"items":[]}`}},
	{name: "who has the address of somebody erased", path: "/v1/users?email=erin@example.org", as: "admin", status: 200, has: []string{`{"items":[]}`}},
	{name: "who has what is no address", path: "/v1/users?email=a+b@example.org", as: "admin", status: 400, code: identity.CodeInvalidRequest, has: []string{"%2B"}},
	{name: "who has no address", path: "/v1/users?email=", as: "admin", status: 400, code: identity.CodeInvalidRequest},
	{name: "who has it and a status", path: "/v1/users?email=ada@example.org&status=active", as: "admin", status: 400, code: identity.CodeInvalidRequest, has: []string{`\"status\" can't go with it`}},
	{name: "who has it, too many", path: "/v1/users?email=ada@example.org&limit=201", as: "admin", status: 400, code: identity.CodeInvalidRequest},
	{name: "who has an address, for users", path: "/v1/users?email=ada@example.org", as: "ada", status: 403, code: identity.CodeForbidden},
}

// An address is looked up while every read model is stopped, and a change of it shows at once.
func TestAddressNeedsNoReadModel(t *testing.T) {
	t.Parallel()
	s := newStack(t, openSQLite(t), options{document: true})
	access := s.admin()
	ada := s.user("ada@example.org")
	found := func(email string) string {
		t.Helper()
		a := s.as(access, "GET", "/v1/users?email="+email, "", "Usher-Min-Position", fmt.Sprint(s.head()))
		if a.status != http.StatusOK {
			t.Fatal(a)
		}
		return a.body
	}
	if got := found("ada@example.org"); got == `{"items":[]}`+"\n" {
		t.Errorf("nobody has the address that was registered: %s", got)
	}
	s.want(s.as(access, "PATCH", "/v1/users/"+ada.String(), body("email", "ada@example.net")), http.StatusOK, "")
	if got := found("ada@example.org"); got != `{"items":[]}`+"\n" {
		t.Errorf("the address that was given up still finds %s", got)
	}
	if got := found("ada@example.net"); got == `{"items":[]}`+"\n" {
		t.Error("nobody has the address that was given")
	}
}
