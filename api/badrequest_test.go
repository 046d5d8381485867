package api

import (
	"strings"

	"usher.example/identity"
	"usher.example/server"
)

// badBodies are refused by every call that has a body. good is what an object would have to hold.
func badBodies(path, good string) []scenario {
	bad := func(name, body string, has ...string) scenario {
		return scenario{name: name, method: "POST", path: path, body: body, status: 400, code: identity.CodeInvalidRequest, has: has, lacks: []string{secret}}
	}
	list := []scenario{
		bad("empty body", "", `\"email\" is needed`),
		bad("empty object", "{}", `\"email\" is needed`),
		bad("no password", `{"email":"ada@example.org"}`, `\"password\" is needed`),
		bad("null", `{`+good+`,"email":null}`, "twice"),
		bad("null for a text", `{"email":null,"password":"x"}`, `\"email\" can't be null`),
		bad("broken JSON", `{`+good),
		bad("no JSON", secret),
		bad("white space", "  \n"),
		bad("trailing data", `{`+good+`} {}`),
		bad("array", `[{`+good+`}]`, "not a JSON object"),
		bad("string", `"`+secret+`"`, "not a JSON object"),
		bad("unknown field", `{`+good+`,"admin":true}`, "admin"),
		bad("field in another case", `{`+strings.Replace(good, "email", "Email", 1)+`}`, "Email"),
		bad("field twice", `{`+good+`,"email":"eve@example.org"}`, "twice"),
		bad("field twice by escapes", `{`+good+`,"\u0065mail":"eve@example.org"}`, "twice"),
		bad("number for a string", `{"email":7,"password":"x"}`, "wrong type"),
		bad("object for a string", `{"email":{"a":1},"password":"x"}`, "wrong type"),
		bad("invalid UTF-8", `{`+strings.Replace(good, "@", "\xff@", 1)+`}`, "UTF-8"),
		bad("NUL", `{`+strings.Replace(good, "@", `\u0000@`, 1)+`}`, "NUL"),
		bad("NUL in the password", `{`+strings.Replace(good, "horse", `\u0000`, 1)+`}`, "NUL"),
		bad("raw control character", `{`+strings.Replace(good, "@", "\x00@", 1)+`}`),
		bad("half a surrogate pair", `{`+strings.Replace(good, "horse", `\ud83d`, 1)+`}`, "surrogate"),
		bad("deep nesting", strings.Repeat("[", 30000)+strings.Repeat("]", 30000)),
		{name: "large body", method: "POST", path: path, body: `{` + good + `,"name":"` + strings.Repeat("x", 64<<10) + `"}`, status: 413, code: server.CodeBodyTooLarge},
		{name: "form", method: "POST", path: path, headers: []string{"Content-Type", "application/x-www-form-urlencoded"}, body: "email=a", status: 415, code: server.CodeUnsupportedType},
		{name: "no content type", method: "POST", path: path, headers: []string{"Content-Type", ""}, body: `{` + good + `}`, status: 415, code: server.CodeUnsupportedType},
		{name: "compressed", method: "POST", path: path, headers: []string{"Content-Encoding", "gzip"}, body: `{` + good + `}`, status: 415, code: server.CodeUnsupportedType},
	}
	for i := range list {
		list[i].name = path + ": " + list[i].name
	}
	return list
}

func badEmails() []scenario {
	var list []scenario
	for _, email := range []string{
		" ", "plain", "@example.org", "ada@", "a@b@example.org", "a da@example.org", "ada@example..org", "ada@-example.org", "ada@intranet",
		"ada@[127.0.0.1]", "a(x)@example.org", "ada@exa mple.org", "a＠b@example.org", strings.Repeat("a", 65) + "@example.org", "ada@" + strings.Repeat("b.", 200) + "org",
	} {
		for _, path := range []string{register, login} {
			list = append(list, scenario{name: path + ": email " + email, method: "POST", path: path, body: credentials(email, secret), status: 422, code: identity.CodeInvalidEmail})
		}
	}
	return list
}

func badTokens() []scenario {
	var list []scenario
	for _, as := range []string{"alg none", "alg none, signed", "foreign key", "swapped algorithm", "expired", "future", "wrong issuer", "wrong audience", "no user", "unknown user", "altered", "rubbish", "huge"} {
		for _, path := range []string{"/v1/me", "/v1/users", "/v1/users/{ada}", "/v1/users/{ada}/events", "/v1/projections", "/v1/outbox"} {
			list = append(list, scenario{
				name: path + ": token " + as, path: path, as: as, status: 401, code: identity.CodeUnauthenticated,
				answered: []string{"WWW-Authenticate", `Bearer realm="usher", error="invalid_token"` + whereToAsk}, lacks: []string{"ada@example.org"},
			})
		}
	}
	for name, value := range map[string]string{"another scheme": "Basic YTpi", "no value": "Bearer", "only a token": "{ada's token}"} {
		list = append(list, scenario{name: "authorization: " + name, path: "/v1/me", headers: []string{"Authorization", value}, status: 401, code: identity.CodeUnauthenticated})
	}
	return list
}

func badQueries() []scenario {
	var list []scenario
	add := func(path string, code identity.Code, headers ...string) {
		list = append(list, scenario{name: path + " " + strings.Join(headers, ": "), path: path, as: "admin", headers: headers, status: 400, code: code})
	}
	for _, query := range []string{
		"limit=0", "limit=201", "limit=-1", "limit=x", "limit=1&limit=2", "status=gone", "email_verified=", "email_verified=1", "created_after=yesterday", "created_before=2026-01-01",
		"created_after=0000-01-01T00:00:00Z", "unknown=1", "query=%00", "query=%ff", "role=%00", "query=%zz", "query=" + strings.Repeat("x", 600),
	} {
		add("/v1/users?"+query, identity.CodeInvalidRequest)
	}
	for _, cursor := range []string{"x", "%00", "AAAA", "{events cursor}", strings.Repeat("A", 5000)} {
		add("/v1/users?cursor="+cursor, server.CodeInvalidCursor)
	}
	// What can't be asked is told at once, whatever position is waited for.
	for path, code := range map[string]identity.Code{
		"/v1/users?cursor=x": server.CodeInvalidCursor, "/v1/users?status=gone": identity.CodeInvalidRequest, "/v1/users?email=x": identity.CodeInvalidRequest,
		"/v1/users/{admin}?at=x": identity.CodeInvalidRequest, "/v1/users/{admin}/sessions?cursor=x": server.CodeInvalidCursor, "/v1/users/{admin}/events?cursor=x": server.CodeInvalidCursor,
		"/v1/activity?cursor=x": server.CodeInvalidCursor, "/v1/me/activity?cursor=x": server.CodeInvalidCursor, "/v1/events?cursor=x": server.CodeInvalidPosition,
		"/v1/stats?from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z": identity.CodeInvalidRequest,
	} {
		add(path, code, "Usher-Min-Position", "99999999")
	}
	for _, cursor := range []string{"x", "7", "{users cursor}", "{events cursor}x", "{events cursor}%0A", "AAAAAAAAAAcAAAAAAAAAAAAAAAAAAAAA", "{events cursor of ada}"} {
		add("/v1/users/{admin}/events?cursor="+cursor, server.CodeInvalidCursor)
	}
	add("/v1/users/{ada}/events?limit=0", identity.CodeInvalidRequest)
	for _, query := range []string{"interval=week", "from=yesterday", "to=2026-01-01", "from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z",
		"from=1999-01-01T00:00:00Z", "interval=hour&from=2025-01-01T00:00:00Z&to=2026-01-01T00:00:00Z", "limit=1"} {
		add("/v1/stats?"+query, identity.CodeInvalidRequest)
	}
	for _, query := range []string{"user=ada", "user=00000000-0000-0000-0000-000000000000", "limit=0", "type=x"} {
		add("/v1/activity?"+query, identity.CodeInvalidRequest)
	}
	add("/v1/users/{ada}/sessions?open=perhaps", identity.CodeInvalidRequest)
	add("/v1/users/{ada}/sessions?limit=201", identity.CodeInvalidRequest)
	add("/v1/users/{ada}/sessions?cursor={users cursor}", server.CodeInvalidCursor)
	add("/v1/activity?cursor={events cursor}", server.CodeInvalidCursor)
	add("/v1/me/activity?cursor={activity cursor}", server.CodeInvalidCursor) // of another list
	add("/v1/me/activity?user={ada}", identity.CodeInvalidRequest)
	for _, path := range []string{"/v1/users", "/v1/users/{ada}", "/v1/users/{ada}/events"} {
		for _, position := range []string{"x", "-1", "1.5", "+1", "01", "9223372036854775808"} {
			add(path, server.CodeInvalidPosition, "Usher-Min-Position", position)
		}
		list = append(list, scenario{
			name: path + " at a position that the log has not reached", path: path, as: "admin", headers: []string{"Usher-Min-Position", "99999999"},
			status: 503, code: identity.CodeBehind, answered: []string{"Retry-After", "1"},
		})
	}
	for _, path := range []string{"/v1/users/{ada}", "/v1/projections", "/v1/outbox"} {
		add(path+"?x=1", identity.CodeInvalidRequest)
	}
	for _, at := range []string{"", "x", "-1", "01", "2026-01-02", "2999-01-01T00:00:00Z", "1969-01-01T00:00:00Z"} {
		add("/v1/users/{ada}?at="+at, identity.CodeInvalidRequest)
	}
	add("/v1/users/{ada}?at=99999999", server.CodeInvalidPosition)
	return list
}
