package main

import (
	"context"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"usher.example/eventstore"
)

// soon is how long a start that can't succeed may take at most, on a busy machine.
const soon = 20 * time.Second

// wantNoStart runs `usher serve` with settings that it can't start with.
func wantNoStart(t *testing.T, env []string, words ...string) {
	t.Helper()
	o := usher(t, t.TempDir(), env, "serve", "--with", "publisher,projections")
	o.wantRefused(t, words...)
	if o.took > soon {
		t.Errorf("it took %v to say so", o.took)
	}
	if strings.Contains(o.stderr, marker) {
		t.Errorf("a password is shown:\n%s", o.stderr)
	}
}

// changed is a DSN with a user and password, after a change.
func changed(t *testing.T, dsn string, change func(*url.URL)) string {
	t.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword("postgres", marker)
	change(u)
	return u.String()
}

func TestWrongDatabase(t *testing.T) {
	t.Parallel()
	dsn := migratedPostgres(t)
	silent, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and never answers
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { silent.Close() })
	for name, test := range map[string]struct {
		change func(*url.URL)
		words  []string
	}{
		"refused port":   {func(u *url.URL) { u.Host = "127.0.0.1:1" }, []string{"check DATABASE_URL", "127.0.0.1:1"}},
		"no such host":   {func(u *url.URL) { u.Host = "nowhere.invalid" }, []string{"check DATABASE_URL", "nowhere.invalid"}},
		"no answer":      {func(u *url.URL) { u.Host = silent.Addr().String() }, []string{"check DATABASE_URL"}},
		"wrong database": {func(u *url.URL) { u.Path = "/nowhere" }, []string{"check DATABASE_URL", `database "nowhere" does not exist`}},
		"wrong user": {func(u *url.URL) { u.User = url.UserPassword("nobody", marker) },
			[]string{"check DATABASE_URL", `role "nobody" does not exist`}},
		"bad parameter": {func(u *url.URL) { u.RawQuery = "sslmode=perhaps" }, []string{"check DATABASE_URL", "sslmode"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			wrong := changed(t, dsn, test.change)
			wantNoStart(t, settingsFor(wrong), test.words...)
			for _, args := range []string{"migrate up", "users list"} {
				o := usher(t, t.TempDir(), settingsFor(wrong), strings.Fields(args)...)
				o.wantRefused(t, test.words...)
				if strings.Contains(o.stderr, marker) {
					t.Errorf("usher %s shows a password:\n%s", args, o.stderr)
				}
			}
		})
	}
}

func TestWrongMasterKey(t *testing.T) {
	t.Parallel()
	dsn := migratedPostgres(t)
	usher(t, t.TempDir(), settingsFor(dsn), "users", "list") // which makes the deployment with the first key
	wantNoStart(t, settingsFor(dsn), "MASTER_KEY", "set the one it is sealed under")
}

func TestWrongMasterKeyOfADirectory(t *testing.T) {
	t.Parallel()
	dir := devDirectory(t)
	_, other := eventstore.NewMasterKey()
	for _, args := range [][]string{{"events", "tail", "--no-follow"}, {"dev", "--http", "127.0.0.1:0", "--nats", "127.0.0.1:0", "--metrics", "127.0.0.1:0"}} {
		o := usher(t, dir, []string{"MASTER_KEY=" + other}, append(args, "--dir", dir)...)
		o.wantRefused(t, "MASTER_KEY", "set the one it is sealed under")
	}
}

func TestMasterKeyOfADirectoryIsGone(t *testing.T) {
	t.Parallel()
	dir := devDirectory(t)
	key := filepath.Join(dir, masterKeyFile)
	if err := os.Rename(key, key+".elsewhere"); err != nil {
		t.Fatal(err)
	}
	args := []string{"dev", "--dir", dir, "--http", "127.0.0.1:0", "--nats", "127.0.0.1:0", "--metrics", "127.0.0.1:0"}
	usher(t, dir, nil, args...).wantRefused(t, "master.key is missing", "put it back")
	if _, err := os.Stat(key); err == nil {
		t.Error("another key was made")
	}
}

func TestSchemaOfAnotherVersion(t *testing.T) {
	t.Parallel()
	t.Run("pending", func(t *testing.T) {
		t.Parallel()
		wantNoStart(t, settingsFor(changed(t, emptyPostgres(t), func(*url.URL) {})), "lacks migrations", "usher migrate up")
	})
	t.Run("newer", func(t *testing.T) {
		t.Parallel()
		dsn := migratedPostgres(t)
		execute(t, dsn, "INSERT INTO migrations (version_id, is_applied) VALUES (999999, true)")
		wantNoStart(t, settingsFor(changed(t, dsn, func(*url.URL) {})), "newer schema", "run the newer version")
		usher(t, t.TempDir(), settingsFor(dsn), "migrate", "up").wantRefused(t, "newer schema", "run the newer version")
	})
}

func execute(t *testing.T, dsn, sql string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	if _, err := conn.Exec(t.Context(), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func TestSecretsThatServeNeeds(t *testing.T) {
	t.Parallel()
	dsn := "postgres://u:" + marker + "@127.0.0.1:1/db" // never reached: the secrets come first
	_, master := eventstore.NewMasterKey()
	for name, test := range map[string]struct {
		env  []string
		want string
	}{
		"no master key": {nil, "MASTER_KEY is not set; expected 32 bytes in base64 or hexadecimal"},
		"master key of zeros": {[]string{"MASTER_KEY=" + strings.Repeat("0", 64)},
			"MASTER_KEY has a value for development"},
		"no JWT secret": {[]string{"MASTER_KEY=" + master, "JWT_ALGORITHM=HS256"},
			"JWT_SECRET_KEY is not set; expected at least 32 bytes"},
		"placeholder": {[]string{"MASTER_KEY=" + master, "JWT_ALGORITHM=HS256", "JWT_SECRET_KEY=changeme-" + marker + strings.Repeat("-changeme", 4)},
			"JWT_SECRET_KEY has a value for development"},
		"Django's": {[]string{"MASTER_KEY=" + master, "JWT_ALGORITHM=HS256", "JWT_SECRET_KEY=django-insecure-7&^%$#@!abcdefghijklmn" + marker},
			"JWT_SECRET_KEY has a value for development"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			wantNoStart(t, append(test.env, "DATABASE_URL="+dsn, "HTTP_ADDR=127.0.0.1:0", "METRICS_ADDR=127.0.0.1:0"), test.want)
		})
	}
}

func TestRolesNeedNATS(t *testing.T) {
	t.Parallel()
	wantNoStart(t, settingsFor(migratedPostgres(t)), "NATS_URL is not set; expected nats://host:4222")
}

func TestAdminThatIsRefused(t *testing.T) {
	t.Parallel()
	settings := append(settingsFor(migratedPostgres(t)), "ADMIN_EMAIL=ada@example.org")
	for name, test := range map[string]struct {
		env  []string
		want string
	}{
		"short":  {[]string{"ADMIN_PASSWORD=kX7" + marker, "PASSWORD_MIN_LENGTH=15"}, "shorter than 15 characters"},
		"strict": {[]string{"ADMIN_PASSWORD=kX7" + marker, "PASSWORD_POLICY_TYPE=strict"}, "shorter than 12 characters"},
		"word":   {[]string{"ADMIN_PASSWORD=" + marker + "-25", "PASSWORD_FORBIDDEN_WORDS=acme," + marker}, "leave that out"},
	} {
		o := usher(t, t.TempDir(), append(test.env, settings...), "serve")
		o.wantRefused(t, "ADMIN_EMAIL and ADMIN_PASSWORD", test.want)
		if strings.Contains(o.stderr, marker) {
			t.Errorf("%s: the password is shown:\n%s", name, o.stderr)
		}
	}
}

func TestAddressTaken(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	addr := taken.Addr().String()
	settings := settingsFor(migratedPostgres(t))
	for _, name := range []string{"HTTP_ADDR", "METRICS_ADDR"} {
		usher(t, t.TempDir(), append(settings, name+"="+addr), "serve").wantRefused(t, "set "+name, addr)
	}
	for _, flag := range []string{"--http", "--nats", "--metrics"} {
		args := []string{"dev", "--http", "127.0.0.1:0", "--nats", "127.0.0.1:0", "--metrics", "127.0.0.1:0", flag, addr}
		usher(t, t.TempDir(), nil, args...).wantRefused(t, "set "+flag+" to another address", addr)
	}
	// All that are taken are told at once.
	o := usher(t, t.TempDir(), append(settings, "HTTP_ADDR="+addr, "METRICS_ADDR="+addr), "serve")
	if o.code != exitFailed || !strings.Contains(o.stderr, "set HTTP_ADDR") || !strings.Contains(o.stderr, "set METRICS_ADDR") {
		t.Errorf("two taken addresses: exit code %d\n%s", o.code, o.stderr)
	}
	o = usher(t, t.TempDir(), nil, "dev", "--http", addr, "--nats", addr, "--metrics", addr)
	if o.code != exitFailed || !strings.Contains(o.stderr, "--http") || !strings.Contains(o.stderr, "--nats") || !strings.Contains(o.stderr, "--metrics") {
		t.Errorf("three taken addresses: exit code %d\n%s", o.code, o.stderr)
	}
	o = usher(t, t.TempDir(), nil, "dev", "--http", "here", "--nats", "there", "--metrics", "nowhere")
	if o.code != exitUse || strings.Count(o.stderr, "takes host:port") != 3 {
		t.Errorf("three wrong addresses: exit code %d\n%s", o.code, o.stderr)
	}
	o = usher(t, t.TempDir(), []string{"DATABASE_URL=" + settings[0][len("DATABASE_URL="):], "LOG_FORMAT=" + marker}, "serve")
	if o.code != exitFailed || !strings.Contains(o.stderr, "MASTER_KEY is not set") || !strings.Contains(o.stderr, "LOG_FORMAT has a bad value") {
		t.Errorf("a bad setting and a missing one: exit code %d\n%s", o.code, o.stderr)
	}
}
