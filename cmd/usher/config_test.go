package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"usher.example/eventstore"
)

// marker is in every bad value. It must never be seen again.
const marker = "mArKeR7"

// badValues has values for every setting that can have a bad one.
var badValues = map[string][]string{
	"DATABASE_URL":                       {marker, "mysql://u:" + marker + "@host/db", "postgres://u:" + marker + "%zz@host/db", "postgres://u:p@host:" + marker + "/db", "host=h password=" + marker},
	"DATABASE_MAX_CONNS":                 {marker, "1", "1001"},
	"MASTER_KEY":                         {marker, strings.Repeat(marker, 9)},
	"MASTER_KEY_FILE":                    {"/nowhere/" + marker},
	"NATS_URL":                           {marker, "http://" + marker, "nats://host:4222," + marker, "nats://u:" + marker + "%zz@host"},
	"NATS_CREDS":                         {"/nowhere/" + marker},
	"NATS_REPLICAS":                      {marker, "0", "2"},
	"STREAM_PERSONAL":                    {marker},
	"STREAM_MAX_AGE_DAYS":                {marker, "-1"},
	"STREAM_MAX_BYTES":                   {marker, "0", "-2"},
	"OUTBOX_AUTO_PROCESS":                {marker},
	"OUTBOX_ON_RESTORE":                  {marker},
	"LOGIN_NEEDS_VERIFIED_EMAIL":         {marker},
	"OUTBOX_BATCH_SIZE":                  {marker, "0", "10001"},
	"OUTBOX_PROCESSING_INTERVAL_SECONDS": {marker, "0"},
	"OUTBOX_WEBHOOK_TIMEOUT_SECONDS":     {marker, "0", "301"},
	"OUTBOX_WEBHOOK_MAX_RETRIES":         {marker, "-1", "101"},
	"OUTBOX_RETRY_DELAY_SECONDS":         {marker, "0", "43201"},
	"OUTBOX_MAX_RETRY_ATTEMPTS":          {marker, "0", "1001"},
	"WEBHOOK_ALLOW":                      {marker, "10.0.0.1", "10.0.0.0/33", "10.0.0.0/8," + marker},
	"HTTP_ADDR":                          {marker, "host:" + marker, "host:70000"},
	"METRICS_ADDR":                       {marker, "host:" + marker},
	"PUBLIC_URL":                         {marker, "ftp://" + marker, "https://host/" + marker, "https://host?" + marker, "https://" + marker + "@host"},
	"ACCOUNT_URL":                        {marker, "ftp://" + marker, "https://host?" + marker, "https://host/#" + marker, "https://" + marker + "@host"},
	"JWT_SECRET_KEY":                     {marker},
	"JWT_ALGORITHM":                      {marker, "none", "HS512"},
	"JWT_ACCESS_TOKEN_EXPIRE_MINUTES":    {marker, "0", "1441"},
	"JWT_REFRESH_TOKEN_EXPIRE_DAYS":      {marker, "0", "3651"},
	"JWT_REFRESH_REUSE_GRACE_SECONDS":    {marker, "-1", "301"},
	"ERASURE_LEDGER":                     {"/nowhere/" + marker, "/"},
	"USER_ATTRIBUTES":                    {marker + ",,b"},
	"JWT_AUDIENCE":                       {marker + ",,b"},
	"SESSION_MAX_DAYS":                   {marker, "0"},
	"BCRYPT_ROUNDS":                      {marker, "3", "32"},
	"PASSWORD_REHASH_CHECK":              {marker},
	"PASSWORD_MIN_LENGTH":                {marker, "0"},
	"PASSWORD_POLICY_TYPE":               {marker, "Strict"},
	"PASSWORD_FORBIDDEN_WORDS":           {marker + ",abc", marker + ",,b"},
	"PASSWORD_HISTORY":                   {marker, "-1", "25"},
	"PASSWORD_MAX_AGE_DAYS":              {marker, "-1"},
	"PASSWORD_HASH_WORKERS":              {marker, "-1"},
	"ENUMERATION_SAFE_REGISTRATION":      {marker},
	"RATE_LIMITS":                        {marker, "true"},
	"CORS_ALLOWED_ORIGINS":               {marker, "*", "https://" + marker + "/x", "https://app.example.org," + marker},
	"TRUSTED_PROXIES":                    {marker, "10.0.0.0/33", "10.0.0.0/8,,::1", "::ffff:10.0.0.0/104"},
	"SMTP_URL":                           {marker, "http://" + marker, "smtp://u:" + marker + "%zz@host", "smtp://host/" + marker, "smtp://" + marker + "@host"},
	"SMTP_TLS":                           {marker, "on", "true"},
	"BRAND_LOGO":                         {marker, "/dev/null", "."},
	"BRAND_COLOR":                        {marker, "red", "#12345", "#12345g"},
	"PAGES_DIR":                          {marker, "/dev/null"},
	"MAIL_TEMPLATES":                     {marker, "/dev/null"},
	"MAIL_FROM":                          {marker, "a b <" + marker + "@>"},
	"ADMIN_EMAIL":                        {marker},
	"LOG_LEVEL":                          {marker},
	"LOG_FORMAT":                         {marker},
}

// freeForm are the settings whose values can't be judged by themselves.
var freeForm = map[string]bool{"JWT_ISSUER": true, "ADMIN_PASSWORD": true, "BRAND_NAME": true, "MASTER_KEY_COMMAND": true}

func TestBadValueIsNamedAndNotEchoed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, s := range new(config).settings() {
		if len(badValues[s.Name]) == 0 && !freeForm[s.Name] {
			t.Errorf("no bad value of %s is tried", s.Name)
		}
		if s.Expect == "" || s.About == "" {
			t.Errorf("%s is not described", s.Name)
		}
		t.Run(s.Name, func(t *testing.T) {
			t.Parallel()
			for _, value := range badValues[s.Name] {
				env := []string{s.Name + "=" + value}
				if s.Name == "ADMIN_EMAIL" {
					env = append(env, "ADMIN_PASSWORD="+marker)
				}
				o := usher(t, dir, env, "config")
				o.wantRefused(t, s.Name+" has a bad value; expected "+s.Expect)
				if strings.Contains(o.stdout+o.stderr, marker) {
					t.Errorf("%s echoes the value:\n%s%s", s.Name, o.stdout, o.stderr)
				}
			}
		})
	}
}

func TestEveryBadValueIsNamedAtOnce(t *testing.T) {
	t.Parallel()
	o := usher(t, t.TempDir(), []string{"LOG_FORMAT=" + marker, "BCRYPT_ROUNDS=99", "ADMIN_EMAIL=ada@example.org", "LOG_LEVEL=" + marker,
		"DATABASE_MAX_CONNS=many"}, "config")
	want := "usher: ADMIN_EMAIL and ADMIN_PASSWORD go together; set both or neither\n" +
		"usher: BCRYPT_ROUNDS has a bad value; expected a whole number from 4 to 15\n" +
		"usher: DATABASE_MAX_CONNS has a bad value; expected a whole number from 2 to 1000\n" +
		"usher: LOG_FORMAT has a bad value; expected text or json\n" +
		"usher: LOG_LEVEL has a bad value; expected debug, info, warn or error\n"
	if o.stderr != want || o.code != exitFailed {
		t.Errorf("exit code %d, stderr\n%s\nwant\n%s", o.code, o.stderr, want)
	}
	o = usher(t, t.TempDir(), []string{"ADMIN_PASSWORD=" + marker}, "config")
	o.wantRefused(t, "ADMIN_EMAIL and ADMIN_PASSWORD go together")
}

// Where the address of the mail server says otherwise than SMTP_TLS does, neither has a bad value: it is told what does not go together.
func TestMailSettingsThatContradict(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]string{
		"smtp://u:" + marker + "@host?starttls=off": "SMTP_TLS does not go with SMTP_URL: starttls in the address of the mail server says otherwise",
		"smtps://u:" + marker + "@host":             "SMTP_TLS does not go with SMTP_URL: with smtps there is always TLS",
	} {
		o := usher(t, t.TempDir(), []string{"SMTP_URL=" + url, "SMTP_TLS=optional"}, "config")
		o.wantRefused(t, want)
		if strings.Contains(o.stderr, marker) || strings.Contains(o.stderr, "bad value") {
			t.Errorf("%s", o.stderr)
		}
	}
}

func TestDotEnv(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(content string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, ".env"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("# settings\nLOG_LEVEL=debug\nexport BCRYPT_ROUNDS=5\nJWT_ISSUER=\"from the file\"\n")
	values := configJSON(t, dir, "BCRYPT_ROUNDS=6", "PUBLIC_URL=https://users.example.org")
	for name, want := range map[string]shownSetting{
		"LOG_LEVEL":     {"DEBUG", fromFile},
		"JWT_ISSUER":    {"from the file", fromFile},
		"BCRYPT_ROUNDS": {6.0, fromEnvironment}, // the real variable wins
		"PUBLIC_URL":    {"https://users.example.org", fromEnvironment},
		"HTTP_ADDR":     {":8080", fromDefault},
		"MAIL_FROM":     {"", notSet},
		"RATE_LIMITS":   {"on", fromDefault},
	} {
		if values[name] != want {
			t.Errorf("%s = %v, want %v", name, values[name], want)
		}
	}
	for _, broken := range []string{
		"MASTER_KEY=\"" + marker + "\n",
		marker + "\n",
		"JWT_SECRET_KEY\n" + marker + "= 'x\n",
		"\x00" + marker,
	} {
		write(broken)
		o := usher(t, dir, nil, "config")
		o.wantRefused(t, ".env can't be read; expected lines of the form NAME=value")
		if strings.Contains(o.stdout+o.stderr, marker) {
			t.Errorf(".env %q: its content is echoed:\n%s%s", broken, o.stdout, o.stderr)
		}
	}
	write("LOG_FORMAT=" + marker + "\n")
	if o := usher(t, dir, nil, "config"); strings.Contains(o.stderr, marker) {
		t.Errorf("a bad value in .env is echoed:\n%s", o.stderr)
	} else {
		o.wantRefused(t, "LOG_FORMAT has a bad value")
	}
}

type shownSetting struct {
	Value  any
	Source string
}

func configJSON(t *testing.T, dir string, env ...string) map[string]shownSetting {
	t.Helper()
	var values map[string]shownSetting
	text := usher(t, dir, env, "config", "--json").wantDone(t).stdout
	if err := json.Unmarshal([]byte(text), &values); err != nil {
		t.Fatalf("usher config --json: %v\n%s", err, text)
	}
	return values
}

func TestConfigHidesSecrets(t *testing.T) {
	t.Parallel()
	_, master := eventstore.NewMasterKey()
	secrets := map[string]string{
		"DATABASE_URL":   "postgres://u:" + marker + "@host/db",
		"NATS_URL":       "nats://u:" + marker + "@host:4222",
		"MASTER_KEY":     master,
		"JWT_SECRET_KEY": strings.Repeat(marker, 6),
		"ADMIN_PASSWORD": marker,
		"SMTP_URL":       "smtp://u:" + marker + "@host",
	}
	env := []string{"ADMIN_EMAIL=ada@example.org", "HTTP_ADDR=:8081"}
	for name, value := range secrets {
		env = append(env, name+"="+value)
	}
	dir := t.TempDir()
	for _, args := range [][]string{{"config"}, {"config", "--json"}, {"config", "--markdown"}} {
		o := usher(t, dir, env, args...).wantDone(t)
		for _, secret := range []string{marker, master} {
			if strings.Contains(o.stdout+o.stderr, secret) {
				t.Errorf("usher %s shows a secret:\n%s", strings.Join(args, " "), o.stdout)
			}
		}
	}
	values := configJSON(t, dir, env...)
	for _, s := range new(config).settings() {
		_, set := secrets[s.Name]
		if s.Secret != set {
			t.Errorf("%s is a secret: %v, want %v", s.Name, s.Secret, set)
		}
		if text, _ := values[s.Name].Value.(string); set && !strings.Contains(text, "[hidden]") {
			t.Errorf("%s = %q, want it hidden", s.Name, text)
		}
	}
	if values["HTTP_ADDR"].Value != ":8081" || values["ADMIN_EMAIL"].Value != "ada@example.org" {
		t.Errorf("what is no secret is not shown: %v", values)
	}
	values = configJSON(t, dir)
	if values["MASTER_KEY"] != (shownSetting{"", notSet}) {
		t.Errorf("MASTER_KEY = %q where it is not set", values["MASTER_KEY"])
	}
	if values["JWT_ISSUER"] != (shownSetting{defaultPublicURL, "PUBLIC_URL"}) {
		t.Errorf("JWT_ISSUER = %q where it is not set", values["JWT_ISSUER"])
	}
}

// One sees which server a setting names, and nothing that lets anybody in.
func TestShownSecrets(t *testing.T) {
	t.Parallel()
	for in, want := range map[secret]string{
		"":                                       "",
		"a secret":                               "[hidden]",
		"postgres://u:p@db:5432/usher":           "postgres://u:[hidden]@db:5432/usher",
		"postgres://u:p@db1:5432,db2:5432/usher": "postgres://u:[hidden]@db1:5432,db2:5432/usher",
		"postgres://db/usher?sslmode=require&password=p&sslpassword=p&pass%77ord=p": "postgres://db/usher?sslmode=require&password=[hidden]&sslpassword=[hidden]&pass%77ord=[hidden]",
		"postgres://u@db/usher":                 "postgres://u@db/usher",
		"nats://token@a:4222,nats://u:p@b:4222": "nats://[hidden]@a:4222,nats://u:[hidden]@b:4222",
		"nats://a:4222,nats://b:4222":           "nats://a:4222,nats://b:4222",
		"postgres://u:p,q@db/usher":             "[hidden]",
		"postgres://u:12#34@db/usher":           "[hidden]",
		"postgres://u:12?34@db/usher":           "[hidden]",
		"postgres://u:1/2@db/usher":             "[hidden]",
		"postgres://u:1@2@db/usher":             "[hidden]",
		"host=db password=p":                    "[hidden]",
		"smtp://u:p@mail:587?x=y":               "smtp://u:[hidden]@mail:587?x=y",
	} {
		if got := in.shown(); got != want {
			t.Errorf("%q is shown as %q, want %q", string(in), got, want)
		}
	}
}

// The document is made anew with: go run ./cmd/usher config --markdown > deploy/settings.md
func TestSettingsDocument(t *testing.T) {
	t.Parallel()
	written, err := os.ReadFile(filepath.Join("..", "..", "deploy", "settings.md"))
	if err != nil {
		t.Fatal(err)
	}
	if made := usher(t, t.TempDir(), nil, "config", "--markdown").wantDone(t).stdout; made != string(written) {
		t.Error("deploy/settings.md is out of date: go run ./cmd/usher config --markdown > deploy/settings.md")
	}
}
