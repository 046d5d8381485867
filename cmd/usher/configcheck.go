package main

import (
	"errors"
	"fmt"
	"net"
	netmail "net/mail"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"usher.example/eventstore"
	"usher.example/eventstore/postgres"
	"usher.example/identity"
	"usher.example/identity/mail"
	"usher.example/identity/password"
	"usher.example/server"
)

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
		"BRAND_LOGO":                         c.BrandLogo == "" || validLogo(c.BrandLogo),
		"BRAND_COLOR":                        c.BrandColor == "" || validColour(c.BrandColor),
		"PAGES_DIR":                          c.PagesDir == "" || isDir(c.PagesDir),
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
		"SMTP_TLS":                           validMailServer("smtp://localhost", c.SMTPTLS),
		"MAIL_TEMPLATES":                     c.MailTemplates == "" || isDir(c.MailTemplates),
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
	if validMailServer(string(c.SMTPURL), "") && validMailServer("smtp://localhost", c.SMTPTLS) {
		if _, err := mail.ParseServer(string(c.SMTPURL), c.SMTPTLS); err != nil {
			errs = append(errs, fmt.Errorf("SMTP_TLS does not go with SMTP_URL: %w", err))
		}
	}
	if len(errs) == 0 && c.MailTemplates != "" { // which nobody should have to hear of from a mail that was not sent
		if _, err := c.letters(); err != nil {
			errs = append(errs, err)
		}
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

func validMailFrom(text string) bool {
	_, err := netmail.ParseAddress(text)
	return err == nil
}

func validPolicy(c password.PolicyConfig) bool {
	_, err := password.NewPolicy(c)
	return err == nil
}

func validProxies(list []string) bool {
	_, err := server.ParseProxies(list)
	return err == nil
}

func validOrigins(list []string) bool {
	_, err := server.ParseOrigins(list)
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
