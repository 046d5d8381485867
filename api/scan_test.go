package api

import (
	"encoding/base32"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"usher.example/eventstore"
	"usher.example/internal/devstack"
	"usher.example/projections"
	"usher.example/publisher"
)

// scanForSecrets searches every table, what is published, the log output and the metrics for every secret that was used,
// in every form: there is none. The hashes of passwords are among the secrets, and where they are the search finds them.
func scanForSecrets(t *testing.T, s *stack, c map[string]string) {
	secrets := map[string]string{"the password": secret, "a long password": strings.Repeat("пароль", 80), "a wrong password": "wrong password", "a new password": newSecret}
	for name, value := range c {
		if signature := value[strings.LastIndexByte(value, '.')+1:]; strings.HasSuffix(name, "'s token") && len(signature) > 40 {
			secrets[name], secrets[name+", its signature"] = value, signature
		}
		if strings.HasSuffix(name, " code") || strings.HasSuffix(name, " secret") || strings.HasSuffix(name, " refresh token") {
			secrets[name] = value
		}
	}
	for _, name := range []string{"vera's verify code", "totp secret", "first recovery code", "last refresh token"} {
		if secrets[name] == "" {
			t.Fatalf("there is no %s to search for", name)
		}
	}
	for _, form := range []string{"first recovery code", "second recovery code", "last recovery code"} {
		secrets[form+", without hyphens"] = strings.ReplaceAll(secrets[form], "-", "")
	}
	raw, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(secrets["totp secret"])
	if err != nil {
		t.Fatal(err)
	}
	secrets["the TOTP key"] = string(raw)
	private, err := s.key.MarshalPrivate()
	if err != nil {
		t.Fatal(err)
	}
	secrets["the signing key"] = string(private)
	hashes := dump(t, s.db, "credentials", "hash")
	if len(hashes) < 5 {
		t.Fatalf("%d hashes in the state table: the search finds nothing", len(hashes))
	}
	for i, hash := range hashes {
		secrets[fmt.Sprintf("hash %d", i)] = hash[strings.LastIndexByte(hash, '$')+1:]
	}

	metrics := httptest.NewRecorder()
	promhttp.HandlerFor(s.server.Registry, promhttp.HandlerOpts{}).ServeHTTP(metrics, httptest.NewRequest("GET", "/metrics", nil))
	places := map[string]string{
		"the log output": s.output.String(), "the metrics": metrics.Body.String(), "the JetStream stream": published(t, s),
		"the read model": strings.Join(dump(t, s.db, projections.ViewName(s.db.Dialect(), projections.UsersName), "*"), "\n"),
	}
	for _, table := range tables(t, s.db) {
		places["the table "+table] = strings.Join(dump(t, s.db, table, "*"), "\n")
	}
	for place, text := range map[string]string{
		"the metrics": `usher_logins_total{outcome="ok"}`, "the read model": "ada@example.org", "the JetStream stream": "ada@example.org",
		"the log output": "request", "the table credentials": secrets["hash 0"],
	} {
		if !strings.Contains(places[place], text) {
			t.Errorf("%s lacks %q: the search does not find what is there", place, text)
		}
	}
	for place, text := range places {
		for name, value := range secrets {
			for _, form := range []string{value, hex.EncodeToString([]byte(value)), base64.RawStdEncoding.EncodeToString([]byte(value)), base64.RawURLEncoding.EncodeToString([]byte(value))} {
				if strings.Contains(text, form) && (place != "the table credentials" || !strings.HasPrefix(name, "hash ")) {
					t.Errorf("%s has %s, which begins with %.4q", place, name, value)
				}
			}
		}
		if strings.HasPrefix(place, "the table events") && strings.Contains(text, "ada@example.org") {
			t.Errorf("%s has an address in the clear", place)
		}
	}
	if strings.Contains(places["the log output"], "ada@example.org") {
		t.Error("an address is logged")
	}
}

// published is the whole log as the relay publishes it.
func published(t *testing.T, s *stack) string {
	t.Helper()
	conn, err := devstack.NATS(t).Connect()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	relay, err := publisher.New(publisher.Config{Log: s.log, DB: s.db, Conn: conn, Source: "https://usher.test", ScrubEvery: -1})
	if err != nil {
		t.Fatal(err)
	}
	if err := relay.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(t.Context(), publisher.DefaultStream)
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for position := range s.head() {
		m, err := stream.GetMsg(t.Context(), uint64(position+1))
		if err != nil {
			continue // of somebody who was erased
		}
		fmt.Fprintf(&text, "%s %v %s\n", m.Subject, m.Header, m.Data)
	}
	return text.String()
}

// tables are the names of all tables.
func tables(t *testing.T, db database) []string {
	t.Helper()
	query := "SELECT name FROM sqlite_master WHERE type = 'table'"
	if db.Dialect() == eventstore.Postgres {
		query = "SELECT oid::regclass::text FROM pg_class WHERE relkind = 'r' AND relnamespace IN ('public'::regnamespace, 'readmodels'::regnamespace)"
	}
	return texts(t, db, query)
}

// dump reads a column of a table, or all of them for *, as text.
func dump(t *testing.T, db database, table, column string) []string {
	t.Helper()
	if db.Dialect() == eventstore.Postgres {
		if column == "*" {
			return texts(t, db, "SELECT row_to_json(t)::text FROM "+table+" t")
		}
		return texts(t, db, "SELECT "+column+"::text FROM "+table)
	}
	columns := []string{column}
	if column == "*" {
		columns = texts(t, db, "SELECT name FROM pragma_table_info('"+table+"')")
	}
	for i, name := range columns {
		columns[i] = `coalesce(CAST("` + name + `" AS TEXT), '')`
	}
	return texts(t, db, "SELECT "+strings.Join(columns, " || ' ' || ")+" FROM "+table)
}

func texts(t *testing.T, db database, query string) (list []string) {
	t.Helper()
	rows, err := db.Query(t.Context(), query)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var text string
		if err := rows.Scan(&text); err != nil {
			t.Fatal(err)
		}
		list = append(list, text)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return list
}
