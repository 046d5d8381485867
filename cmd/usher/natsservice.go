package main

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"usher.example/subscription"
)

const natsConf = "deploy/nats/nats.conf"

func deployCommand() *cobra.Command {
	return group("deploy", "Change the files that usher is deployed with",
		group("nats", "Change the users of NATS", addServiceCommand()))
}

func addServiceCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "add-service NAME",
		Short: "Give a service a NATS user, with a durable consumer of its own",
		Long: "Write a user for a service into the configuration of NATS. It may make a durable consumer that has the user's name,\n" +
			"read it and acknowledge, and reach no other's. With --workers the consumers are NAME-0, NAME-1 and so on, one for\n" +
			"each worker of a partitioned subscription.\n\n" +
			"The user's password is read from the server's environment.",
		Example: "  usher deploy nats add-service billing\n  usher deploy nats add-service search --workers 4",
	}
	file := c.Flags().String("file", natsConf, "the configuration of NATS")
	workers := c.Flags().Int("workers", 0, "the workers of a partitioned subscription; 0 for one that is not")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		s := natsService{name: args[0], workers: *workers}
		if err := s.check(); err != nil {
			return fmt.Errorf("%w: %w", errUse, err)
		}
		before, err := os.ReadFile(*file)
		if err != nil {
			return fmt.Errorf("read the configuration of NATS; --file says where it is: %w", err)
		}
		after, err := s.addTo(before)
		if err != nil {
			return fmt.Errorf("%s: %w", *file, err)
		}
		if err := replaceFile(*file, after); err != nil {
			return err
		}
		if asJSON(cmd) {
			return printJSON(cmd.OutOrStdout(), map[string]any{"user": s.name, "durables": s.durables(), "password": s.password(), "file": *file})
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "%[1]s has the user %[2]s. Set %[3]s for the NATS server (with compose: run deploy/secrets.sh, and add\n"+
			"    %[3]s: ${%[3]s:?run deploy/secrets.sh}\nto the environment of nats), and restart it. The service connects as nats://%[2]s:…@host:4222 with\n"+
			"the inbox prefix _INBOX.%[2]s, and its durable consumer is %[4]s of the stream %[5]s.\n",
			*file, s.name, s.password(), strings.Join(s.durables(), ", "), subscription.Stream)
		return err
	}
	return c
}

// natsService is a service that is to have a user of NATS.
type natsService struct {
	name    string
	workers int
}

// serviceName is what can be a user, a durable consumer and, with underscores, part of a variable's name.
var serviceName = regexp.MustCompile(`^[a-z][a-z0-9]*(-[a-z0-9]+)*$`)

// taken says whether usher itself has a user or durable consumers of a name.
func taken(name string) bool {
	return slices.Contains([]string{"relay", "api", "worker", "usher", "operator", "verifier", "mail"}, name) ||
		strings.HasPrefix(name, "projection-") || strings.HasPrefix(name, "webhook-")
}

func (s natsService) check() error {
	switch {
	case !serviceName.MatchString(s.name) || len(s.name) > 32:
		return errors.New("NAME takes at most 32 lowercase letters, digits and hyphens, and begins with a letter")
	case taken(s.name):
		return fmt.Errorf("usher has a NATS user or a durable consumer %s itself; take another NAME", s.name)
	case s.workers < 0 || s.workers > subscription.MaxWorkers:
		return fmt.Errorf("--workers takes 0 to %d", subscription.MaxWorkers)
	}
	return nil
}

// durables are the service's durable consumers.
func (s natsService) durables() []string {
	if s.workers == 0 {
		return []string{s.name}
	}
	names := make([]string, s.workers)
	for i := range names {
		names[i] = fmt.Sprintf("%s-%d", s.name, i)
	}
	return names
}

// password is the variable that the password is read from.
func (s natsService) password() string {
	return "NATS_" + strings.ToUpper(strings.ReplaceAll(s.name, "-", "_")) + "_PASSWORD"
}

// The lines of the configuration before which services are written: their users, and their consumers where verifiers are denied
// them.
var (
	usersMark  = regexp.MustCompile(`(?m)^ *# services: users\n`)
	deniedMark = regexp.MustCompile(`(?m)^ *# services: denied\n`)
	confUser   = regexp.MustCompile(`user: *"?([A-Za-z0-9_-]+)`)
	confQuoted = regexp.MustCompile(`CONSUMER\.INFO\.USHER\.([A-Za-z0-9_-]+)"`)
)

// addTo answers with the configuration with the service's user.
func (s natsService) addTo(conf []byte) ([]byte, error) {
	for _, m := range confUser.FindAllSubmatch(conf, -1) {
		if other := (natsService{name: string(m[1])}); other.name == s.name || other.password() == s.password() {
			return nil, fmt.Errorf("there is a user %s already; take another NAME", other.name)
		}
	}
	for _, m := range confQuoted.FindAllSubmatch(conf, -1) {
		if slices.Contains(s.durables(), string(m[1])) {
			return nil, fmt.Errorf("another user has the durable consumer %s; take another NAME", m[1])
		}
	}
	if len(usersMark.FindAll(conf, -1)) != 1 || len(deniedMark.FindAll(conf, -1)) != 1 {
		return nil, errors.New(`the lines "# services: users" and "# services: denied" are missing, before which services are written; see ` + natsConf + " of this version")
	}
	var denied, allowed strings.Builder
	for _, d := range s.durables() {
		fmt.Fprintf(&denied, "            \"$JS.API.CONSUMER.CREATE.USHER.%s.>\"\n", d)
		fmt.Fprintf(&allowed, `          "$JS.API.CONSUMER.CREATE.USHER.%[1]s", "$JS.API.CONSUMER.CREATE.USHER.%[1]s.>"
          "$JS.API.CONSUMER.INFO.USHER.%[1]s", "$JS.API.CONSUMER.RESET.USHER.%[1]s", "$JS.API.CONSUMER.MSG.NEXT.USHER.%[1]s"
          "$JS.ACK.USHER.%[1]s.>", "$JS.ACK.*.*.USHER.%[1]s.>"
`, d)
	}
	user := fmt.Sprintf(`    {
      user: %[1]s, password: $%[2]s
      permissions: {
        publish: [
%[3]s        ]
        subscribe: ["_INBOX.%[1]s.>"]
      }
    }
`, s.name, s.password(), allowed.String())
	conf = insertBefore(conf, deniedMark, denied.String())
	return insertBefore(conf, usersMark, user), nil
}

// insertBefore writes a text before the line that a mark finds.
func insertBefore(conf []byte, mark *regexp.Regexp, text string) []byte {
	at := mark.FindIndex(conf)[0]
	return slices.Concat(conf[:at], []byte(text), conf[at:])
}

// replaceFile writes a file anew, whole or not at all, with the mode that it has.
func replaceFile(path string, content []byte) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", content, info.Mode().Perm()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return os.Rename(path+".new", path)
}
