package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"usher.example/identity"
	"usher.example/identity/password"
)

func usersSetPasswordCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "set-password ID|EMAIL",
		Short: "Give a user another password, and end the user's sessions",
		Long: "Give a user another password, and end the user's sessions. The password is asked for on a terminal, and otherwise read\n" +
			"from the first line of standard input.",
		Example: "  usher users set-password ada@example.org\n  pwgen 20 1 | usher users set-password ada@example.org",
		Args:    oneUser,
	}
	return onDeployment(c, func(cmd *cobra.Command, d *deployment, args []string) error {
		id, err := findUser(cmd.Context(), d.identity(), args[0])
		if err != nil {
			return err
		}
		secret, err := askPassword(cmd.InOrStdin(), cmd.ErrOrStderr())
		if err != nil {
			return err
		}
		users, stop, err := d.withPasswords(cmd.Context())
		if err != nil {
			return err
		}
		defer stop()
		result, err := users.SetPassword(cmd.Context(), id, secret, byOperator())
		if err != nil {
			return explainUser(err)
		}
		d.pingRelay()
		return tell(cmd, userChanged{id, result.Position, true}, text("set the password of %s, at position %d", id, result.Position))
	})
}

// askPassword asks for a password twice on a terminal, where it is not shown, and reads it from anything else.
func askPassword(in io.Reader, out io.Writer) (password.Password, error) {
	f, is := in.(*os.File)
	if !is || !term.IsTerminal(int(f.Fd())) {
		return readPassword(in)
	}
	var typed [2]string
	for i, question := range []string{"The new password: ", "Once more: "} {
		fmt.Fprint(out, question)
		text, err := term.ReadPassword(int(f.Fd()))
		fmt.Fprintln(out)
		if err != nil {
			return "", fmt.Errorf("read the password: %w", err)
		}
		typed[i] = string(text)
	}
	if typed[0] != typed[1] {
		return "", errors.New("the two are not the same; nothing was changed")
	}
	return readPassword(strings.NewReader(typed[0]))
}

// readPassword reads a password from the first line of a text.
func readPassword(in io.Reader) (password.Password, error) {
	line, err := bufio.NewReader(in).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("read the password: %w", err)
	}
	line = strings.TrimRight(line, "\r\n")
	if line == "" {
		return "", errors.New("there is no password on standard input")
	}
	return password.Password(line), nil
}

// withPasswords is the part of the service that needs no sessions, until stop is called.
func (d *deployment) withPasswords(ctx context.Context) (users *identity.Service, stop func(), err error) {
	pool, err := password.NewPool(password.PoolConfig{Cost: d.config.BcryptRounds, Workers: d.config.HashWorkers})
	if err != nil {
		return nil, nil, err
	}
	policy, err := d.config.passwordPolicy()
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = pool.Run(ctx) // ends with ctx and for no other reason
	}()
	users = identity.New(identity.Config{Log: d.log, Store: d.store, DB: d.store, Passwords: pool, Policy: policy, Logger: d.logger})
	return users, func() { cancel(); <-ended }, nil
}
