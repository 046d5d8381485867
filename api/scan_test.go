package api

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"usher/eventstore"
)

// scanForSecrets searches everything but the state tables for every secret that was used: there is none. It searches
// the state tables first, where the hashes are, which proves that the search finds what is there.
func scanForSecrets(t *testing.T, s *stack, c map[string]string) {
	t.Helper()
	secrets := []string{secret, strings.Repeat("пароль", 80), "wrong password", newSecret}
	for name, value := range c {
		if signature := value[strings.LastIndexByte(value, '.')+1:]; strings.HasSuffix(name, "'s token") && len(signature) > 40 {
			secrets = append(secrets, value, signature)
		}
		if strings.HasSuffix(name, " code") {
			secrets = append(secrets, value)
		}
	}
	private, err := s.key.MarshalPrivate()
	if err != nil {
		t.Fatal(err)
	}
	secrets = append(secrets, string(private), hex.EncodeToString(private), base64.StdEncoding.EncodeToString(private))
	hashes := 0
	for _, row := range dump(t, s.db, "SELECT hash FROM credentials") {
		secrets = append(secrets, row, row[strings.LastIndexByte(row, '$')+1:])
		hashes++
	}
	if hashes < 5 {
		t.Fatalf("%d hashes in the state table: the search finds nothing", hashes)
	}
	metrics := httptest.NewRecorder()
	promhttp.HandlerFor(s.server.Registry, promhttp.HandlerOpts{}).ServeHTTP(metrics, httptest.NewRequest("GET", "/metrics", nil))
	if !strings.Contains(metrics.Body.String(), `usher_logins_total{outcome="ok"}`) {
		t.Fatal("the metrics lack the logins")
	}
	places := map[string]string{
		"log output": s.output.String(),
		"metrics":    metrics.Body.String(),
		"read model": strings.Join(dump(t, s.db, "SELECT * FROM users_live"), "\n"),
		"codes":      strings.Join(dump(t, s.db, "SELECT * FROM codes"), "\n"),
		"event log":  strings.Join(dump(t, s.db, "SELECT * FROM events"), "\n"),
	}
	events, err := s.log.ReadAll(t.Context(), 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events {
		places["opened events"] += fmt.Sprintf("%s %+v\n", e.Payload(), e.Metadata)
	}
	if !strings.Contains(places["read model"], "ada@example.org") || !strings.Contains(places["opened events"], "ada@example.org") {
		t.Fatal("the search does not find what is there")
	}
	if strings.Contains(places["event log"], "ada@example.org") || strings.Contains(places["log output"], "ada@example.org") {
		t.Error("an address is stored or logged in the clear")
	}
	for place, text := range places {
		for _, secret := range secrets {
			if strings.Contains(text, secret) {
				t.Errorf("%s: has a secret that begins with %.4s", place, secret)
			}
		}
	}
}

// dump reads a table's rows as text, whatever its columns are.
func dump(t *testing.T, db database, query string) []string {
	t.Helper()
	if db.Dialect() == eventstore.Postgres {
		query = "SELECT row_to_json(t)::text FROM (" + query + ") t"
	} else {
		table := query[strings.LastIndexByte(query, ' ')+1:]
		var columns []string
		scan(t, db, "SELECT name FROM pragma_table_info('"+table+"')", &columns)
		if !strings.Contains(query, "*") {
			columns = []string{strings.Fields(query)[1]}
		}
		for i, name := range columns {
			columns[i] = "coalesce(CAST(" + name + " AS TEXT), '')"
		}
		query = "SELECT " + strings.Join(columns, " || ' ' || ") + " FROM " + table
	}
	var list []string
	scan(t, db, query, &list)
	for i, text := range list {
		if field, ok := strings.CutPrefix(text, `{"hash":"`); ok {
			list[i] = strings.TrimSuffix(field, `"}`)
		}
	}
	return list
}

func scan(t *testing.T, db database, query string, into *[]string) {
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
		*into = append(*into, text)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
}
