package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"reflect"
	"strings"
	"time"

	"github.com/joho/godotenv"
	"github.com/kelseyhightower/envconfig"

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
	WebhookAllow      []string `envconfig:"WEBHOOK_ALLOW" expect:"networks in CIDR form separated by commas" about:"Networks that webhooks, and what fetches the keys of clients from their jwks_uri, may reach although they are not public, and without TLS. In usher dev, this machine is among them."`

	HTTPAddr    string `envconfig:"HTTP_ADDR" default:":8080" expect:"host:port or :port" about:"Where the API listens."`
	MetricsAddr string `envconfig:"METRICS_ADDR" expect:"host:port or :port" about:"Where /metrics listens. Unless set, serve listens on :9090, and publish, project and webhooks run don't."`
	PublicURL   string `envconfig:"PUBLIC_URL" default:"http://localhost:8080" expect:"an http or https URL without a path" about:"Where clients reach the API. The ce-source of published events. Set it wherever others than this machine are to use usher: mails, tokens and events name it."`
	AccountURL  string `envconfig:"ACCOUNT_URL" expect:"an http or https URL" about:"Where the pages are that mails link to, under /account, where your application has pages of its own for that. PUBLIC_URL when not set, where usher has them."`

	BrandName  string `envconfig:"BRAND_NAME" default:"usher" expect:"a name" about:"What the pages and mails call the service."`
	BrandLogo  string `envconfig:"BRAND_LOGO" expect:"the path of a readable file, SVG, PNG, JPEG or WebP, of at most 256 KiB" about:"A picture that the pages show in place of the name, and mails too if it is a PNG or JPEG of at most 32 KiB, which they bring along. It is read at the start."`
	BrandColor string `envconfig:"BRAND_COLOR" expect:"a colour of the form #rrggbb" about:"The colour of buttons and links, on pages and in mails. On light pages it is darkened, and on dark ones lightened, as far as it takes to be read (WCAG 2.2 AA)."`
	PagesDir   string `envconfig:"PAGES_DIR" expect:"the path of a directory" about:"Templates of your own for the pages. Each takes the place of the one of the same name in usher's pages directory. They are read and checked at the start. See deploy/pages.md."`

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
	AllowedOrigins []string `envconfig:"CORS_ALLOWED_ORIGINS" expect:"origins such as https://app.example.org, separated by commas" about:"Origins whose pages may call the API from a browser, each in full, beside the allowed origins of every client. None unless it is set, which is right where only servers and pages of clients call it."`
	TrustedProxies []string `envconfig:"TRUSTED_PROXIES" expect:"networks in CIDR form, separated by commas" about:"Proxies whose X-Forwarded-For says who the client is, and whose X-Request-Id and traceparent are believed. Without it the client is whoever connects."`

	ErasureLedger string `envconfig:"ERASURE_LEDGER" expect:"the path of a file in a directory that exists" about:"A file, outside the database and shared by every process, that records who was erased. It is applied at each start, so that a restored backup brings nobody back."`

	UserAttributes []string `envconfig:"USER_ATTRIBUTES" expect:"names separated by commas, or * for all" about:"The attributes that users may set themselves by the API. The others are for administrators to set, but for locale, which everybody chooses on the page /account."`

	SMTPURL  secret `envconfig:"SMTP_URL" expect:"smtp://user:password@host:587 or smtps://user:password@host:465" about:"The mail server. Unless it is set, serve sends no mail, and dev shows mails in the log. See deploy/mail.md."`
	SMTPTLS  string `envconfig:"SMTP_TLS" expect:"required, optional or off" about:"Whether nothing is sent to smtp://… without STARTTLS, or TLS is used where the server offers it, or never. required when not set, but optional to a server on this machine."`
	MailFrom string `envconfig:"MAIL_FROM" expect:"an address, with or without a name: usher <no-reply@example.org>" about:"Whom mails come from. BRAND_NAME, no-reply@ the host of PUBLIC_URL, when not set."`

	MailTemplates string `envconfig:"MAIL_TEMPLATES" expect:"the path of a directory" about:"Templates of your own for the mails, each in place of usher's: verify.html, verify.de.txt, letter.html and the like. They are read and checked at the start; usher mail preview shows what comes of them. See deploy/mail.md."`

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

func (c *config) accessLifetime() time.Duration {
	return time.Duration(c.JWTAccessMinutes) * time.Minute
}

func days(n int) time.Duration { return time.Duration(n) * 24 * time.Hour }

func (c *config) passwordPolicy() (password.Policy, error) {
	return password.NewPolicy(password.PolicyConfig{
		Type: c.PasswordPolicy, MinLength: c.PasswordMinLength, History: c.PasswordHistory, Words: c.PasswordWords,
	})
}
