package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	netmail "net/mail"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/joho/godotenv"
	"github.com/kelseyhightower/envconfig"

	"usher.example/api"
	"usher.example/eventstore"
	"usher.example/eventstore/postgres"
	"usher.example/identity"
	"usher.example/identity/mail"
	"usher.example/identity/password"
)

// config is every setting. This file is the only reader of the environment; deploy/settings.md is made from the tags.
// The tag expect says what a value has to look like: a bad value is answered with it and never echoed, because what was
// mistyped may be a secret.
type config struct {
	DatabaseURL      secret `envconfig:"DATABASE_URL" expect:"postgres://user:password@host:5432/database" about:"The Postgres database. Needed outside of dev."`
	DatabaseMaxConns int    `envconfig:"DATABASE_MAX_CONNS" default:"20" expect:"a whole number from 2 to 1000" about:"Connections to it from one process; commits have one more of their own."`
	MasterKey        secret `envconfig:"MASTER_KEY" expect:"32 bytes in base64 or hexadecimal; two such, separated by a comma, while one takes the place of the other" about:"Wraps the users' data keys and seals secrets. Losing it loses all personal data. Needed outside of dev, or one of the two that follow."`
	MasterKeyFile    string `envconfig:"MASTER_KEY_FILE" expect:"the path of a readable file" about:"A file that has what MASTER_KEY would."`
	MasterKeyCommand string `envconfig:"MASTER_KEY_COMMAND" expect:"a program and its arguments, separated by spaces" about:"A program that prints what MASTER_KEY would, for example one that has a key service open it. It is run at each start, without a shell, and has half a minute."`

	NATSURL      secret `envconfig:"NATS_URL" expect:"nats://host:4222, several separated by commas" about:"The NATS servers. Needed by publisher, projections and webhooks."`
	NATSCreds    string `envconfig:"NATS_CREDS" expect:"the path of a readable file" about:"A credentials file for them."`
	NATSReplicas int    `envconfig:"NATS_REPLICAS" default:"1" expect:"1, 3 or 5" about:"Copies of the JetStream stream that the cluster keeps."`

	StreamPersonal   string `envconfig:"STREAM_PERSONAL" default:"open" expect:"open or omit" about:"Whether published events, and those sent to webhooks, carry personal fields."`
	StreamMaxAgeDays int    `envconfig:"STREAM_MAX_AGE_DAYS" default:"0" expect:"a whole number of days, 0 for no limit" about:"How long the JetStream stream keeps events. The log keeps them all."`
	StreamMaxBytes   int64  `envconfig:"STREAM_MAX_BYTES" default:"-1" expect:"a number of bytes, -1 for no limit" about:"How large the JetStream stream may grow before it drops its oldest events."`

	OutboxAutoProcess    bool   `envconfig:"OUTBOX_AUTO_PROCESS" default:"false" expect:"true or false" about:"Whether usher serve runs the relay too."`
	OutboxBatchSize      int    `envconfig:"OUTBOX_BATCH_SIZE" default:"100" expect:"a whole number from 1 to 10000" about:"Events that the relay reads at once when few are waiting. A backlog is read in larger batches."`
	OutboxOnRestore      string `envconfig:"OUTBOX_ON_RESTORE" default:"halt" expect:"halt or follow" about:"What the relay does when the log is another one than was published, as after a restore or a failover that lost events: halt until usher outbox reset, or follow: publish what the log has now, set durable consumers back to where the two part, and tell subscribers by log.restored. See deploy/backup.md."`
	OutboxIntervalSecond int    `envconfig:"OUTBOX_PROCESSING_INTERVAL_SECONDS" default:"30" expect:"a whole number of seconds, at least 1" about:"The relay's fallback poll, for when no commit wakes it."`

	WebhookTimeout    int      `envconfig:"OUTBOX_WEBHOOK_TIMEOUT_SECONDS" default:"30" expect:"a whole number of seconds from 1 to 300" about:"How long one attempt to deliver to a webhook may take, from the connection to the answer."`
	WebhookRetries    int      `envconfig:"OUTBOX_WEBHOOK_MAX_RETRIES" default:"3" expect:"a whole number from 0 to 100" about:"Attempts to deliver an event to a webhook after the first. Then it is a dead letter, until it is redriven."`
	WebhookRetryDelay int      `envconfig:"OUTBOX_RETRY_DELAY_SECONDS" default:"60" expect:"a whole number of seconds from 1 to 43200" about:"How long after the first attempt the second comes. Each wait after it is twice as long as the one before, up to 12 hours, and all are up to a quarter longer at random. A Retry-After of the endpoint counts where it is longer, up to an hour."`
	WebhookInARow     int      `envconfig:"OUTBOX_MAX_RETRY_ATTEMPTS" default:"3" expect:"a whole number from 1 to 1000" about:"Deliveries to a webhook that may run out of attempts in a row before its endpoint, which is given up to 8 requests at once, gets one at a time, until one succeeds."`
	WebhookAllow      []string `envconfig:"WEBHOOK_ALLOW" expect:"networks in CIDR form separated by commas" about:"Networks that webhooks may reach although they are not public, and without TLS. In usher dev, this machine is among them."`

	HTTPAddr    string `envconfig:"HTTP_ADDR" default:":8080" expect:"host:port or :port" about:"Where the API listens."`
	MetricsAddr string `envconfig:"METRICS_ADDR" expect:"host:port or :port" about:"Where /metrics listens. Unless set, serve listens on :9090, and publish, project and webhooks run don't."`
	PublicURL   string `envconfig:"PUBLIC_URL" default:"http://localhost:8080" expect:"an http or https URL without a path" about:"Where clients reach the API. The ce-source of published events. Set it wherever others than this machine are to use usher: mails, tokens and events name it."`
	AccountURL  string `envconfig:"ACCOUNT_URL" expect:"an http or https URL" about:"Where the pages are that mails link to, under /account: those of your application. PUBLIC_URL when not set."`

	JWTSecretKey     secret   `envconfig:"JWT_SECRET_KEY" expect:"at least 32 bytes" about:"Signs access tokens with HS256, and is needed for that only; the keys of other algorithms are made. All are kept sealed in the database: after a change, tokens of the key before are good until they expire."`
	JWTAlgorithm     string   `envconfig:"JWT_ALGORITHM" default:"ES256" expect:"ES256, EdDSA, RS256 or HS256" about:"Signs access tokens. After a change, tokens of the key before are good until they expire; usher keys rotate changes it in steps."`
	JWTAccessMinutes int      `envconfig:"JWT_ACCESS_TOKEN_EXPIRE_MINUTES" default:"30" expect:"a whole number of minutes from 1 to 1440" about:"How long an access token lives."`
	JWTRefreshDays   int      `envconfig:"JWT_REFRESH_TOKEN_EXPIRE_DAYS" default:"7" expect:"a whole number of days from 1 to 3650" about:"How long a session lasts without a refresh."`
	JWTReuseGrace    int      `envconfig:"JWT_REFRESH_REUSE_GRACE_SECONDS" default:"10" expect:"a whole number of seconds from 0 to 300" about:"How long a refresh token that was replaced gets the same successor again, whatever is known of that. After that it does so until the successor, or the access token that came with it, was used here: a reply that was lost may be asked for again. An older one ends the session."`
	JWTIssuer        string   `envconfig:"JWT_ISSUER" expect:"a URL or a name" about:"The claim iss, and the issuer of the server metadata. PUBLIC_URL when not set."`
	JWTAudience      []string `envconfig:"JWT_AUDIENCE" default:"usher" expect:"names separated by commas" about:"The claim aud; the first is what usher itself expects."`
	SessionMaxDays   int      `envconfig:"SESSION_MAX_DAYS" default:"90" expect:"a whole number of days from 1 to 3650" about:"How long a session lasts at most, however often it is refreshed."`

	BcryptRounds       int      `envconfig:"BCRYPT_ROUNDS" default:"12" expect:"a whole number from 4 to 15" about:"The cost of new password hashes; each step doubles it."`
	RehashCheck        bool     `envconfig:"PASSWORD_REHASH_CHECK" default:"true" expect:"true or false" about:"Whether a login replaces a hash of another cost or scheme."`
	PasswordPolicy     string   `envconfig:"PASSWORD_POLICY_TYPE" default:"default" expect:"lenient, default or strict" about:"Which new passwords are accepted. lenient looks at the length only; default follows NIST SP 800-63B, and refuses common passwords, patterns, and such as are made of the user's address or name; strict also asks for 12 characters of three kinds, and for another than the last five."`
	PasswordMinLength  int      `envconfig:"PASSWORD_MIN_LENGTH" default:"8" expect:"a whole number from 1 to 128" about:"The shortest password, in characters. At least 12 with the strict policy."`
	PasswordWords      []string `envconfig:"PASSWORD_FORBIDDEN_WORDS" expect:"words of at least 4 characters, separated by commas" about:"Words that no password may be made of, such as the organisation's name. The word usher always is one. Not for the lenient policy."`
	PasswordHistory    int      `envconfig:"PASSWORD_HISTORY" default:"0" expect:"a whole number from 0 to 24" about:"How many passwords of a user, the present one first, a new one must differ from; each costs a new password one more hash. At least 5 with the strict policy."`
	PasswordMaxAgeDays int      `envconfig:"PASSWORD_MAX_AGE_DAYS" default:"0" expect:"a whole number of days, 0 for no limit" about:"How long a password may be used before its user has to set another, by a code from a mail. Only logins ask."`
	HashWorkers        int      `envconfig:"PASSWORD_HASH_WORKERS" default:"0" expect:"a whole number, 0 for one a processor" about:"Threads that hash passwords, beside those that serve requests."`
	EnumerationSafe    bool     `envconfig:"ENUMERATION_SAFE_REGISTRATION" default:"false" expect:"true or false" about:"Whether registering a taken address is answered as if it were free; its owner is mailed. A login tells no more: it needs a verified address (see LOGIN_NEEDS_VERIFIED_EMAIL, which this implies), and without one answers as with a wrong password, while the code is mailed again."`
	LoginNeedsVerified bool     `envconfig:"LOGIN_NEEDS_VERIFIED_EMAIL" default:"false" expect:"true or false" about:"Whether a login needs a verified address. Without one it is answered with email_not_verified. Users need mail for that, or an administrator: see SMTP_URL."`

	RateLimits     string   `envconfig:"RATE_LIMITS" default:"on" expect:"on or off" about:"Whether one network (an IPv4 address, or the /64 of an IPv6 one) that fails to log in 100 times in five minutes is slowed down to one attempt in two seconds, and one that asks too often for what needs no access token is refused, as is a user who makes changes too often. An account is slowed down after four failures in a row, whatever this says."`
	AllowedOrigins []string `envconfig:"CORS_ALLOWED_ORIGINS" expect:"origins such as https://app.example.org, separated by commas" about:"Origins whose pages may call the API from a browser, each in full. None unless it is set, which is right where only servers call it."`
	TrustedProxies []string `envconfig:"TRUSTED_PROXIES" expect:"networks in CIDR form, separated by commas" about:"Proxies whose X-Forwarded-For says who the client is, and whose X-Request-Id and traceparent are believed. Without it the client is whoever connects."`

	ErasureLedger string `envconfig:"ERASURE_LEDGER" expect:"the path of a file in a directory that exists" about:"A file, outside the database and shared by every process, that records who was erased. It is applied at each start, so that a restored backup brings nobody back."`

	UserAttributes []string `envconfig:"USER_ATTRIBUTES" expect:"names separated by commas, or * for all" about:"The attributes that users may set themselves. The others are for administrators to set."`

	SMTPURL  secret `envconfig:"SMTP_URL" expect:"smtp://user:password@host:587 or smtps://user:password@host:465" about:"The mail server. Unless it is set, serve sends no mail, and dev shows mails in the log. See deploy/mail.md."`
	SMTPTLS  string `envconfig:"SMTP_TLS" expect:"required, optional or off" about:"Whether nothing is sent to smtp://… without STARTTLS, or TLS is used where the server offers it, or never. required when not set, but optional to a server on this machine."`
	MailFrom string `envconfig:"MAIL_FROM" expect:"an address, with or without a name: usher <no-reply@example.org>" about:"Whom mails come from. no-reply@ the host of PUBLIC_URL when not set."`

	AdminEmail    string `envconfig:"ADMIN_EMAIL" expect:"an email address" about:"The first administrator, made at the first start."`
	AdminPassword secret `envconfig:"ADMIN_PASSWORD" expect:"a password that the policy accepts" about:"The first administrator's password."`

	LogLevel  slog.Level `envconfig:"LOG_LEVEL" default:"info" expect:"debug, info, warn or error" about:"The least severe messages that are logged."`
	LogFormat string     `envconfig:"LOG_FORMAT" default:"text" expect:"text or json" about:"The form of the log, on standard error."`

	sources map[string]string // of the settings' values, by name
}

// defaultPublicURL is PUBLIC_URL unless it is set; see its tag.
const defaultPublicURL = "http://localhost:8080"

// maxBatch is the most that OUTBOX_BATCH_SIZE may be.
const maxBatch = 10000

// secret is a setting that nothing prints.
type secret string

func (s secret) String() string {
	if s == "" {
		return ""
	}
	return "[hidden]"
}
func (s secret) GoString() string     { return s.String() }
func (s secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// shown is what of a secret may be shown: of addresses, everything but what lets somebody in, so that one sees which database
// it is. What is not surely understood is hidden whole.
func (s secret) shown() string {
	if !strings.Contains(string(s), "://") {
		return s.String()
	}
	list := strings.Split(string(s), ",")
	for i, address := range list {
		scheme, rest, found := strings.Cut(address, "://")
		if !found {
			if i == 0 || strings.ContainsAny(address, "@?#") { // one more host of the address before
				return s.String()
			}
			continue
		}
		end := strings.IndexAny(rest, "/?#")
		if end < 0 {
			end = len(rest)
		}
		who, host, named := strings.Cut(rest[:end], "@")
		if strings.ContainsAny(host, "@") || strings.ContainsAny(rest[end:], "@#") {
			return s.String()
		}
		user, _, both := strings.Cut(who, ":")
		switch {
		case !named:
			who, host = "", who
		case both:
			who = user + ":" + s.String() + "@"
		case strings.HasPrefix(scheme, "postgres"):
			who = user + "@"
		default: // to NATS it is a token
			who = s.String() + "@"
		}
		path, query, asked := strings.Cut(rest[end:], "?")
		if asked {
			path += "?" + s.shownQuery(query)
		}
		list[i] = scheme + "://" + who + host + path
	}
	return strings.Join(list, ",")
}

// shownQuery is what of an address's parameters may be shown.
func (s secret) shownQuery(query string) string {
	pairs := strings.Split(query, "&")
	for i, pair := range pairs {
		name, _, _ := strings.Cut(pair, "=")
		if decoded, err := url.QueryUnescape(name); err != nil || strings.Contains(strings.ToLower(decoded), "password") {
			pairs[i] = name + "=" + s.String()
		}
	}
	return strings.Join(pairs, "&")
}

// errUse is a mistake in how usher was called: exit code 2.
var errUse = errors.New("wrong use")

// Where the value of a setting comes from.
const (
	fromEnvironment = "environment"
	fromFile        = ".env"
	fromDefault     = "default"
	notSet          = "not set"
)

// loadConfig reads .env, where there is one, and the environment, which wins over it. It fails with every setting named that
// has a bad value, and answers with the others then.
func loadConfig() (*config, error) {
	c := config{sources: map[string]string{}}
	file, err := godotenv.Read(".env")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		// The parser's error holds the line, and with it maybe a secret.
		return nil, errors.New(".env can't be read; expected lines of the form NAME=value")
	}
	for name, value := range file {
		if _, set := os.LookupEnv(name); !set {
			c.sources[name] = fromFile
			if err := os.Setenv(name, value); err != nil {
				return nil, fmt.Errorf("%s of .env can't be set: %w", name, err)
			}
		}
	}
	bad := map[string]bool{}
	for err := envconfig.Process("", &c); err != nil; err = envconfig.Process("", &c) {
		var parse *envconfig.ParseError
		if !errors.As(err, &parse) || bad[parse.KeyName] {
			return nil, fmt.Errorf("read the settings: %w", err)
		}
		bad[parse.KeyName] = true
		if err := os.Unsetenv(parse.KeyName); err != nil { // so that the others are looked at too
			return nil, badSetting(parse.KeyName)
		}
	}
	for _, s := range c.settings() {
		_, set := os.LookupEnv(s.Name)
		switch {
		case c.sources[s.Name] == fromFile:
		case set:
			c.sources[s.Name] = fromEnvironment
		case s.Default != "":
			c.sources[s.Name] = fromDefault
		default:
			c.sources[s.Name] = notSet
		}
	}
	for _, value := range []*secret{&c.DatabaseURL, &c.MasterKey, &c.NATSURL, &c.SMTPURL} {
		*value = secret(strings.TrimSpace(string(*value))) // files of secrets end in a line break
	}
	if c.JWTIssuer == "" {
		c.JWTIssuer, c.sources["JWT_ISSUER"] = c.PublicURL, "PUBLIC_URL"
	}
	if c.AccountURL == "" {
		c.AccountURL, c.sources["ACCOUNT_URL"] = c.PublicURL, "PUBLIC_URL"
	}
	return &c, c.check(bad)
}

// collectorChosen says whether whoever started the process chose when garbage is collected.
func collectorChosen() bool {
	_, chosen := os.LookupEnv("GOGC")
	return chosen
}

// memoryChosen says whether whoever started the process chose how much memory it may have.
func memoryChosen() bool {
	_, chosen := os.LookupEnv("GOMEMLIMIT")
	return chosen
}

// tracingChosen says whether the standard variables of OpenTelemetry name a collector.
func tracingChosen() bool {
	if os.Getenv("OTEL_SDK_DISABLED") == "true" || os.Getenv("OTEL_TRACES_EXPORTER") == "none" {
		return false
	}
	return os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT") != "" || os.Getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") != ""
}

// setting is one field of the config, as its tags describe it.
type setting struct {
	Name, Default, Expect, About string
	Value                        any    // of a secret, what may be shown
	Source                       string // where it comes from
	Secret                       bool
}

// settings lists every setting in the order of the config.
func (c *config) settings() []setting {
	v := reflect.ValueOf(c).Elem()
	var list []setting
	for i := range v.NumField() {
		field := v.Type().Field(i)
		name, is := field.Tag.Lookup("envconfig")
		if !is {
			continue
		}
		value := v.Field(i).Interface()
		hidden, isSecret := value.(secret)
		if isSecret {
			value = hidden.shown()
		}
		list = append(list, setting{name, field.Tag.Get("default"), field.Tag.Get("expect"), field.Tag.Get("about"), value, c.sources[name], isSecret})
	}
	return list
}

func badSetting(name string) error {
	for _, s := range new(config).settings() {
		if s.Name == name {
			return fmt.Errorf("%s has a bad value; expected %s", name, s.Expect)
		}
	}
	return fmt.Errorf("%s has a bad value", name)
}

// check names every setting whose value can't be used, those among them that are known to be bad.
func (c *config) check(bad map[string]bool) error {
	var errs []error
	for name := range bad {
		errs = append(errs, badSetting(name))
	}
	for name, ok := range map[string]bool{
		"DATABASE_URL":                       c.DatabaseURL == "" || validDatabase(string(c.DatabaseURL)),
		"DATABASE_MAX_CONNS":                 within(c.DatabaseMaxConns, 2, 1000),
		"MASTER_KEY":                         c.MasterKey == "" || validMasterKey(string(c.MasterKey)),
		"MASTER_KEY_FILE":                    c.MasterKeyFile == "" || readable(c.MasterKeyFile),
		"NATS_URL":                           c.NATSURL == "" || validServers(string(c.NATSURL)),
		"NATS_CREDS":                         c.NATSCreds == "" || readable(c.NATSCreds),
		"NATS_REPLICAS":                      slices.Contains([]int{1, 3, 5}, c.NATSReplicas),
		"OUTBOX_ON_RESTORE":                  slices.Contains([]string{"halt", "follow"}, c.OutboxOnRestore),
		"STREAM_PERSONAL":                    slices.Contains([]string{"open", "omit"}, c.StreamPersonal),
		"STREAM_MAX_AGE_DAYS":                c.StreamMaxAgeDays >= 0,
		"STREAM_MAX_BYTES":                   c.StreamMaxBytes == -1 || c.StreamMaxBytes > 0,
		"OUTBOX_BATCH_SIZE":                  within(c.OutboxBatchSize, 1, maxBatch),
		"OUTBOX_PROCESSING_INTERVAL_SECONDS": c.OutboxIntervalSecond >= 1,
		"OUTBOX_WEBHOOK_TIMEOUT_SECONDS":     within(c.WebhookTimeout, 1, 300),
		"OUTBOX_WEBHOOK_MAX_RETRIES":         within(c.WebhookRetries, 0, 100),
		"OUTBOX_RETRY_DELAY_SECONDS":         within(c.WebhookRetryDelay, 1, 43200),
		"OUTBOX_MAX_RETRY_ATTEMPTS":          within(c.WebhookInARow, 1, 1000),
		"WEBHOOK_ALLOW":                      validNetworks(c.WebhookAllow),
		"HTTP_ADDR":                          validAddr(c.HTTPAddr),
		"METRICS_ADDR":                       c.MetricsAddr == "" || validAddr(c.MetricsAddr),
		"PUBLIC_URL":                         validPublicURL(c.PublicURL),
		"ACCOUNT_URL":                        c.AccountURL == c.PublicURL || validAccountURL(c.AccountURL),
		"JWT_SECRET_KEY":                     c.JWTSecretKey == "" || len(c.JWTSecretKey) >= 32,
		"JWT_ALGORITHM":                      slices.Contains([]string{"ES256", "EdDSA", "RS256", "HS256"}, c.JWTAlgorithm),
		"JWT_ACCESS_TOKEN_EXPIRE_MINUTES":    within(c.JWTAccessMinutes, 1, 1440),
		"JWT_REFRESH_TOKEN_EXPIRE_DAYS":      within(c.JWTRefreshDays, 1, 3650),
		"JWT_REFRESH_REUSE_GRACE_SECONDS":    within(c.JWTReuseGrace, 0, 300),
		"JWT_AUDIENCE":                       len(c.JWTAudience) > 0 && !slices.Contains(c.JWTAudience, ""),
		"SESSION_MAX_DAYS":                   within(c.SessionMaxDays, 1, 3650),
		"BCRYPT_ROUNDS":                      within(c.BcryptRounds, password.MinCost, password.MaxCost),
		"PASSWORD_POLICY_TYPE":               validPolicy(password.PolicyConfig{Type: c.PasswordPolicy}),
		"PASSWORD_MIN_LENGTH":                within(c.PasswordMinLength, 1, 128),
		"PASSWORD_FORBIDDEN_WORDS":           validPolicy(password.PolicyConfig{Words: c.PasswordWords}),
		"PASSWORD_HISTORY":                   validPolicy(password.PolicyConfig{History: c.PasswordHistory}),
		"PASSWORD_MAX_AGE_DAYS":              c.PasswordMaxAgeDays >= 0,
		"PASSWORD_HASH_WORKERS":              within(c.HashWorkers, 0, 1024),
		"RATE_LIMITS":                        slices.Contains([]string{"on", "off"}, c.RateLimits),
		"CORS_ALLOWED_ORIGINS":               validOrigins(c.AllowedOrigins),
		"TRUSTED_PROXIES":                    validProxies(c.TrustedProxies),
		"USER_ATTRIBUTES":                    !slices.Contains(c.UserAttributes, ""),
		"ERASURE_LEDGER":                     c.ErasureLedger == "" || isDir(filepath.Dir(c.ErasureLedger)) && !isDir(c.ErasureLedger),
		"SMTP_URL":                           c.SMTPURL == "" || validMailServer(string(c.SMTPURL), ""),
		"SMTP_TLS":                           validMailTLS(string(c.SMTPURL), c.SMTPTLS),
		"MAIL_FROM":                          c.MailFrom == "" || validMailFrom(c.MailFrom),
		"ADMIN_EMAIL":                        c.AdminEmail == "" || validEmail(c.AdminEmail),
		"LOG_FORMAT":                         slices.Contains([]string{"text", "json"}, c.LogFormat),
	} {
		if !ok && !bad[name] {
			errs = append(errs, badSetting(name))
		}
	}
	var parameter *postgres.ParameterError
	if _, err := postgres.ParseConfig(string(c.DatabaseURL)); errors.As(err, &parameter) {
		errs = append(errs, fmt.Errorf("check DATABASE_URL: %w", parameter))
	}
	if (c.AdminEmail == "") != (c.AdminPassword == "") {
		errs = append(errs, errors.New("ADMIN_EMAIL and ADMIN_PASSWORD go together; set both or neither"))
	}
	if c.MasterKey != "" && c.MasterKeyFile != "" || c.MasterKey != "" && c.MasterKeyCommand != "" || c.MasterKeyFile != "" && c.MasterKeyCommand != "" {
		errs = append(errs, errors.New("MASTER_KEY, MASTER_KEY_FILE and MASTER_KEY_COMMAND stand for one another; set one of them"))
	}
	slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return errors.Join(errs...)
}

// checkSecrets refuses a start with missing secrets or with such as stand in tutorials. In dev they are made.
func (c *config) checkSecrets() error {
	var errs []error
	need := func(name string, value secret) {
		switch {
		case value == "":
			errs = append(errs, fmt.Errorf("%s is not set; expected %s", name, expectOf(name)))
		case isPlaceholder(string(value)):
			errs = append(errs, fmt.Errorf("%s has a value for development; make a secret one, for example with `openssl rand -base64 32`", name))
		}
	}
	if c.MasterKeyFile == "" && c.MasterKeyCommand == "" {
		need("MASTER_KEY", c.MasterKey)
	}
	if c.JWTAlgorithm == "HS256" {
		need("JWT_SECRET_KEY", c.JWTSecretKey)
	}
	return errors.Join(errs...)
}

func expectOf(name string) string {
	for _, s := range new(config).settings() {
		if s.Name == name {
			return s.Expect
		}
	}
	return ""
}

// isPlaceholder recognises secrets that are not: words of tutorials, and a few characters over and over.
func isPlaceholder(value string) bool {
	lower := strings.ToLower(value)
	for _, word := range []string{"changeme", "change-me", "change_me", "django-insecure", "your-secret", "development", "insecure", "example", "password"} {
		if strings.Contains(lower, word) {
			return true
		}
	}
	distinct := map[rune]bool{}
	for _, r := range value {
		distinct[r] = true
	}
	return len(distinct) < 8
}

func within(n, least, most int) bool { return least <= n && n <= most }

func hasScheme(text string, schemes ...string) bool {
	u, err := url.Parse(text)
	return err == nil && slices.Contains(schemes, u.Scheme) && (u.Host != "" || u.RawQuery != "")
}

func validDatabase(text string) bool {
	_, err := postgres.ParseConfig(text)
	return !errors.Is(err, postgres.ErrBadURL)
}

func validPublicURL(text string) bool {
	u, err := url.Parse(text)
	return err == nil && validAccountURL(text) && strings.TrimSuffix(u.Path, "/") == ""
}

func validAccountURL(text string) bool {
	u, err := url.Parse(text)
	return err == nil && hasScheme(text, "http", "https") && u.RawQuery == "" && u.Fragment == "" && u.User == nil
}

func validEmail(text string) bool {
	_, err := identity.ParseEmail(text)
	return err == nil
}

func validMailServer(text, security string) bool {
	_, err := mail.ParseServer(text, security)
	return err == nil
}

// validMailTLS says whether a server can be spoken to like that; any, where there is none or its address is bad itself.
func validMailTLS(server, security string) bool {
	if server == "" || !validMailServer(server, "") {
		server = "smtp://localhost"
	}
	return validMailServer(server, security)
}

func validMailFrom(text string) bool {
	_, err := netmail.ParseAddress(text)
	return err == nil
}

func validPolicy(c password.PolicyConfig) bool {
	_, err := password.NewPolicy(c)
	return err == nil
}

func validProxies(list []string) bool {
	_, err := api.ParseProxies(list)
	return err == nil
}

func validOrigins(list []string) bool {
	_, err := api.ParseOrigins(list)
	return err == nil
}

func validMasterKey(text string) bool {
	_, err := eventstore.ParseMasterKeys(text)
	return err == nil
}

func validServers(list string) bool {
	for _, server := range strings.Split(list, ",") {
		if !hasScheme(strings.TrimSpace(server), "nats", "tls", "ws", "wss") {
			return false
		}
	}
	return true
}

func validAddr(addr string) bool {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	if _, err := net.LookupPort("tcp", port); err != nil {
		return false
	}
	_, err = netip.ParseAddr(host)
	return host == "" || err == nil || !strings.ContainsAny(host, " /:")
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

func validNetworks(list []string) bool {
	_, err := parseNetworks(list)
	return err == nil
}

func parseNetworks(list []string) ([]netip.Prefix, error) {
	networks := make([]netip.Prefix, len(list))
	for i, text := range list {
		var err error
		if networks[i], err = netip.ParsePrefix(strings.TrimSpace(text)); err != nil {
			return nil, err
		}
	}
	return networks, nil
}

func readable(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	return f.Close() == nil
}

func (c *config) accessLifetime() time.Duration {
	return time.Duration(c.JWTAccessMinutes) * time.Minute
}

func days(n int) time.Duration { return time.Duration(n) * 24 * time.Hour }

func (c *config) passwordPolicy() (password.Policy, error) {
	return password.NewPolicy(password.PolicyConfig{
		Type: c.PasswordPolicy, MinLength: c.PasswordMinLength, History: c.PasswordHistory, Words: c.PasswordWords,
	})
}
