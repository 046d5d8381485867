package postgres_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"usher.example/eventstore/postgres"
)

// A connection string is taken in every form that a URL for libpq has, and with what pgx and its pool add.
func TestParseConfig(t *testing.T) {
	t.Parallel()
	for dsn, want := range map[string][]string{ // hosts
		"postgres://u:p@db.internal:5433/usher":                                      {"db.internal"},
		" postgres://u:p@db.internal/usher\r\n":                                      {"db.internal"},
		"postgresql://u:p@a:5432,b:5433/usher?target_session_attrs=read-write":       {"a", "b"},
		"postgres:///usher?host=/var/run/postgresql":                                 {"/var/run/postgresql"},
		"postgresql://%2Fvar%2Frun%2Fpostgresql/usher":                               {"/var/run/postgresql"},
		"postgres:///usher?host=/var/run/postgresql,/tmp&port=5432,5433":             {"/var/run/postgresql", "/tmp"},
		"postgres://u:p%23%3F%2F@[::1]:5432/usher?pool_max_conns=7":                  {"::1"},
		"postgres://u@h/usher?default_query_exec_mode=exec&connect_timeout=5":        {"h"},
		"postgres://u@h/usher?statement_cache_capacity=0&pool_max_conn_idle_time=1m": {"h"},
	} {
		config, err := postgres.ParseConfig(dsn)
		if err != nil {
			t.Errorf("ParseConfig(%q): %v", dsn, err)
			continue
		}
		hosts := []string{config.ConnConfig.Host}
		for _, f := range config.ConnConfig.Fallbacks {
			if !slices.Contains(hosts, f.Host) { // each host is tried with TLS and without
				hosts = append(hosts, f.Host)
			}
		}
		if !slices.Equal(hosts, want) {
			t.Errorf("ParseConfig(%q): hosts %q, want %q", dsn, hosts, want)
		}
	}
}

// What is wrong is named, and nothing of the connection string is shown.
func TestParseConfigRefuses(t *testing.T) {
	t.Parallel()
	const marker = "3xposed"
	for dsn, parameter := range map[string]string{
		"": "", marker: "", "host=h password=" + marker: "", "mysql://u:" + marker + "@h/db": "",
		"postgres://u:" + marker + "%zz@h/db?sslmode=disable": "", "postgres://u:p@h:" + marker + "/db": "",
		"postgres://u:" + marker + "@h/db?sslmode=" + marker:                 "sslmode",
		"postgres://u:" + marker + "@h/db?sslrootcert=/nowhere/" + marker:    "sslrootcert",
		"postgres://u:" + marker + "@h/db?target_session_attrs=" + marker:    "target_session_attrs",
		"postgres://u:" + marker + "@h/db?connect_timeout=" + marker:         "connect_timeout",
		"postgres://u:" + marker + "@h/db?default_query_exec_mode=" + marker: "default_query_exec_mode",
		"postgres://u:" + marker + "@h/db?pool_max_conns=" + marker:          "pool_max_conns",
		"postgres://u:" + marker + "@h/db?pool_max_conns=1":                  "pool_max_conns",
		"postgres://u:" + marker + "@h/db?pool_max_conn_lifetime=" + marker:  "pool_max_conn_lifetime",
	} {
		_, err := postgres.ParseConfig(dsn)
		var named *postgres.ParameterError
		switch {
		case parameter == "" && !errors.Is(err, postgres.ErrBadURL):
			t.Errorf("ParseConfig(%q): %v, want ErrBadURL", dsn, err)
		case parameter != "" && (!errors.As(err, &named) || !strings.Contains(named.Name, parameter)):
			t.Errorf("ParseConfig(%q): %v, want a ParameterError of %s", dsn, err, parameter)
		}
		if err != nil && strings.Contains(err.Error(), marker) {
			t.Errorf("ParseConfig shows the connection string: %v", err)
		}
	}
}

// The parameters of the pool are those of every process; DATABASE_MAX_CONNS is for those that have none.
func TestPoolParameters(t *testing.T) {
	t.Parallel()
	dsn := migrated(t)
	for parameter, want := range map[string]int32{"": 5, "&pool_max_conns=3": 3} {
		s := open(t, dsn+parameter, postgres.Options{MaxConns: 5})
		if got := s.Stat().MaxConns(); got != want {
			t.Errorf("with %q: %d connections, want %d", parameter, got, want)
		}
	}
}
