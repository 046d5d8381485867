package main

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"usher.example/identity"
	"usher.example/server"
	"usher.example/token"
)

func keysCommand() *cobra.Command {
	return group("keys", "See and rotate the keys that sign access tokens, and the master key", keysListCommand(), keysRotateCommand(), keysMasterCommand())
}

// keyView is a signing key as commands show it.
type keyView struct {
	ID        string            `json:"kid"`
	Algorithm string            `json:"algorithm"`
	Signs     string            `json:"signs"` // what it is for
	State     identity.KeyState `json:"state"`
	Since     time.Time         `json:"since"`
	Until     time.Time         `json:"until,omitzero"`
}

func viewKeys(keys []identity.SigningKey) []keyView {
	views := make([]keyView, len(keys))
	for i, k := range keys {
		views[i] = keyView{k.ID, k.Algorithm, "access tokens", k.State, k.Since, k.Until}
		if k.IDTokens {
			views[i].Signs = "ID tokens"
		}
	}
	return views
}

func keysListCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "list",
		Short:   "List the keys in force: the one that signs, one that is announced, and those that still verify",
		Example: "  usher keys list",
	}
	return onDeployment(c, func(cmd *cobra.Command, d *deployment, _ []string) error {
		keys, err := d.identity().SigningKeys(cmd.Context())
		if err != nil {
			return err
		}
		views := viewKeys(keys)
		rows := make([][]any, len(views))
		for i, v := range views {
			until := "replaced"
			if !v.Until.IsZero() {
				until = v.Until.Format(time.RFC3339)
			}
			rows[i] = []any{v.ID, v.Algorithm, v.Signs, v.State, v.Since.Format(time.RFC3339), until}
		}
		return tell(cmd, views, table([]string{"KID", "ALGORITHM", "SIGNS", "STATE", "SINCE", "UNTIL"}, rows))
	})
}

// announceTime is for how long a new key is announced: twice as long as anybody may keep the JWKS document.
const announceTime = 2 * server.DocumentMaxAge

func keysRotateCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "rotate",
		Short: "Have other keys sign access tokens and ID tokens",
		Long: "Have another key sign access tokens, and another ID tokens in RS256. It stands in /.well-known/jwks.json for a while\n" +
			"before it signs, so that whoever verifies tokens knows it by then. The key before it verifies until the last token that it\n" +
			"signed has expired, and is then deleted. No token in use is refused. Processes that run notice within seconds.\n\n" +
			"The new key is of JWT_ALGORITHM. With HS256 it is JWT_SECRET_KEY: run this with the new one in the environment, and\n" +
			"give it to the processes of usher before they are started the next time.",
		Example: "  usher keys rotate\n  usher keys rotate --leaked --now --yes",
	}
	consent := needsConsent(c)
	announce := c.Flags().Duration("announce", announceTime, "how long before it signs")
	now := c.Flags().Bool("now", false, "do not announce it: who verifies tokens has to fetch the keys when they see an unknown one")
	leaked := c.Flags().Bool("leaked", false, "somebody has a copy of a key: trust none of those before, so that every access token has to be refreshed")
	c.PreRunE = func(cmd *cobra.Command, _ []string) error {
		if cmd.Flags().Changed("announce") && (*now || *leaked) {
			return fmt.Errorf("%w: --announce does not go with --now or --leaked", errUse)
		}
		if *announce < server.DocumentMaxAge || *announce > 30*24*time.Hour {
			return fmt.Errorf("%w: --announce takes a duration from %v, for which the keys may be kept, to 720h", errUse, server.DocumentMaxAge)
		}
		return nil
	}
	return onDeployment(c, func(cmd *cobra.Command, d *deployment, _ []string) error {
		wish, err := d.config.keyWish()
		if err != nil {
			return err
		}
		if wish.Leaked = *leaked; *leaked {
			if err := consent.ask(cmd, "Trust no key before this one? Every access token is refused at once, and every client has to refresh."); err != nil {
				return err
			}
		}
		if !*now {
			wish.From = time.Now().Add(*announce)
		}
		service := d.identity()
		rotated, err := service.RotateSigningKey(cmd.Context(), wish)
		if err != nil {
			return err
		}
		if !rotated && wish.Algorithm == string(token.HS256) {
			return errors.New("JWT_SECRET_KEY is the key that signs already, or is announced; set another one for this command")
		}
		forID := idKeyWish()
		forID.From, forID.Leaked = wish.From, wish.Leaked
		if _, err := service.RotateSigningKey(cmd.Context(), forID); err != nil {
			return err
		}
		keys, err := service.SigningKeys(cmd.Context())
		if err != nil {
			return err
		}
		return tell(cmd, viewKeys(keys), func(w io.Writer) error {
			for _, k := range keys {
				switch k.State {
				case identity.KeyAnnounced:
					fmt.Fprintf(w, "%s is announced, and signs from %s\n", k, k.SignsFrom.Format(time.RFC3339))
				case identity.KeySigning:
					fmt.Fprintf(w, "%s signs\n", k)
				case identity.KeyVerifying:
					fmt.Fprintf(w, "%s verifies until %s\n", k, k.Until.Format(time.RFC3339))
				}
			}
			return nil
		})
	})
}
