package main

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/gofrs/flock"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/spf13/cobra"

	"usher.example/eventstore"
	"usher.example/identity/mail"
	"usher.example/internal/devstack"
)

// devAddresses are where `usher dev` listens by default: on this machine only.
var devAddresses = addresses{HTTP: "127.0.0.1:8080", NATS: "127.0.0.1:4222", Metrics: "127.0.0.1:9090"}

const (
	defaultDir = ".usher"
	devAdmin   = "admin@usher.localhost" // unless ADMIN_EMAIL says otherwise
)

func devCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "dev",
		Short: "Run everything in one process, on SQLite and an embedded NATS server",
		Long: "Run everything in one process, on SQLite and an embedded NATS server under one directory. Nothing has to be\n" +
			"set up; secrets are made there at the first start. A later start goes on where the last one stopped.",
		Example: "  usher dev\n  usher dev --dir /tmp/second --http 127.0.0.1:0 --nats 127.0.0.1:0 --metrics 127.0.0.1:0",
	}
	dir := c.Flags().String("dir", defaultDir, "where the data is kept")
	at := devAddresses
	c.Flags().StringVar(&at.HTTP, "http", at.HTTP, "where the API listens; port 0 takes a free one")
	c.Flags().StringVar(&at.NATS, "nats", at.NATS, "where NATS listens; port 0 takes a free one")
	c.Flags().StringVar(&at.Metrics, "metrics", at.Metrics, "where /metrics listens; port 0 takes a free one")
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		var errs []error
		for _, flag := range []addr{{at.HTTP, "--http"}, {at.NATS, "--nats"}, {at.Metrics, "--metrics"}} {
			if !validAddr(flag.at) {
				errs = append(errs, fmt.Errorf("%w: %s takes host:port", errUse, flag.setBy))
			}
		}
		if len(errs) > 0 {
			return errors.Join(errs...)
		}
		config, err := configFor(cmd)
		if err != nil {
			return err
		}
		return dev(cmd, config, *dir, at)
	}
	return c
}

func dev(cmd *cobra.Command, c *config, dir string, at addresses) error {
	ctx := cmd.Context()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the directory: %w", err)
	}
	lock := flock.New(filepath.Join(dir, lockFile))
	if held, err := lock.TryLock(); err != nil {
		return fmt.Errorf("lock %s: %w", dir, err)
	} else if !held {
		return fmt.Errorf("usher dev already runs in %s; stop it, or take another --dir", dir)
	}
	defer lock.Unlock() //nolint:errcheck // the lock ends with the process

	l, listenErr := listen(addr{at.HTTP, "--http"}, addr{at.Metrics, "--metrics"})
	password := rand.Text()
	broker, err := startBroker(filepath.Join(dir, natsDir), at.NATS, password)
	if broker != nil {
		defer broker.Shutdown()
	}
	if err := errors.Join(listenErr, err); err != nil { // every address that is taken is named
		return errors.Join(err, l.close())
	}

	if err := makeMasterKey(c, dir); err != nil {
		return err
	}
	if err := migrated(ctx, filepath.Join(dir, databaseFile)); err != nil {
		return err
	}
	at = addresses{HTTP: l.http.Addr().String(), NATS: strings.TrimPrefix(broker.URL(), "nats://"), Metrics: l.metrics.Addr().String(),
		NATSUser: devUser, NATSPassword: password}
	c.answerAt(l.http.Addr())
	ownPassword := c.AdminEmail == ""
	if ownPassword {
		c.AdminEmail, c.AdminPassword = devAdmin, secret(newPassword())
	}
	d, err := openDir(ctx, c, dir, newLogger(c, cmd.ErrOrStderr()))
	if err != nil {
		return err
	}
	defer d.close()
	d.natsURL = at.natsURL()
	d.holder = "dev" // only one process holds the directory's lock, and after a crash it need not wait for its own lease
	conn, err := d.connect(nats.InProcessServer(broker))
	if err != nil {
		return err
	}
	defer conn.Close()

	return d.serve(ctx, process{
		api: true, publisher: true, projections: projectionNames(), webhooks: true, showMail: true, listeners: l, conn: conn,
		ready: func(madeAdmin bool) error {
			if err := writeAddresses(dir, at); err != nil {
				return err
			}
			about := running{Version: version, addresses: at, Data: dir}
			if madeAdmin && ownPassword {
				about.Admin = &firstAdmin{c.AdminEmail, string(c.AdminPassword)}
			}
			return tell(cmd, about, about.welcome)
		},
	})
}

// answerAt makes links and names those of the address that the API answers at, unless PUBLIC_URL says otherwise.
func (c *config) answerAt(addr net.Addr) {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok || c.PublicURL != defaultPublicURL {
		return
	}
	c.PublicURL = fmt.Sprintf("http://localhost:%d", tcp.Port)
	for _, derived := range []*string{&c.JWTIssuer, &c.AccountURL} {
		if *derived == defaultPublicURL {
			*derived = c.PublicURL
		}
	}
}

// devUser is the user of the embedded NATS server who may do everything. Its password is made anew at each start.
const devUser = "usher"

// devReader is who may connect without a login: whatever runs on this machine. It reads, by consumers of its own too, and does
// nothing else. The consumers of webhooks can't be named here, as they come and go; it is not told what they are called.
func devReader() *server.User {
	const api = "$JS.API."
	may := []string{
		api + "INFO", api + "STREAM.NAMES", api + "STREAM.LIST", api + "STREAM.INFO.USHER", api + "STREAM.MSG.GET.USHER", api + "DIRECT.GET.USHER", api + "DIRECT.GET.USHER.>",
		api + "CONSUMER.CREATE.USHER.>", api + "CONSUMER.DURABLE.CREATE.USHER.*", api + "CONSUMER.INFO.USHER.*",
		api + "CONSUMER.MSG.NEXT.USHER.*", api + "CONSUMER.RESET.USHER.*", "$JS.ACK.USHER.>", "$JS.ACK.*.*.USHER.>", "$JS.FC.>",
	}
	var never []string
	for _, name := range append([]string{mail.Consumer}, projectionConsumers()...) {
		never = append(never, api+"CONSUMER.CREATE.USHER."+name, api+"CONSUMER.CREATE.USHER."+name+".>", api+"CONSUMER.DURABLE.CREATE.USHER."+name,
			api+"CONSUMER.MSG.NEXT.USHER."+name, api+"CONSUMER.RESET.USHER."+name, "$JS.ACK.USHER."+name+".>", "$JS.ACK.*.*.USHER."+name+".>")
	}
	return &server.User{Username: "anybody", Password: rand.Text(), Permissions: &server.Permissions{
		Publish:   &server.SubjectPermission{Allow: may, Deny: never},
		Subscribe: &server.SubjectPermission{Allow: []string{"usher.v1.>", "_INBOX.>"}, Deny: []string{"_INBOX." + devUser + ".>"}},
	}}
}

// startBroker starts the embedded NATS server.
func startBroker(store, at, password string) (*devstack.NATSServer, error) {
	host, text, err := net.SplitHostPort(at)
	if err != nil {
		return nil, fmt.Errorf("%w: --nats takes host:port", errUse)
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		return nil, fmt.Errorf("%w: --nats takes host:port", errUse)
	}
	if l, err := listenAt(addr{at, "--nats"}); err != nil { // which says more than the server does
		return nil, err
	} else if err := l.Close(); err != nil {
		return nil, fmt.Errorf("start NATS: %w", err)
	}
	broker, err := devstack.StartNATS(devstack.NATSOptions{StoreDir: store, Host: host, Port: port, Configure: func(o *server.Options) {
		reader := devReader()
		o.Users = []*server.User{{Username: devUser, Password: password}, reader}
		o.NoAuthUser = reader.Username
	}})
	return broker, err
}

// makeMasterKey makes the directory's master key at the first start. The file appears whole or not at all: a start that
// is killed here leaves nothing that keeps the next one from its data.
func makeMasterKey(c *config, dir string) error {
	if c.MasterKey != "" || c.MasterKeyFile != "" || c.MasterKeyCommand != "" {
		return nil
	}
	path := filepath.Join(dir, masterKeyFile)
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if _, err := findDatabase(dir); err == nil {
		return fmt.Errorf("%s is missing, and without it the data in %s can't be read; put it back, or set MASTER_KEY", masterKeyFile, dir)
	}
	_, text := eventstore.NewMasterKey()
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("make the master key: %w", err)
	}
	_, err = f.WriteString(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		return fmt.Errorf("make the master key: %w", err)
	}
	return nil
}

// writeAddresses tells scripts and operator commands where this process listens. The file appears whole or not at all.
func writeAddresses(dir string, at addresses) error {
	raw, err := json.MarshalIndent(at, "", "  ")
	if err != nil {
		return err
	}
	path := filepath.Join(dir, addressesFile)
	if err := os.WriteFile(path+".new", append(raw, '\n'), 0o600); err != nil {
		return fmt.Errorf("write the addresses: %w", err)
	}
	return os.Rename(path+".new", path)
}

// newPassword makes a password of 100 random bits, less a fraction of one, that
// is easy to copy by hand. It has a digit, as the strict policy wants.
func newPassword() string {
	for {
		text := strings.ToLower(rand.Text())
		text = text[:5] + "-" + text[5:10] + "-" + text[10:15] + "-" + text[15:20]
		if strings.ContainsAny(text, "234567") {
			return text
		}
	}
}

// running is what runs, for whoever started it.
type running struct {
	Version string `json:"version"`
	addresses
	Data  string      `json:"data"`
	Admin *firstAdmin `json:"admin,omitempty"` // of a first start, whose password nobody knows yet
}

type firstAdmin struct {
	Email    string `json:"email"`
	Password string `json:"password"`
}

// welcome says what runs and what to try.
func (r running) welcome(w io.Writer) error {
	dir, at := r.Data, r.addresses
	suffix := ""
	if dir != defaultDir {
		suffix = " --dir " + dir
	}
	executable, err := os.Executable()
	if err != nil {
		executable = os.Args[0]
	}
	_, err = fmt.Fprintf(w, `usher %[1]s is ready

  API      http://%[2]s
  NATS     nats://%[3]s
  metrics  http://%[4]s/metrics
  data     %[5]s

Try, in another terminal:

  curl -s http://%[2]s/v1/auth/register -H 'Content-Type: application/json' -d '{"email": "ada@example.org", "password": "a long passphrase", "name": "Ada"}'
  curl -s http://%[2]s/v1/auth/login -H 'Content-Type: application/json' -d '{"email": "ada@example.org", "password": "a long passphrase"}'
  %[7]s events tail%[6]s
  %[7]s users list%[6]s

Ctrl-C stops it.
`, r.Version, at.HTTP, at.NATS, at.Metrics, dir, suffix, calledAs(executable, os.Args[0]))
	if err == nil && r.Admin != nil {
		_, err = fmt.Fprintf(w, "\nThe first administrator was made. The password is not shown again:\n\n  %s  %s\n", r.Admin.Email, r.Admin.Password)
	}
	return err
}

// calledAs is how this program is run again, from the same directory: by its name where that is found, from its source where
// `go run` made it, and else by its path.
func calledAs(executable, arg string) string {
	if found, err := exec.LookPath("usher"); err == nil && sameFile(found, executable) {
		return "usher"
	}
	if goRun.MatchString(filepath.ToSlash(executable)) {
		return "go run ./cmd/usher"
	}
	if strings.ContainsRune(arg, filepath.Separator) {
		return arg
	}
	return executable
}

// goRun is where `go run` puts a program: in a temporary directory at first, and in Go's cache of builds from then on.
var goRun = regexp.MustCompile(`/go-build[0-9]+/b[0-9]+/exe/[^/]+$|/[0-9a-f]{2}/[0-9a-f]{64}-d/[^/]+$`)

func sameFile(a, b string) bool {
	of, err := os.Stat(a)
	if err != nil {
		return false
	}
	is, err := os.Stat(b)
	return err == nil && os.SameFile(of, is)
}
