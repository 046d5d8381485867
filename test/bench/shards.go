package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go/jetstream"

	"usher.example/eventstore"
	"usher.example/identity"
	"usher.example/identity/userfile"
	"usher.example/internal/devstack"
	"usher.example/publisher"
)

// beforeShards is the last commit at which every user had subjects of the user's own.
const beforeShards = "5cf272bcd9a4df2f785be697d51001dba3f6b8d8"

// brokerMemory is what the broker holds once everything is published.
const brokerMemory = "broker memory"

func shardBenches() []bench {
	const before = "before shards"
	return []bench{{
		about: "`usher publish` of a log with one event a user, on a broker of its own",
		lines: []line{
			{
				name: "before-shards", subject: usher, yardstick: before, against: "the build before subjects were sharded", show: rate,
				targets: []target{rateAtLeast(1)},
			},
			{
				name: "before-shards-memory", subject: usher, yardstick: before, against: "the same", show: size(brokerMemory), noCPU: true,
				targets: []target{{what: brokerMemory, limit: 0.7}},
			},
		},
		setup: func(s *stage) ([]side, error) {
			old, err := s.checkout(beforeShards)
			if err != nil {
				return nil, err
			}
			people, err := people(s)
			if err != nil {
				return nil, err
			}
			var sides []side
			for _, tree := range []struct{ name, dir string }{{usher, "."}, {before, old}} {
				b, err := s.build(tree.dir, people)
				if err != nil {
					return nil, fmt.Errorf("%s: %w", tree.name, err)
				}
				sides = append(sides, side{name: tree.name, prepare: b.renew, run: b.publish})
			}
			// What a process has used is known once it has ended.
			s.account(&process{"usher publish", func() (time.Duration, error) {
				u, err := readStat(os.Getpid())
				return u.reaped, err
			}})
			return sides, nil
		},
	}}
}

// checkout puts the tree of a commit into a temporary folder.
func (s *stage) checkout(commit string) (dir string, err error) {
	if text, err := exec.CommandContext(s.ctx, "git", "cat-file", "-e", commit+"^{commit}").CombinedOutput(); err != nil {
		return "", fmt.Errorf("commit %s is needed and is not here: run this in a clone of the repository, and in a shallow one "+
			"`git fetch --unshallow` or `git fetch origin %[1]s` first: %w\n%s", commit, err, text)
	}
	if dir, err = s.file("tree"); err != nil {
		return "", err
	}
	if text, err := exec.CommandContext(s.ctx, "git", "worktree", "add", "--detach", dir, commit).CombinedOutput(); err != nil {
		return "", fmt.Errorf("git worktree add: %w\n%s", err, text)
	}
	s.after(func() error {
		if text, err := exec.Command("git", "worktree", "remove", "--force", dir).CombinedOutput(); err != nil {
			return fmt.Errorf("git worktree remove: %w\n%s", err, text)
		}
		return nil
	})
	return dir, nil
}

// people writes a file of as many users as there are to be events.
func people(s *stage) (path string, err error) {
	if path, err = s.file("users.jsonl"); err != nil {
		return "", err
	}
	var file bytes.Buffer
	w, err := userfile.NewWriter(&file, userfile.JSONLines)
	if err != nil {
		return "", err
	}
	for range s.flags.events {
		if err := w.Write(identity.ImportedUser{Email: uuid.NewString() + "@example.org", Name: "Some Body"}); err != nil {
			return "", err
		}
	}
	if err := w.Flush(); err != nil {
		return "", err
	}
	return path, os.WriteFile(path, file.Bytes(), 0o600)
}

// build is the binary of a tree, with a database that it has filled, and a broker that is new in each round.
type build struct {
	*stage
	binary    string
	dsn       string
	masterKey string
	nats      *devstack.NATSChild
	forget    func() // the broker's account
}

func (s *stage) build(tree, people string) (*build, error) {
	b := &build{stage: s}
	_, b.masterKey = eventstore.NewMasterKey()
	var err error
	if b.binary, err = s.file("usher"); err != nil {
		return nil, err
	}
	if text, err := exec.CommandContext(s.ctx, "go", "build", "-C", tree, "-o", b.binary, "./cmd/usher").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build %s: %w\n%s", tree, err, text)
	}
	if b.dsn, err = s.emptyDatabase(); err != nil {
		return nil, err
	}
	s.after(func() error { return b.stop() })
	if err := b.command(s.ctx, "migrate", "up"); err != nil {
		return nil, err
	}
	return b, b.command(s.ctx, "users", "import", people)
}

// command runs the binary to its end.
func (b *build) command(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, b.binary, args...)
	cmd.Dir = filepath.Dir(b.binary)
	cmd.Env = []string{"DATABASE_URL=" + b.dsn, "MASTER_KEY=" + b.masterKey, "PUBLIC_URL=" + relaySource, "LOG_LEVEL=error"} // nobody's settings
	if b.nats != nil {
		cmd.Env = append(cmd.Env, "NATS_URL="+b.nats.URL())
	}
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %v: %w\n%s", filepath.Base(b.binary), args, err, text)
	}
	return nil
}

// renew starts a broker that has nothing yet.
func (b *build) renew(context.Context) error {
	if err := b.stop(); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(b.dir, "nats-")
	if err != nil {
		return err
	}
	if b.nats, err = devstack.StartNATSProcess(devstack.NATSOptions{StoreDir: dir}); err != nil {
		return err
	}
	b.forget = b.accounts.add(single("nats-server", b.nats.PID()))
	return nil
}

func (b *build) stop() error {
	if b.nats == nil {
		return nil
	}
	b.forget()
	err := errors.Join(b.nats.Stop(), os.RemoveAll(b.nats.StoreDir()))
	b.nats = nil
	return err
}

// publish publishes the whole log, and says what the broker holds then. The cursor that is left from the round before only
// makes the relay say that the stream was lost.
func (b *build) publish(ctx context.Context, _ time.Duration) (t tally, err error) {
	if err := b.command(ctx, "publish"); err != nil {
		return t, err
	}
	conn, err := b.nats.Connect()
	if err != nil {
		return t, err
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		return t, err
	}
	stream, err := js.Stream(ctx, publisher.DefaultStream)
	if err != nil {
		return t, err
	}
	memory, err := residentBytes(b.nats.PID())
	return tally{ops: int(stream.CachedInfo().State.Msgs), bytes: map[string]int64{brokerMemory: memory}}, err
}
