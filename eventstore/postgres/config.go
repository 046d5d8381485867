package postgres

import (
	"errors"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// minConns are the connections that a process can't do with fewer of: who holds one in a transaction may need another.
const minConns = 2

// ErrBadURL: a connection string is not a URL of Postgres.
var ErrBadURL = errors.New("not a connection string of Postgres; expected postgres://user:password@host:5432/database")

// ParameterError: a parameter of a connection string has a value that can't be used.
type ParameterError struct{ Name string }

func (e *ParameterError) Error() string {
	return "the parameter " + e.Name + " of the connection string has a value that can't be used"
}

// parameters are those that pgx looks into.
var parameters = []string{"sslmode", "sslcert", "sslkey", "sslrootcert", "sslpassword", "sslsni", "sslcertmode", "sslnegotiation", "channel_binding",
	"require_auth", "connect_timeout", "target_session_attrs", "min_protocol_version", "max_protocol_version", "passfile", "service",
	"default_query_exec_mode", "statement_cache_capacity", "description_cache_capacity",
	"pool_max_conns", "pool_min_conns", "pool_min_idle_conns", "pool_max_conn_lifetime_jitter", "pool_max_conn_lifetime",
	"pool_max_conn_idle_time", "pool_health_check_period", "pool_ping_timeout"}

// ParseConfig reads a URL as libpq takes them: with one host or several, sockets by their directories in the place of the host or as
// the parameter host, and blanks around it as files of secrets have them. The parameters of pgx belong to it as well, those of
// its pool too. It fails with ErrBadURL or a *ParameterError; neither shows any of the URL.
//
// Every statement is sent the same way whatever default_query_exec_mode says, in binary and with the server's own types for its
// parameters, so that no query depends on the mode. What the mode says is whether statements may be kept by name: with
// cache_statement, which is the default, they are. With any other mode each is sent whole, in one exchange, and needs nothing of
// an earlier one; only its types are remembered, on this side.
func ParseConfig(dsn string) (*pgxpool.Config, error) {
	dsn = strings.TrimSpace(dsn)
	if scheme, _, _ := strings.Cut(dsn, "://"); scheme != "postgres" && scheme != "postgresql" {
		return nil, ErrBadURL
	}
	config, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return nil, mistake(err)
	}
	if config.MaxConns < minConns {
		return nil, &ParameterError{"pool_max_conns"}
	}
	c := config.ConnConfig
	if c.DefaultQueryExecMode != pgx.QueryExecModeCacheStatement || c.StatementCacheCapacity == 0 {
		c.DefaultQueryExecMode, c.StatementCacheCapacity = pgx.QueryExecModeCacheDescribe, 0
	}
	if c.DescriptionCacheCapacity == 0 {
		c.DescriptionCacheCapacity = descriptions
	}
	for name, value := range startup {
		c.RuntimeParams[name] = value
	}
	config.AfterConnect = prepareSession
	return config, nil
}

// mistake is what is wrong with a connection string, without any of it. The parser's error shows it, and has the reason behind it.
func mistake(err error) error {
	text := err.Error()
	reason := text[max(0, strings.LastIndex(text, "`: ")):]
	if strings.Contains(reason, "parse as URL") {
		return ErrBadURL
	}
	for _, name := range parameters {
		if strings.Contains(reason, name) {
			return &ParameterError{name}
		}
	}
	if strings.Contains(reason, "TLS") {
		return &ParameterError{"sslrootcert, sslcert or sslkey"} // a file that can't be read
	}
	return ErrBadURL
}

// descriptions is how many statements' types a connection remembers, which is pgx's own default.
const descriptions = 512

// poolMaxConns says whether a connection string has the parameter pool_max_conns itself.
func poolMaxConns(dsn string) bool {
	config, err := pgx.ParseConfig(strings.TrimSpace(dsn)) // which leaves what is for a pool among the parameters
	if err != nil {
		return false
	}
	_, given := config.RuntimeParams["pool_max_conns"]
	return given
}
