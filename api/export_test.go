package api

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"usher.example/eventstore"
	"usher.example/identity"
)

const ownExport = "/v1/me/export"

// exported is an export, as whoever asks for one reads it.
type exported struct {
	Position int64
	User     struct {
		ID         uuid.UUID
		Email      string
		Roles      []string
		Attributes map[string]any
	}
	Sessions []struct {
		ID        uuid.UUID
		UserAgent string `json:"user_agent"`
		Address   string
		Current   bool
	}
	Password struct {
		ChangedAt time.Time `json:"changed_at"`
	}
	Consents []consented
	Factors  []struct{ Kind string }
	Devices  []struct{ ID uuid.UUID }
	Logins   []json.RawMessage `json:"login_origins"`
	Codes    []struct{ Purpose string }
	Mails    []struct{ Kind string }
	Throttle []struct{ Counted string }
	Import   struct{ Status string }
	Events   []struct {
		Position int64
		Type     string
		Stream   uuid.UUID
		Version  int
		Data     json.RawMessage
		Metadata struct {
			Actor     string
			Address   string
			UserAgent string `json:"user_agent"`
		}
	}
}

type consented struct {
	Client string `json:"client_id"`
	Name   string
	Scopes []string
}

func (s *stack) exported(a answer) (e exported) {
	s.tb.Helper()
	s.want(a, http.StatusOK, "")
	if err := json.Unmarshal([]byte(a.body), &e); err != nil {
		s.tb.Fatalf("%v: %.200s", err, a.body)
	}
	return e
}

// Everything that log and state have of a user is in the export, nothing of another, and no secret.
func TestExport(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db database) {
		fay := authenticator{cast: map[string]string{}}
		s := newStack(t, db, options{document: true, identity: func(c *identity.Config) { c.Now, c.UserAttributes = fay.now, []string{"*"} }})
		adminID := s.user("admin@example.org", identity.RoleGranted{Role: identity.RoleAdmin})
		eveID := s.user("eve@example.org", verified("eve@example.org"))
		id := s.user("fay@example.org", verified("fay@example.org"))
		logIn := func(email, agent string, headers ...string) (tokens, answer) {
			a := s.call("POST", login, credentials(email, secret), append([]string{"User-Agent", agent}, headers...)...)
			return s.wantTokens(a), a
		}
		admin, _ := logIn("admin@example.org", "admin-browser")
		eve, _ := logIn("eve@example.org", "eve-browser")
		first, onPhone := logIn("fay@example.org", "fay-phone")
		phone := onPhone.header.Get("Usher-Device")
		fays, _ := logIn("fay@example.org", "fay-laptop")
		as := func(access, agent, method, path, body string, status int) answer {
			t.Helper()
			a := s.as(access, method, path, body, "User-Agent", agent)
			s.want(a, status, "")
			return a
		}
		as(fays.access, "fay-laptop", "PATCH", "/v1/me", `{"name":"Fay Wray","attributes":{"locale":"ar","city":"Bath"}}`, http.StatusOK)
		shop := s.client("shop")
		for client, scopes := range map[string][]string{shop.id.String(): {"openid", "email"}, uuid.NewString(): {"openid"}} {
			if _, err := s.identity.GiveConsent(t.Context(), id, client, scopes, eventstore.Metadata{Correlation: uuid.New(), Actor: identity.ActorUser(id)}); err != nil {
				t.Fatal(err)
			}
		}
		as(eve.access, "eve-browser", "PATCH", "/v1/me", `{"name":"Eve Secretive"}`, http.StatusOK)
		as(admin.access, "admin-browser", "PUT", "/v1/users/"+id.String()+"/roles/editor", "", http.StatusNoContent)
		as(first.access, "fay-phone", "POST", "/v1/auth/logout", "", http.StatusNoContent)
		fay.learn(as(fays.access, "fay-laptop", "POST", ownTOTP, proofBody(secret, ""), http.StatusOK).body)
		as(fays.access, "fay-laptop", "POST", confirmTOTP, fay.fill(t, body("code", "{one-time password}")), http.StatusNoContent)
		fay.learn(as(fays.access, "fay-laptop", "POST", recoveryCodes, fay.fill(t, proofBody(secret, "{one-time password}")), http.StatusOK).body)
		s.want(s.call("POST", login, credentials("fay@example.org", "wrong password")), http.StatusUnauthorized, identity.CodeInvalidCredentials)
		_, err := s.log.Append(t.Context(), eventstore.Append{ // as RecordFailures does
			Stream: eventstore.SessionStream(uuid.Must(uuid.NewV7()), id), Expected: eventstore.NoStream, Events: []eventstore.NewEvent{identity.NewEvent(identity.LoginFailed{Reason: identity.MethodPassword})},
			Metadata: eventstore.Metadata{Correlation: uuid.Must(uuid.NewV7()), Actor: identity.ActorAnonymous, Address: "192.0.2.66", UserAgent: "stranger"},
		})
		if err != nil {
			t.Fatal(err)
		}
		as(fays.access, "fay-laptop", "POST", ownEmail, fay.fill(t, proofBody(secret, "{one-time password}", "email", "fay@example.net")), http.StatusAccepted)
		mailed, _, err := s.identity.NewCode(t.Context(), id, identity.PurposeEmail)
		if err != nil {
			t.Fatal(err)
		}
		for _, sql := range []string{ // as other rooms write them
			`INSERT INTO mails (position, user_id, kind, due_at, attempts, claimed) VALUES (7, $1, 'new_device', $2, 1, false)`,
			`INSERT INTO devices (user_id, device, first_at, last_at) VALUES ($1, $3, $2, $2)`,
			`INSERT INTO imported_users (user_id, hash_mac, changed_at, status) VALUES ($1, $3, $2, 'active')`,
		} {
			args := []any{id, time.Now().UTC(), []byte("secret bytes")}
			if !strings.Contains(sql, "$3") {
				args = args[:2]
			}
			if _, err := s.db.Exec(t.Context(), sql, args...); err != nil {
				t.Fatal(err)
			}
		}
		later, _ := logIn("eve@example.org", "eve-tablet") // and what comes after is in nobody's way

		a := s.as(fays.access, "GET", ownExport, "", "User-Agent", "fay-laptop")
		e := s.exported(a)
		if got, want := a.header.Get("Content-Disposition"), `attachment; filename="usher-`; !strings.HasPrefix(got, want) {
			t.Errorf("Content-Disposition: %s", got)
		}
		if a.header.Get("Cache-Control") != "no-store" || a.header.Get("Content-Type") != "application/json" {
			t.Errorf("the header is %v", a.header)
		}
		events, err := s.log.ReadSubject(t.Context(), id, 0, 1000)
		if err != nil || len(e.Events) != len(events) {
			t.Fatalf("%d events, want %d: %v", len(e.Events), len(events), err)
		}
		for i, want := range events {
			got := e.Events[i]
			if got.Position != want.Position || got.Type != want.Type || got.Stream != want.Stream.ID || got.Version != want.Version || cmp.Diff(compact(t, want.Payload()), compact(t, got.Data)) != "" {
				t.Errorf("event %d is %+v, want %+v", i, got, want)
			}
			actor, address, agent := want.Metadata.Actor, want.Metadata.Address, want.Metadata.UserAgent
			if actor == identity.ActorUser(adminID) {
				actor, address, agent = "administrator", "", ""
			}
			if got.Metadata.Actor != actor || got.Metadata.Address != address || got.Metadata.UserAgent != agent {
				t.Errorf("%s is by %+v, want %s from %s with %s", got.Type, got.Metadata, actor, address, agent)
			}
		}
		for _, wanted := range []string{"fay@example.org", "fay@example.net", "Fay Wray", "fay-phone", "fay-laptop", "stranger", "127.0.0.1", `"administrator"`,
			"user.registered", "user.email_verified", "user.login_failed", "user.totp_enabled", "user.role_granted", "session.started", "session.ended", "user.email_change_requested"} {
			if !strings.Contains(a.body, wanted) {
				t.Errorf("the export lacks %q", wanted)
			}
		}
		if e.User.ID != id || e.User.Email != "fay@example.org" || e.User.Attributes["city"] != "Bath" || !slices.Equal(e.User.Roles, []string{"editor"}) {
			t.Errorf("the user is %+v", e.User)
		}
		if len(e.Sessions) != 1 || !e.Sessions[0].Current || e.Sessions[0].UserAgent != "fay-laptop" || e.Sessions[0].Address != "127.0.0.1" {
			t.Errorf("the sessions are %+v", e.Sessions)
		}
		slices.SortFunc(e.Consents, func(a, b consented) int { return strings.Compare(b.Name, a.Name) })
		if len(e.Consents) != 2 || e.Consents[0].Client != shop.id.String() || e.Consents[0].Name != "shop" || !slices.Equal(e.Consents[0].Scopes, []string{"email", "openid"}) || e.Consents[1].Name != "" {
			t.Errorf("the consents are %+v", e.Consents)
		}
		if len(e.Factors) != 2 || len(e.Devices) != 2 || len(e.Logins) != 1 || len(e.Codes) != 1 || e.Codes[0].Purpose != "email" || len(e.Mails) != 1 ||
			len(e.Throttle) != 1 || e.Import.Status != "active" || e.Password.ChangedAt.IsZero() || e.Position < events[len(events)-1].Position {
			t.Errorf("the state is %+v", e)
		}

		secrets := map[string]string{"the password": secret, "an access token": fays.access, "a refresh token": fays.refresh, "the device token": phone,
			"the TOTP secret": fay.cast["totp secret"], "a recovery code": fay.cast["first recovery code"], "a mailed code": string(mailed),
			"the administrator's id": adminID.String(), "the administrator": "admin", "another's id": eveID.String(), "another": "eve@", "another's name": "Secretive", "another's browser": "eve-", "another's token": later.refresh}
		for column, table := range map[string]string{"hash": "credentials", "secret": "factors", "wrapped": "user_keys", "client": "sessions", "device": "devices", "hash_mac": "imported_users"} {
			for i, value := range s.column(table, column, id) {
				for form, text := range map[string]string{"as it is": value, "in base64": base64.StdEncoding.EncodeToString([]byte(value)), "in hexadecimal": hex.EncodeToString([]byte(value))} {
					secrets[fmt.Sprintf("%s of %s, row %d, %s", column, table, i, form)] = text
				}
			}
		}
		if len(secrets) < 14+3*7 {
			t.Fatalf("only %d secrets are looked for", len(secrets))
		}
		whole := strings.ReplaceAll(a.body, `"administrator"`, "")
		for name, text := range secrets {
			if text == "" || strings.Contains(whole, text) {
				t.Errorf("the export has %s", name)
			}
		}
		if other := s.exported(s.as(eve.access, "GET", ownExport, "")); other.User.ID != eveID || len(other.Sessions) != 2 || len(other.Factors) != 0 {
			t.Errorf("another's export is %+v", other)
		}
	})
}

// column is what a table has of a user in a column.
func (s *stack) column(table, column string, user uuid.UUID) (list []string) {
	s.tb.Helper()
	rows, err := s.db.Query(s.tb.Context(), "SELECT "+column+" FROM "+table+" WHERE user_id = $1 AND "+column+" IS NOT NULL", user)
	if err != nil {
		s.tb.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var value []byte
		var text string
		if err := rows.Scan(&value); err != nil {
			if err = rows.Scan(&text); err != nil {
				s.tb.Fatal(err)
			}
			value = []byte(text)
		}
		list = append(list, string(value))
	}
	if err := rows.Err(); err != nil {
		s.tb.Fatal(err)
	}
	return list
}

func compact(t *testing.T, raw json.RawMessage) (v any) {
	t.Helper()
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// exportedTables are those with a column user_id, and where the export has what is in them. A new one belongs here, and in it.
var exportedTables = map[string]string{
	"credentials":     "password; the hashes are secret",
	"sessions":        "sessions; the counter is secret",
	"factors":         "factors; what they are made of is secret",
	"known_devices":   "devices",
	"devices":         "login_origins",
	"codes":           "codes; the hashes are secret",
	"mails":           "mails",
	"throttle":        "throttle",
	"imported_users":  "import; the hash is secret",
	"unadopted_roles": "user, as one of the roles",
	"admins":          "user, as the role admin",
	"device_requests": "nowhere: an answer that a device fetches within minutes; the session that it begins is there",
	"user_keys":       "nowhere: the key is secret",
}

func TestExportKnowsEveryTable(t *testing.T) {
	t.Parallel()
	db := openSQLite(t)
	rows, err := db.Query(t.Context(), `SELECT t.name FROM sqlite_schema t, pragma_table_info(t.name) c WHERE t.type = 'table' AND c.name = 'user_id'`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	n := 0
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			t.Fatal(err)
		}
		if n++; exportedTables[name] == "" {
			t.Errorf("the export does not say where it has what is in the table %s", name)
		}
	}
	if err := rows.Err(); err != nil || n != len(exportedTables) {
		t.Errorf("%d tables, %v, want %d", n, err, len(exportedTables))
	}
}

// A session that began lately is enough; an older one needs the password, which GET can't carry.
func TestExportNeedsAProof(t *testing.T) {
	t.Parallel()
	fay := authenticator{cast: map[string]string{}}
	s := newStack(t, openSQLite(t), options{document: true, identity: func(c *identity.Config) { c.Now = fay.now }})
	s.user("fay@example.org", verified("fay@example.org"))
	access := s.login("fay@example.org")
	s.want(s.call("GET", ownExport, ""), http.StatusUnauthorized, identity.CodeUnauthenticated)
	s.want(s.call("POST", ownExport, ""), http.StatusUnauthorized, identity.CodeUnauthenticated)
	s.want(s.as(access, "GET", ownExport+"?limit=1", ""), http.StatusBadRequest, identity.CodeInvalidRequest)
	s.exported(s.as(access, "GET", ownExport, ""))
	s.exported(s.as(access, "POST", ownExport, ""))
	fay.waited.Add(int64(16 * time.Minute))
	refused := s.as(access, "GET", ownExport, "")
	s.want(refused, http.StatusForbidden, identity.CodeForbidden)
	if !strings.Contains(refused.body, "current_password by POST") || strings.Contains(refused.body, "fay@") {
		t.Errorf("GET = %s", refused.body)
	}
	if head := s.as(access, "HEAD", ownExport, ""); head.status != http.StatusForbidden {
		t.Errorf("HEAD = %d", head.status)
	}
	s.want(s.as(access, "POST", ownExport, ""), http.StatusBadRequest, identity.CodeInvalidRequest)
	s.want(s.as(access, "POST", ownExport, proofBody("wrong password", "")), http.StatusUnauthorized, identity.CodeInvalidCredentials)
	s.exported(s.as(access, "POST", ownExport, proofBody(secret, "")))
	fay.learn(s.as(access, "POST", ownTOTP, proofBody(secret, "")).body)
	s.want(s.as(access, "POST", confirmTOTP, fay.fill(t, body("code", "{one-time password}"))), http.StatusNoContent, "")
	s.want(s.as(access, "POST", ownExport, proofBody(secret, "")), http.StatusUnauthorized, identity.CodeTOTPRequired)
	s.exported(s.as(access, "POST", ownExport, fay.fill(t, proofBody(secret, "{one-time password}"))))
	again := s.wantTokens(s.call("POST", login, fay.fill(t, loginWith("{one-time password}"))))
	s.exported(s.as(again.access, "GET", ownExport, ""))
}

// lengthen gives a user many events, more than an export reads at once.
func (s *stack) lengthen(user uuid.UUID, n int) {
	s.tb.Helper()
	events := make([]eventstore.NewEvent, n)
	for i := range events {
		events[i] = identity.NewEvent(identity.LoginFailed{Reason: identity.MethodPassword})
	}
	for part := range slices.Chunk(events, eventstore.MaxEvents) {
		_, err := s.log.Append(s.tb.Context(), eventstore.Append{
			Stream: eventstore.UserStream(user), Expected: eventstore.AnyVersion, Events: part,
			Metadata: eventstore.Metadata{Correlation: uuid.Must(uuid.NewV7()), Address: "192.0.2.7", UserAgent: "a browser"},
		})
		if err != nil {
			s.tb.Fatal(err)
		}
	}
}

// stream asks for an export, and answers with what came, and how that ended.
func (s *stack) stream(access string) (status int, body string, err error) {
	s.tb.Helper()
	r, err := http.NewRequestWithContext(s.tb.Context(), http.MethodGet, s.http.URL+ownExport, nil)
	if err != nil {
		s.tb.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+access)
	response, err := s.http.Client().Do(r)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	raw, err := io.ReadAll(response.Body)
	return response.StatusCode, string(raw), err
}

// An export is read in pages, however many events there are, and whole: what is appended meanwhile is not waited for. HEAD reads none.
func TestExportInPages(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, db database) {
		s := newStack(t, db, options{})
		ada := s.user("ada@example.org")
		access := s.login("ada@example.org")
		s.lengthen(ada, 1_234)
		var limits []int
		s.gate.subjects(func(limit int) error {
			if limits = append(limits, limit); len(limits) < 20 {
				s.lengthen(ada, 100) // which there would be no end of
			}
			return nil
		})
		if head := s.as(access, "HEAD", ownExport, ""); head.status != http.StatusOK || len(limits) > 0 {
			t.Errorf("HEAD = %d, after %d pages", head.status, len(limits))
		}
		e := s.exported(s.as(access, "GET", ownExport, ""))
		if len(limits) < 10 || len(limits) > 20 || slices.Max(limits) > 200 {
			t.Errorf("pages of at most %v events", limits)
		}
		if len(e.Events) < 1_234+2 || len(e.Events) > 1_234+10 || e.Events[len(e.Events)-1].Position != e.Position {
			t.Errorf("%d events", len(e.Events))
		}
		for i, event := range e.Events {
			if i > 0 && event.Position <= e.Events[i-1].Position {
				t.Fatalf("%d comes after %d", event.Position, e.Events[i-1].Position)
			}
		}
	})
}

// What ends in the middle does not look whole: the connection is cut where the session ends, the user is erased, or the log fails.
func TestExportBreaksOff(t *testing.T) {
	t.Parallel()
	s := newStack(t, openSQLite(t), options{})
	for name, breaks := range map[string]func(user uuid.UUID, access string) error{
		"log out": func(_ uuid.UUID, access string) error {
			s.want(s.as(access, "POST", "/v1/auth/logout", ""), http.StatusNoContent, "")
			return nil
		},
		"lock": func(user uuid.UUID, _ string) error {
			_, err := s.identity.LockUser(t.Context(), user, eventstore.Metadata{})
			return err
		},
		"erase": func(user uuid.UUID, _ string) error {
			_, err := s.identity.Erase(t.Context(), user, eventstore.Metadata{})
			return err
		},
		"failure": func(uuid.UUID, string) error { return errors.New("the disk is on fire") },
	} {
		email := strings.ReplaceAll(name, " ", "") + "@example.org"
		user := s.user(email)
		access := s.login(email)
		s.lengthen(user, 500)
		pages := 0
		s.gate.subjects(func(int) error {
			if pages++; pages == 2 {
				return breaks(user, access)
			}
			return nil
		})
		status, body, err := s.stream(access)
		if err == nil || status != 0 && status != http.StatusOK || json.Valid([]byte(body)) || pages > 3 {
			t.Errorf("%s: %d, %d bytes, %v, after %d pages", name, status, len(body), err, pages)
		}
		if strings.Contains(body, "on fire") {
			t.Errorf("%s: it says why", name)
		}
		s.gate.subjects(nil)
	}
	if logged := s.output.String(); !strings.Contains(logged, "the disk is on fire") {
		t.Error("a failure is not logged")
	}
}

// One export of a user at a time, and not too many of all.
func TestExportsAreBounded(t *testing.T) {
	t.Parallel()
	s := newStack(t, openSQLite(t), options{document: true, api: func(c *Config) { c.Exports.Most = 1 }})
	s.user("ada@example.org")
	access := s.login("ada@example.org")
	reached, goOn, done := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	s.gate.subjects(func(int) error {
		close(reached)
		<-goOn
		return nil
	})
	go func() {
		_, _, err := s.stream(access)
		done <- err
	}()
	receive(t, "the first export", reached)
	s.gate.subjects(nil)
	s.want(s.as(access, "GET", ownExport, ""), http.StatusTooManyRequests, identity.CodeThrottled)
	s.user("eve@example.org")
	eve := s.login("eve@example.org")
	s.want(s.as(eve, "GET", ownExport, ""), http.StatusServiceUnavailable, identity.CodeOverloaded)
	close(goOn)
	if err := receive(t, "the first export", done); err != nil {
		t.Error(err)
	}
	s.exported(s.as(eve, "GET", ownExport, ""))
	s.exported(s.as(access, "GET", ownExport, ""))
}
