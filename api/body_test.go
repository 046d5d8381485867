package api

import (
	"usher.example/identity"
)

// What other clients send, and means the same.
var formScenarios = []scenario{
	{name: "JSON in another charset", method: "POST", path: login, headers: []string{"Content-Type", "application/json; charset=ISO-8859-1"}, body: credentials("ada@example.org", secret),
		status: 200, has: []string{`"roles":[]`}, events: []string{"session.started"}},
	{name: "JSON in a charset of no name", method: "POST", path: login, headers: []string{"Content-Type", "application/json; charset"}, body: credentials("ada@example.org", secret),
		status: 200, events: []string{"session.started"}},
	{name: "JSON behind a byte order mark", method: "POST", path: login, body: "\ufeff" + credentials("ada@example.org", secret), status: 200, events: []string{"session.started"}},
	{name: "a byte order mark alone", method: "POST", path: login, body: "\ufeff", status: 400, code: identity.CodeInvalidRequest, has: []string{`\"email\" is needed`}},
	{name: "two byte order marks", method: "POST", path: login, body: "\ufeff\ufeff{}", status: 400, code: identity.CodeInvalidRequest},
	{name: "spaces before the token", path: "/v1/me", headers: []string{"Authorization", "bearer   {ada's token}"}, status: 200, has: []string{"{ada}"}},
	{name: "spaces in the token", path: "/v1/me", headers: []string{"Authorization", "Bearer {ada's token} x"}, status: 401, code: identity.CodeUnauthenticated},
	{name: "a filter that does not exist", path: "/v1/users?status=Active", as: "admin", status: 400, code: identity.CodeInvalidRequest,
		has: []string{`"detail":"the status is active, locked or disabled"`}},
}

// null takes something away where the document says so, and is refused everywhere else: it never does nothing.
var nullScenarios = []scenario{
	{name: "a name of one's own", method: "PATCH", path: "/v1/me", as: "ada", body: body("name", "Ada"), status: 200, events: []string{"user.profile_updated"}},
	{name: "null takes it away", method: "PATCH", path: "/v1/me", as: "ada", body: `{"name":null}`, status: 200, has: []string{`"name":""`}, events: []string{"user.profile_updated"}},
	{name: "a name and attributes", method: "PATCH", path: "/v1/users/{ada}", as: "admin", body: `{"name":"Ada","attributes":{"a":{"b":1,"c":2},"d":3}}`, status: 200, events: []string{"user.profile_updated"}},
	{name: "null takes the name away", method: "PATCH", path: "/v1/users/{ada}", as: "admin", body: `{"name":null}`, status: 200, has: []string{`"name":""`}, events: []string{"user.profile_updated"}},
	{name: "null takes an attribute of one away", method: "PATCH", path: "/v1/users/{ada}", as: "admin", body: `{"attributes":{"a":{"b":null},"d":null}}`, status: 200, has: []string{`"attributes":{"a":{"c":2}}`},
		events: []string{"user.profile_updated"}},
	refusedNull("PATCH", "/v1/users/{ada}", `{"attributes":null}`, `\"attributes\" can't be null`),
	refusedNull("PATCH", "/v1/users/{ada}", `{"attributes":{"a":[1,null]}}`, `in a list in the field \"attributes\"`),
	refusedNull("PATCH", "/v1/users/{ada}", `{"attributes":{"a":[{"b":null}]}}`, `in a list in the field \"attributes\"`),
	refusedNull("PATCH", "/v1/users/{ada}", `{"email":null}`, `\"email\" can't be null`),
	refusedNull("PATCH", "/v1/users/{ada}", `{"email_verified":null}`, `\"email_verified\" can't be null`),
	refusedNull("PATCH", "/v1/me", `{"attributes":null}`, `\"attributes\" can't be null`),
	refusedNull("POST", "/v1/users", `{"email":"nil@example.org","name":null}`, `\"name\" can't be null`),
	refusedNull("POST", "/v1/users", `{"email":"nil@example.org","roles":null}`, `\"roles\" can't be null`),
	refusedNull("POST", "/v1/users", `{"email":"nil@example.org","roles":[null]}`, `in the field \"roles\" there can be no null`),
	refusedNull("POST", "/v1/users", `{"email":"nil@example.org","attributes":{"a":null}}`, `in the field \"attributes\" there can be no null`),
	refusedNull("POST", "/v1/users", `{"email":"nil@example.org","password":null}`, `\"password\" can't be null`),
	refusedNull("POST", register, `{"email":"nil@example.org","password":"`+secret+`","name":null}`, `\"name\" can't be null`),
	refusedNull("POST", login, `{"email":"ada@example.org","password":"`+secret+`","totp":null}`, `\"totp\" can't be null`),
	refusedNull("POST", "/v1/projections/users/retry", `{"user":null}`, `\"user\" can't be null`),
	refusedNull("POST", "/v1/webhooks", `{"url":"https://hooks.example.org","from":null}`, `\"from\" can't be null`),
	refusedNull("DELETE", "/v1/me", `{"current_password":"`+secret+`","totp":null}`, `\"totp\" can't be null`),
}

func refusedNull(method, path, sent, says string) scenario {
	return scenario{name: method + " " + path + " " + sent, method: method, path: path, as: "admin", body: sent, status: 400, code: identity.CodeInvalidRequest, has: []string{says}}
}
