package main

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"usher.example/eventstore"
	"usher.example/identity"
	"usher.example/publisher/webhook"
)

func keysMasterCommand() *cobra.Command {
	return group("master", "See and rotate the master key", keysMasterListCommand(), keysMasterRotateCommand())
}

// masterKeyView is a master key as commands show it.
type masterKeyView struct {
	ID    string    `json:"id"`
	State string    `json:"state"`
	Since time.Time `json:"since"`
	Given bool      `json:"given"` // to this process
}

func keysMasterListCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "list",
		Short:   "List the master keys that the database was ever sealed under, by ids that give nothing of them away",
		Example: "  usher keys master list",
	}
	return onDeployment(c, func(cmd *cobra.Command, d *deployment, _ []string) error {
		states, err := eventstore.MasterKeyStates(cmd.Context(), d.store)
		if err != nil {
			return err
		}
		views, rows := make([]masterKeyView, len(states)), make([][]any, len(states))
		for i, s := range states {
			views[i] = masterKeyView{s.ID, s.State, s.Since, d.given(s.ID)}
			rows[i] = []any{s.ID, s.State, s.Since.Format(time.RFC3339), views[i].Given}
		}
		return tell(cmd, views, table([]string{"ID", "STATE", "SINCE", "GIVEN"}, rows))
	})
}

func keysMasterRotateCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "rotate",
		Short: "Seal everything anew under another master key, while everything runs",
		Long: "Seal everything anew under another master key, while everything runs: users' data keys, signing keys and secrets of\n" +
			"webhooks. Give every process both keys first, the new one and then the present one, separated by a comma or a line\n" +
			"break, in MASTER_KEY, MASTER_KEY_FILE or what MASTER_KEY_COMMAND prints, and restart them one after the other; that of\n" +
			"usher dev is in its directory, in the file master.key. Then run this as the owner of the tables. It can be interrupted\n" +
			"and run again. When it has ended, the database refuses what is sealed under the old key, and the old key can be taken\n" +
			"out of the settings.",
		Example: "  MASTER_KEY=$NEW,$OLD DATABASE_URL=$OWNER_URL usher keys master rotate",
	}
	return onDeployment(c, func(cmd *cobra.Command, d *deployment, _ []string) error {
		if len(d.masterKeys) < 2 {
			return errors.New("a rotation takes two keys; give this command and every process the new one and then the present one, separated by a comma")
		}
		if err := d.checkKeyFile(); err != nil {
			return err
		}
		began, said, resealed := time.Now(), time.Now(), 0
		rotation := eventstore.Rotation{
			DB: d.store, To: d.masterKeys[0], From: d.masterKeys[1], Columns: slices.Concat(identity.SealedColumns, webhook.SealedColumns),
			Progress: func(sealed int) {
				resealed = sealed
				if time.Since(said) > lineEvery && !asJSON(cmd) {
					said = time.Now()
					fmt.Fprintf(cmd.ErrOrStderr(), "%d sealed anew\n", sealed)
				}
			},
		}
		changed, err := rotation.Run(cmd.Context())
		switch {
		case err != nil && cmd.Context().Err() != nil:
			return errors.New("interrupted; nothing is lost, both keys are needed until this command has run to its end")
		case err != nil:
			return err
		}
		line := text("%d sealed anew under %s, in %v; %s is good for nothing any more: take it out of the settings",
			resealed, rotation.To.ID(), time.Since(began).Round(time.Second), rotation.From.ID())
		if !changed {
			line = text("nothing to do: %s is the only master key in use; the other can be taken out of the settings", rotation.To.ID())
		}
		return tell(cmd, struct {
			Current string `json:"current"`
			Rotated bool   `json:"rotated"`
			Sealed  int    `json:"sealed"`
		}{rotation.To.ID(), changed, resealed}, line)
	})
}

// checkKeyFile fails where a rotation would leave a directory of `usher dev` with a key in its file that opens nothing: the new
// one, which the settings have for this command alone, would soon be nowhere.
func (d *deployment) checkKeyFile() error {
	if d.dir == "" {
		return nil
	}
	path := filepath.Join(d.dir, masterKeyFile)
	text, err := keyFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	keys, err := eventstore.ParseMasterKeys(text)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if keys[0].ID() != d.masterKeys[0].ID() {
		return fmt.Errorf("%s lacks the new key: write both there, the new one first, start usher dev again if it runs, and repeat this without MASTER_KEY", path)
	}
	return nil
}

// given says whether this process was given the master key with an id.
func (d *deployment) given(id string) bool {
	return slices.ContainsFunc(d.masterKeys, func(m eventstore.MasterKey) bool { return m.ID() == id })
}
