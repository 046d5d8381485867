package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/spf13/cobra"
	"go.opentelemetry.io/otel/trace"

	"usher.example/client"
	"usher.example/eventstore"
	"usher.example/eventstore/postgres"
	"usher.example/eventstore/sqlite"
	"usher.example/identity"
	"usher.example/publisher"
	"usher.example/publisher/webhook"
	"usher.example/schema"
	"usher.example/subscription"
)

// The files of a directory of `usher dev`.
const (
	databaseFile  = "usher.db"
	masterKeyFile = "master.key"
	addressesFile = "addresses.json"
	lockFile      = "lock"
	ledgerFile    = "erasures.log"
	natsDir       = "nats"
)

// addresses is where `usher dev` listens, for those who gave it port 0.
type addresses struct {
	HTTP    string `json:"http"`
	NATS    string `json:"nats"`
	Metrics string `json:"metrics"`
	// The user of NATS who may do everything; whoever has no login may only read.
	NATSUser     string `json:"nats_user"`
	NATSPassword string `json:"nats_password"`
}

// natsURL is where NATS listens, with the login.
func (a addresses) natsURL() string {
	u := url.URL{Scheme: "nats", User: url.UserPassword(a.NATSUser, a.NATSPassword), Host: a.NATS}
	return u.String()
}

func readAddresses(dir string) (a addresses, err error) {
	raw, err := os.ReadFile(filepath.Join(dir, addressesFile))
	if err != nil {
		return a, err
	}
	return a, json.Unmarshal(raw, &a)
}

// deployment is a database that usher runs on, opened.
type deployment struct {
	config *config
	logger *slog.Logger
	store  interface {
		eventstore.Store
		eventstore.DB
		Close()
	}
	log        *eventstore.Log
	webhooks   *webhook.Service
	metrics    *logMetrics
	tracer     trace.Tracer           // nil where nothing is traced
	natsURL    string                 // "" where there is none
	dir        string                 // of usher dev; "" where it is none
	masterKeys []eventstore.MasterKey // that this process was given
	cursorKey  []byte
	refreshKey []byte
	codeKey    []byte
	grantKey   []byte // of authorization codes
	deviceKey  []byte
	nonceKey   []byte
	holder     string // of leases; "" for a random one
}

// dirFlag gives an operator command the flag --dir.
func dirFlag(c *cobra.Command) *string {
	return c.Flags().String("dir", defaultDir, "the directory of usher dev, where neither DATABASE_URL nor NATS_URL is set")
}

// configFor are the settings for a command that works on a deployment, with every one named that can't be used. Its log is
// for programs where what it prints is.
func configFor(cmd *cobra.Command) (*config, error) {
	c, err := loadConfig()
	if c != nil && c.DatabaseURL != "" {
		err = errors.Join(err, c.checkSecrets())
	}
	if err != nil {
		return nil, err
	}
	if asJSON(cmd) {
		c.LogFormat = "json"
	}
	return c, nil
}

// open finds the deployment that an operator command is for: by DATABASE_URL and NATS_URL, or else in a directory of
// `usher dev`, whether that runs there or not.
func open(cmd *cobra.Command, dir string) (*deployment, error) {
	c, err := configFor(cmd)
	if err != nil {
		return nil, err
	}
	logger := newLogger(c, cmd.ErrOrStderr())
	if c.DatabaseURL != "" {
		return openPostgres(cmd.Context(), c, logger)
	}
	if c.NATSURL != "" {
		return nil, errors.New("NATS_URL is set and DATABASE_URL is not; set both, or neither and use --dir")
	}
	if _, err := findDatabase(dir); err != nil {
		return nil, err
	}
	d, err := openDir(cmd.Context(), c, dir, logger)
	if err != nil {
		return nil, err
	}
	d.dir = dir
	if a, err := readAddresses(dir); err == nil {
		d.natsURL = a.natsURL()
	}
	return d, nil
}

// findDatabase is the database in a directory of `usher dev`.
func findDatabase(dir string) (path string, err error) {
	path = filepath.Join(dir, databaseFile)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("there is no deployment in %s; set DATABASE_URL, or start `usher dev --dir %s` first", dir, dir)
	}
	return path, nil
}

func openPostgres(ctx context.Context, c *config, logger *slog.Logger) (*deployment, error) {
	keys, err := c.masterKeys(ctx, "")
	if err != nil {
		return nil, err
	}
	if err := checkSchema(ctx, schema.Postgres, string(c.DatabaseURL)); err != nil {
		return nil, err
	}
	store, err := postgres.Open(ctx, string(c.DatabaseURL), postgres.Options{MaxConns: c.DatabaseMaxConns})
	if err != nil {
		return nil, err
	}
	d := &deployment{config: c, logger: logger, store: store, natsURL: string(c.NATSURL)}
	return d, d.begin(ctx, keys)
}

// openDir opens a directory of `usher dev`, whose master key is a file unless a setting has it, and so is its erasure ledger
// unless ERASURE_LEDGER is.
func openDir(ctx context.Context, c *config, dir string, logger *slog.Logger) (*deployment, error) {
	keys, err := c.masterKeys(ctx, dir)
	if err != nil {
		return nil, err
	}
	if c.ErasureLedger == "" {
		c.ErasureLedger = filepath.Join(dir, ledgerFile)
	}
	c.WebhookAllow = append(c.WebhookAllow, "127.0.0.0/8", "::1/128") // who tries a webhook out has the endpoint at hand
	path := filepath.Join(dir, databaseFile)
	if err := checkSchema(ctx, schema.SQLite, path); err != nil {
		return nil, err
	}
	store, err := sqlite.Open(ctx, path)
	if err != nil {
		return nil, err
	}
	d := &deployment{config: c, logger: logger, store: store}
	return d, d.begin(ctx, keys)
}

// begin makes the log; where it can't, the store is closed.
func (d *deployment) begin(ctx context.Context, keys []eventstore.MasterKey) error {
	master, err := eventstore.Unlock(ctx, d.store, keys...)
	if err != nil {
		d.store.Close()
		if errors.Is(err, eventstore.ErrWrongMasterKey) {
			return fmt.Errorf("%w; set the one it is sealed under (deploy/keys.md)", err)
		}
		return err
	}
	d.masterKeys = keys
	d.cursorKey, d.refreshKey = master.Derive("cursors"), master.Derive("refresh-tokens")
	d.codeKey, d.deviceKey = master.Derive("codes"), master.Derive("devices")
	d.grantKey = master.Derive("authorization-codes")
	d.nonceKey = master.Derive("dpop-nonces")
	d.metrics = newLogMetrics()
	d.log = eventstore.New(d.store, master, eventstore.Options{OnCommit: d.metrics.observe})
	d.webhooks = d.newWebhooks()
	return nil
}

// startTimeout bounds how long a start waits for a database that doesn't answer.
const startTimeout = 5 * time.Second

// checkSchema says what to do about a database that has another schema than this binary, or can't be reached.
func checkSchema(ctx context.Context, open func(string) (*schema.Migrator, error), dsn string) error {
	m, err := open(dsn)
	if err != nil {
		return err
	}
	return errors.Join(checkMigrated(ctx, m), m.Close())
}

// checkMigrated fails with schema.ErrPending or schema.ErrNewer, or tells where to look when the database can't be used.
func checkMigrated(ctx context.Context, m *schema.Migrator) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	err := m.Check(ctx)
	if err == nil || errors.Is(err, schema.ErrNewer) || errors.Is(err, schema.ErrPending) {
		return err
	}
	return fmt.Errorf("the database can't be used; check DATABASE_URL: %w", err)
}

// identity is the service, for commands on what needs no passwords: keys, clients, users and their erasure.
func (d *deployment) identity() *identity.Service {
	return identity.New(identity.Config{Log: d.log, Store: d.store, DB: d.store, CodeKey: d.codeKey, AccessLifetime: d.config.accessLifetime(),
		Ledger: d.ledger(), Logger: d.logger})
}

// clients are those of OAuth.
func (d *deployment) clients() *client.Registry {
	return client.New(client.Config{Log: d.log, DB: d.store, Logger: d.logger})
}

const closeTimeout = 15 * time.Second

// close finishes the appends that were accepted and closes the database.
func (d *deployment) close() {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	if err := d.log.Close(ctx); err != nil {
		d.logger.Error("appends were still waiting", slog.Any("error", err))
	}
	d.store.Close()
}

// connect connects to NATS, in the background where it can't be reached yet. Messages are never kept while there is no
// connection: the relay publishes from the log.
func (d *deployment) connect(options ...nats.Option) (*nats.Conn, error) {
	if d.natsURL == "" {
		return nil, errors.New("NATS_URL is not set; expected nats://host:4222")
	}
	options = append([]nats.Option{
		nats.Name("usher"),
		nats.RetryOnFailedConnect(true),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(250 * time.Millisecond),
		nats.ReconnectBufSize(-1),
		subscription.Inbox(d.natsURL),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				d.logger.Warn("NATS is disconnected", slog.Any("error", err))
			}
		}),
		nats.ReconnectHandler(func(*nats.Conn) { d.logger.Info("NATS is connected again") }),
		nats.ErrorHandler(func(_ *nats.Conn, s *nats.Subscription, err error) {
			// A publish that the server's permissions refuse shows here and nowhere else.
			d.logger.Error("NATS", slog.Any("error", err))
		}),
	}, options...)
	if d.config.NATSCreds != "" {
		options = append(options, nats.UserCredentials(d.config.NATSCreds))
	}
	conn, err := nats.Connect(d.natsURL, options...)
	if err != nil {
		return nil, fmt.Errorf("connect to NATS: %w", err)
	}
	if !conn.IsConnected() {
		d.logger.Warn("NATS can't be reached; trying on")
	}
	return conn, nil
}

// connectNow connects to NATS for a command that has nothing to do without it.
func (d *deployment) connectNow(options ...nats.Option) (*nats.Conn, error) {
	conn, err := d.connect(append(options, nats.RetryOnFailedConnect(false))...)
	switch {
	case err != nil && d.dir != "":
		err = fmt.Errorf("NATS can't be reached: `usher dev` is not running in %s; start it", d.dir)
	case err != nil && d.natsURL != "":
		err = fmt.Errorf("NATS can't be reached; check NATS_URL: %w", err)
	}
	return conn, err
}

// relay makes the relay of the deployment.
func (d *deployment) relay(conn *nats.Conn) (*publisher.Relay, error) {
	c := d.config
	return publisher.New(publisher.Config{
		Log: d.log, DB: d.store, Conn: conn,
		Stream: publisher.StreamConfig{
			Replicas: c.NATSReplicas,
			MaxAge:   days(c.StreamMaxAgeDays),
			MaxBytes: c.StreamMaxBytes,
		},
		Source:         c.PublicURL,
		OmitPersonal:   c.StreamPersonal == "omit",
		FollowRestores: c.OutboxOnRestore == "follow",
		BatchSize:      c.OutboxBatchSize,
		Poll:           time.Duration(c.OutboxIntervalSecond) * time.Second,
		Holder:         d.holder,
		Tracer:         d.tracer,
		Logger:         d.logger,
	})
}
