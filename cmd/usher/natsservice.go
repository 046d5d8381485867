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
		Short: "Give a service a NATS user, with durable consumers of its own",
		Long: "Write a user for a service into the configuration of NATS. It may make a durable consumer that has the user's name,\n" +
			"read it and acknowledge, and reach no other's. With --workers the consumers are NAME-0, NAME-1 and so on, one for\n" +
			"each worker of a partitioned subscription.\n\n" +
			"With --verifier it is a service that verifies access tokens and follows what revokes them, and its user gets nothing\n" +
			"else. Each of its processes needs a place, and --places is how many there are: as many as run at once, while one\n" +
			"takes over from another too, and some to spare, as the place of a process that was killed is free within a minute.\n\n" +
			"The user's password is read from the server's environment.",
		Example: "  usher deploy nats add-service billing\n  usher deploy nats add-service search --workers 4\n" +
			"  usher deploy nats add-service gateway --verifier --places 16",
	}
	file := c.Flags().String("file", natsConf, "the configuration of NATS")
	workers := c.Flags().Int("workers", 0, "the workers of a partitioned subscription; 0 for one that is not")
	verifier := c.Flags().Bool("verifier", false, "a service that verifies access tokens")
	places := c.Flags().Int("places", subscription.Places, "the processes of a verifier that can run at once")
	c.MarkFlagsMutuallyExclusive("workers", "verifier")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		s := natsService{name: args[0], workers: *workers}
		switch {
		case *verifier && (*places < 1 || *places > maxPlaces):
			return fmt.Errorf("%w: --places takes 1 to %d", errUse, maxPlaces)
		case *verifier:
			s.places = *places
		case cmd.Flags().Changed("places"):
			return fmt.Errorf("%w: --places is of a service with --verifier", errUse)
		}
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
			told := map[string]any{"user": s.name, "password": s.password(), "file": *file}
			if s.places > 0 {
				told["places"] = s.places
			} else {
				told["durables"] = s.consumers()
			}
			return printJSON(cmd.OutOrStdout(), told)
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "%[1]s has the user %[2]s. Set %[3]s for the NATS server (with compose: run deploy/secrets.sh, and add\n"+
			"    %[3]s: ${%[3]s:?run deploy/secrets.sh}\nto the environment of nats), and restart it. The service connects as nats://%[2]s:…@host:4222 with\n"+
			"the inbox prefix _INBOX.%[2]s, and %[4]s.\n",
			*file, s.name, s.password(), s.reads())
		return err
	}
	return c
}

// natsService is a service that is to have a user of NATS.
type natsService struct {
	name    string
	workers int
	places  int // of a verifier; 0 for any other service
}

// maxPlaces bounds what is written: two lines for each place and type of event that a verifier gets.
const maxPlaces = 256

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
	for _, name := range s.consumers() {
		if taken(name) {
			return fmt.Errorf("usher has durable consumers that are called as %s is; take another NAME", name)
		}
	}
	return nil
}

// consumers are the names of the consumers that the service makes.
func (s natsService) consumers() (names []string) {
	if s.places > 0 {
		for name := range subscription.RevocationConsumers(s.name, s.places) {
			names = append(names, name)
		}
		return names
	}
	if s.workers == 0 {
		return []string{s.name}
	}
	for i := range s.workers {
		names = append(names, fmt.Sprintf("%s-%d", s.name, i))
	}
	return names
}

// reads says what the service does with its user.
func (s natsService) reads() string {
	switch {
	case s.places == subscription.Places:
		return fmt.Sprintf("%s of it can follow what revokes access tokens at once, by a subscription.RevocationFeed", counted(s.places, "process", "processes"))
	case s.places > 0:
		return fmt.Sprintf("%s of it can follow what revokes access tokens at once, by a subscription.RevocationFeed with Places: %d", counted(s.places, "process", "processes"), s.places)
	}
	return fmt.Sprintf("its durable consumer is %s of the stream %s", strings.Join(s.consumers(), ", "), subscription.Stream)
}

// password is the variable that the password is read from.
func (s natsService) password() string {
	return "NATS_" + strings.ToUpper(strings.ReplaceAll(s.name, "-", "_")) + "_PASSWORD"
}

var (
	// usersMark is the line of the configuration before which users of services are written.
	usersMark    = regexp.MustCompile(`(?m)^ *# services: users\n`)
	confUser     = regexp.MustCompile(`user: *"?([A-Za-z0-9_-]+)`)
	confConsumer = regexp.MustCompile(`CONSUMER\.INFO\.USHER\.([A-Za-z0-9_-]+)"`)
)

// addTo answers with the configuration with the service's user.
func (s natsService) addTo(conf []byte) ([]byte, error) {
	for _, m := range confUser.FindAllSubmatch(conf, -1) {
		if other := (natsService{name: string(m[1])}); other.name == s.name || other.password() == s.password() {
			return nil, fmt.Errorf("there is a user %s already; take another NAME", other.name)
		}
	}
	own := s.consumers()
	for _, m := range confConsumer.FindAllSubmatch(conf, -1) {
		if slices.Contains(own, string(m[1])) {
			return nil, fmt.Errorf("another user has the consumer %s; take another NAME", m[1])
		}
	}
	marks := usersMark.FindAllIndex(conf, -1)
	if len(marks) != 1 {
		return nil, errors.New(`the line "# services: users" is missing, before which services are written; see ` + natsConf + " of this version")
	}
	at := marks[0][0]
	return slices.Concat(conf[:at], []byte(s.user()), conf[at:]), nil
}

// user is the service's user as the configuration has it.
func (s natsService) user() string {
	var allowed strings.Builder
	if s.places > 0 {
		for name, filter := range subscription.RevocationConsumers(s.name, s.places) {
			fmt.Fprintf(&allowed, `          "$JS.API.CONSUMER.CREATE.USHER.%[1]s.%[2]s"
          "$JS.API.CONSUMER.INFO.USHER.%[1]s", "$JS.API.CONSUMER.DELETE.USHER.%[1]s", "$JS.API.CONSUMER.MSG.NEXT.USHER.%[1]s"
`, name, filter)
		}
	} else {
		for _, name := range s.consumers() {
			fmt.Fprintf(&allowed, `          "$JS.API.CONSUMER.CREATE.USHER.%[1]s", "$JS.API.CONSUMER.CREATE.USHER.%[1]s.>"
          "$JS.API.CONSUMER.INFO.USHER.%[1]s", "$JS.API.CONSUMER.RESET.USHER.%[1]s", "$JS.API.CONSUMER.MSG.NEXT.USHER.%[1]s"
          "$JS.ACK.USHER.%[1]s.>", "$JS.ACK.*.*.USHER.%[1]s.>"
`, name)
		}
	}
	return fmt.Sprintf(`    {
      user: %[1]s, password: $%[2]s
      permissions: {
        publish: [
%[3]s        ]
        subscribe: ["_INBOX.%[1]s.>"]
      }
    }
`, s.name, s.password(), allowed.String())
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
