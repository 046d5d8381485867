package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"usher.example/client"
	"usher.example/eventstore"
	"usher.example/identity"
)

func clientsCommand() *cobra.Command {
	return group("clients", "Set up the services and apps that OAuth is for",
		clientsListCommand(), clientsShowCommand(), clientsAddCommand(), clientsChangeCommand(), clientsRotateCommand(), clientsKeyCommand(),
		clientsRetireCommand(), clientsRemoveCommand())
}

// clientView is a client as commands show it: with a secret or a key only as it is made.
type clientView struct {
	client.Client
	Secret string `json:"client_secret,omitempty"`
	Key    string `json:"key,omitempty"`
}

// onClient has a command find a client by its name or id, which is its first argument, and do something to it.
func onClient(c *cobra.Command, do func(cmd *cobra.Command, d *deployment, r *client.Registry, of client.Client, args []string) error) *cobra.Command {
	return onDeployment(c, func(cmd *cobra.Command, d *deployment, args []string) error {
		r := d.clients()
		if err := r.Adopt(cmd.Context()); err != nil {
			return err
		}
		of, err := findClient(cmd.Context(), r, args[0])
		if err != nil {
			return err
		}
		return explainClient(do(cmd, d, r, of, args[1:]))
	})
}

func findClient(ctx context.Context, r *client.Registry, name string) (of client.Client, err error) {
	if id, malformed := uuid.Parse(name); malformed == nil {
		of, err = r.Read(ctx, id)
	} else {
		of, err = r.Named(ctx, name)
	}
	return of, explainClient(err)
}

// explainClient says an error about a client for people.
func explainClient(err error) error {
	var refusal *identity.Error
	switch {
	case errors.Is(err, client.ErrUnknown):
		return errors.New("there is no such client; `usher clients list` lists those that there are")
	case errors.As(err, &refusal) && refusal.Detail != "":
		return errors.New(refusal.Detail)
	}
	return err
}

// settingsFlags are the flags by which settings of a client are given.
type settingsFlags struct {
	flags        *pflag.FlagSet
	redirects    *[]string
	logouts      *[]string
	origins      *[]string
	grants       *[]string
	scope        *string
	firstParty   *bool
	public       *bool
	jwks         *string
	jwksURI      *string
	noPKCE       *bool
	idAlgorithm  *string
	access, idle *time.Duration
}

func newSettingsFlags(c *cobra.Command) settingsFlags {
	f := c.Flags()
	return settingsFlags{
		flags:       f,
		redirects:   f.StringArray("redirect-uri", nil, "where users are sent back to; may be given several times"),
		logouts:     f.StringArray("post-logout-redirect-uri", nil, "where users are sent after a logout"),
		origins:     f.StringArray("origin", nil, "an origin whose pages may call usher"),
		grants:      f.StringArray("grant", nil, "a grant_type that it may use; by default what fits the rest"),
		scope:       f.String("scope", "", "the scopes that it may have, with spaces between"),
		firstParty:  f.Bool("first-party", false, "it is one of yours: users are not asked for consent"),
		public:      f.Bool("public", false, "it can't keep a secret: an app on a device or in a browser"),
		jwks:        f.String("jwks", "", "a file with the public keys that it signs with (a JWK Set), in the place of a secret"),
		jwksURI:     f.String("jwks-uri", "", "where those keys are published"),
		noPKCE:      f.Bool("no-pkce", false, "it can't do PKCE; it has a secret, and sends a nonce instead"),
		idAlgorithm: f.String("id-token-alg", "", "ES256 or RS256: what its ID tokens are signed in"),
		access:      f.Duration("access-token-lifetime", 0, "how long its access tokens live, where that is shorter than JWT_ACCESS_TOKEN_EXPIRE_MINUTES"),
		idle:        f.Duration("refresh-token-lifetime", 0, "how long a grant may rest, where that is shorter than JWT_REFRESH_TOKEN_EXPIRE_DAYS"),
	}
}

// change gives settings what the flags that are there say.
func (f settingsFlags) change() (func(*identity.ClientSettings), error) {
	var keys json.RawMessage
	if *f.jwks != "" {
		raw, err := os.ReadFile(*f.jwks)
		if err != nil {
			return nil, fmt.Errorf("read --jwks: %w", err)
		}
		if keys = raw; !json.Valid(raw) {
			return nil, fmt.Errorf("%s is not JSON; expected a JWK Set", *f.jwks)
		}
	}
	given := f.flags.Changed
	return func(s *identity.ClientSettings) {
		for name, list := range map[string]struct{ to, from *[]string }{
			"redirect-uri": {&s.RedirectURIs, f.redirects}, "post-logout-redirect-uri": {&s.PostLogoutRedirectURIs, f.logouts},
			"origin": {&s.AllowedOrigins, f.origins}, "grant": {&s.Grants, f.grants},
		} {
			if given(name) {
				*list.to = slices.DeleteFunc(slices.Clone(*list.from), func(v string) bool { return v == "" }) // an empty one empties the list
			}
		}
		if given("scope") {
			s.Scopes = client.ParseScopes(*f.scope)
		}
		if given("first-party") {
			s.FirstParty = *f.firstParty
		}
		if given("public") {
			s.Authentication = map[bool]string{true: client.AuthenticationNone, false: client.AuthenticationBasic}[*f.public]
		}
		if given("jwks") || given("jwks-uri") {
			s.JWKS, s.JWKSURI, s.Authentication = keys, *f.jwksURI, client.AuthenticationSigned
		}
		if given("no-pkce") {
			s.NoPKCE = *f.noPKCE
		}
		if given("id-token-alg") {
			s.IDTokenAlgorithm = *f.idAlgorithm
		}
		if given("access-token-lifetime") {
			s.AccessTokenSeconds = int(*f.access / time.Second)
		}
		if given("refresh-token-lifetime") {
			s.RefreshTokenSeconds = int(*f.idle / time.Second)
		}
	}, nil
}

func clientsListCommand() *cobra.Command {
	c := &cobra.Command{Use: "list", Short: "List the clients", Example: "  usher clients list"}
	return onDeployment(c, func(cmd *cobra.Command, d *deployment, _ []string) error {
		var list []client.Client
		for r, last := d.clients(), uuid.Nil; ; last = list[len(list)-1].ID {
			page, err := r.List(cmd.Context(), last, clientsPage)
			if err != nil {
				return err
			}
			if list = append(list, page...); len(page) < clientsPage {
				break
			}
		}
		slices.SortFunc(list, func(a, b client.Client) int { return cmp.Compare(a.Name, b.Name) })
		views, rows := make([]clientView, len(list)), make([][]any, len(list))
		for i, c := range list {
			views[i] = clientView{Client: c}
			rows[i] = []any{c.Name, c.ID, cmp.Or(strings.Join(c.Scopes, " "), "-"), lastUse(c), c.CreatedAt.Format(time.RFC3339)}
		}
		return tell(cmd, views, table([]string{"NAME", "CLIENT ID", "SCOPES", "LAST USED", "CREATED"}, rows))
	})
}

const clientsPage = 200

// lastUse is when anything of a client was used last.
func lastUse(c client.Client) string {
	var last time.Time
	for _, credential := range c.Credentials {
		if used := credential.UsedAt; used != nil && used.After(last) {
			last = *used
		}
	}
	if last.IsZero() {
		return "-"
	}
	return last.Format(time.RFC3339)
}

func clientsShowCommand() *cobra.Command {
	c := &cobra.Command{Use: "show NAME", Short: "Show a client, with its secrets and keys as far as they may be shown", Example: "  usher clients show billing"}
	return onClient(c, func(cmd *cobra.Command, _ *deployment, _ *client.Registry, of client.Client, _ []string) error {
		var b strings.Builder
		for _, line := range [][2]string{
			{"client_id", of.ID.String()}, {"name", of.Name}, {"authentication", of.Authentication}, {"first party", yesNo(of.FirstParty)},
			{"grants", strings.Join(of.Grants, " ")}, {"scopes", strings.Join(of.Scopes, " ")}, {"redirect URIs", strings.Join(of.RedirectURIs, " ")},
			{"after logout", strings.Join(of.PostLogoutRedirectURIs, " ")}, {"origins", strings.Join(of.AllowedOrigins, " ")}, {"jwks_uri", of.JWKSURI},
		} {
			fmt.Fprintf(&b, "%-15s %s\n", line[0], cmp.Or(line[1], "-"))
		}
		for _, credential := range of.Credentials {
			fmt.Fprintf(&b, "\n%s %s\n  begins with %s\n  made %s", credential.Kind, credential.ID, credential.Prefix, credential.CreatedAt.Format(time.RFC3339))
			if credential.ExpiresAt != nil {
				fmt.Fprintf(&b, ", good until %s", credential.ExpiresAt.Format(time.RFC3339))
			}
			if credential.UsedAt != nil {
				fmt.Fprintf(&b, ", used last %s", credential.UsedAt.Format(time.RFC3339))
			}
			if len(credential.Scopes) > 0 {
				fmt.Fprintf(&b, "\n  scopes %s", strings.Join(credential.Scopes, " "))
			}
			b.WriteByte('\n')
		}
		return tell(cmd, clientView{Client: of}, text("%s", strings.TrimRight(b.String(), "\n")))
	})
}

func yesNo(b bool) string { return map[bool]string{true: "yes", false: "no"}[b] }

func clientsAddCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "add NAME",
		Short: "Make a client and print its secret, which can't be shown again",
		Long: "Make a client and print its secret, which can't be shown again. With id and secret a service asks about tokens and revokes\n" +
			"them, at /oauth2/introspect and /oauth2/revoke; with scopes it gets tokens of its own at /oauth2/token. A client with public\n" +
			"keys signs who it is, and has no secret. deploy/README.md says what each scope is for.",
		Example: "  usher clients add billing\n" +
			"  usher clients add warehouse --scope 'events:read users:read'\n" +
			"  usher clients add payroll --scope users:read --jwks-uri https://payroll.example/jwks.json\n" +
			"  usher clients add shop --redirect-uri https://shop.example/callback --scope 'openid email'",
	}
	flags := newSettingsFlags(c)
	return onDeployment(c, func(cmd *cobra.Command, d *deployment, args []string) error {
		change, err := flags.change()
		if err != nil {
			return err
		}
		s := identity.ClientSettings{Name: args[0]}
		change(&s)
		r := d.clients()
		if err := r.Adopt(cmd.Context()); err != nil {
			return err
		}
		added, secret, _, err := r.Add(cmd.Context(), s, uuid.Nil, byOperator())
		if err != nil {
			return fmt.Errorf("add the client %q: %w", args[0], explainClient(err))
		}
		d.pingRelay()
		line := text("client_id      %s\nclient_secret  %s\n\nThe secret is not shown again.", added.ID, string(secret))
		switch {
		case secret == "":
			line = text("client_id      %s", added.ID)
		case len(added.Scopes) == 0:
			line = text("client_id      %s\nclient_secret  %s\n\nThe secret is not shown again. With it the client asks about tokens; for tokens of its own it needs a scope:\n"+
				"usher clients change %s --scope …", added.ID, string(secret), added.Name)
		}
		return tell(cmd, clientView{Client: added, Secret: string(secret)}, line)
	})
}

func clientsChangeCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "change NAME",
		Short:   "Set what is set of a client anew: what a flag names; the rest stays as it is",
		Example: "  usher clients change warehouse --scope events:read",
	}
	flags := newSettingsFlags(c)
	name := c.Flags().String("name", "", "another name")
	return onClient(c, func(cmd *cobra.Command, d *deployment, r *client.Registry, of client.Client, _ []string) error {
		change, err := flags.change()
		if err != nil {
			return err
		}
		changed, result, err := r.Change(cmd.Context(), of.ID, byOperator(), nil, func(s *identity.ClientSettings) {
			change(s)
			s.Name = cmp.Or(*name, s.Name)
		})
		if err != nil {
			return err
		}
		return d.tellClient(cmd, result, clientView{Client: changed}, "changed "+changed.Name)
	})
}

// tellClient tells what became of a client.
func (d *deployment) tellClient(cmd *cobra.Command, result eventstore.Result, view clientView, line string) error {
	if result.Unchanged {
		return tell(cmd, view, text("%s is so already; nothing was changed", view.Name))
	}
	d.pingRelay()
	return tell(cmd, view, text("%s", line))
}

func clientsRotateCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "rotate NAME",
		Short: "Give a client another secret and print it; the last one is good beside it until it is retired",
		Long: "Give a client another secret and print it. The one before goes on to be good, so that nothing fails before the service has\n" +
			"the new one; then retire it, or rotate again.",
		Example: "  usher clients rotate billing",
	}
	return onClient(c, func(cmd *cobra.Command, d *deployment, r *client.Registry, of client.Client, _ []string) error {
		changed, secret, result, err := r.Rotate(cmd.Context(), of.ID, byOperator(), nil)
		if err != nil {
			return err
		}
		line := "client_secret  " + string(secret) + "\n\nThe secret is not shown again."
		for _, old := range changed.Credentials {
			if old.Kind == identity.SecretShared && old.ID != changed.Credentials[len(changed.Credentials)-1].ID {
				line += fmt.Sprintf(" The one before is good until: usher clients retire %s %s", of.Name, old.ID)
			}
		}
		return d.tellClient(cmd, result, clientView{Client: changed, Secret: string(secret)}, line)
	})
}

func clientsKeyCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "key NAME",
		Short: "Give a client a key for scripts, which goes as a bearer token, and print it",
		Long: "Give a client a key for scripts, which goes as a bearer token wherever an access token does, and print it. It can't be shown\n" +
			"again. Its scopes are some of the client's.",
		Example: "  usher clients key warehouse --scope events:read --expires 2160h",
	}
	scope := c.Flags().String("scope", "", "what whoever has the key may do, with spaces between")
	expires := c.Flags().String("expires", "2160h", "for how long it is good, such as 720h, or until when, such as 2027-01-31; never for ever")
	c.PreRunE = func(*cobra.Command, []string) error { _, err := parseExpiry(*expires, time.Now()); return err }
	return onClient(c, func(cmd *cobra.Command, d *deployment, r *client.Registry, of client.Client, _ []string) error {
		until, err := parseExpiry(*expires, time.Now())
		if err != nil {
			return err
		}
		changed, key, credential, result, err := r.AddKey(cmd.Context(), of.ID, client.ParseScopes(*scope), until, byOperator(), nil)
		if err != nil {
			return err
		}
		line := fmt.Sprintf("key  %s\n\nIt is not shown again. To end it: usher clients retire %s %s", string(key), of.Name, credential.ID)
		return d.tellClient(cmd, result, clientView{Client: changed, Key: string(key)}, line)
	})
}

// parseExpiry reads when a key ends; the zero time is never.
func parseExpiry(text string, now time.Time) (time.Time, error) {
	if text == "never" {
		return time.Time{}, nil
	}
	if span, err := time.ParseDuration(text); err == nil {
		return now.Add(span), nil
	}
	for _, form := range []string{time.DateOnly, time.RFC3339} {
		if t, err := time.Parse(form, text); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("--expires: %q is none of a span such as 720h, a day such as 2027-01-31, and never", text)
}

func clientsRetireCommand() *cobra.Command {
	c := &cobra.Command{Use: "retire NAME ID", Short: "Have a secret or a key be of no use any more; `usher clients show` lists them", Example: "  usher clients retire billing 0198c0de-0000-7000-8000-000000000003"}
	c.Args = func(_ *cobra.Command, args []string) error {
		if _, err := uuid.Parse(args[1]); err != nil {
			return fmt.Errorf("%q is not the id of a secret or a key", args[1])
		}
		return nil
	}
	return onClient(c, func(cmd *cobra.Command, d *deployment, r *client.Registry, of client.Client, args []string) error {
		changed, result, err := r.Retire(cmd.Context(), of.ID, uuid.MustParse(args[0]), byOperator(), nil)
		if errors.Is(err, client.ErrUnknown) {
			return fmt.Errorf("%s has no such secret or key", of.Name)
		}
		if err != nil {
			return err
		}
		return d.tellClient(cmd, result, clientView{Client: changed}, "retired "+args[0])
	})
}

func clientsRemoveCommand() *cobra.Command {
	c := &cobra.Command{Use: "remove NAME", Short: "Remove a client; its secrets, keys and tokens are of no use from then on", Example: "  usher clients remove billing"}
	consent := needsConsent(c)
	return onClient(c, func(cmd *cobra.Command, d *deployment, r *client.Registry, of client.Client, _ []string) error {
		if err := consent.ask(cmd, fmt.Sprintf("Remove the client %q? Its secrets, keys and tokens are of no use from then on.", of.Name)); err != nil {
			return err
		}
		if _, err := r.Remove(cmd.Context(), of.ID, byOperator(), nil); err != nil {
			return err
		}
		d.pingRelay()
		return tell(cmd, map[string]string{"removed": of.Name}, text("removed %s", of.Name))
	})
}
