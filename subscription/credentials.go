package subscription

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

// Secret is the secret or the key of a service, which can't be printed by accident.
type Secret string

func (Secret) String() string       { return "[hidden]" }
func (Secret) GoString() string     { return "[hidden]" }
func (Secret) LogValue() slog.Value { return slog.StringValue("[hidden]") }

// ClientCredentials are those of a service that `usher clients add NAME --scope "…"` made: with id and secret it gets access tokens
// (RFC 6749, section 4.4), each of which it keeps until shortly before it expires. The fields are not changed once they are in use,
// and then it may be used by several goroutines.
type ClientCredentials struct {
	ID     string
	Secret Secret
	// TokenURL is the token endpoint, for example https://users.example.org/oauth2/token. A Feed knows its own.
	TokenURL string
	// Scopes are those that are asked for; all that the client has when empty.
	Scopes []string
	// HTTP is http.DefaultClient when nil.
	HTTP *http.Client

	mu   sync.Mutex // held while a token is fetched
	kept *oauth2.Token
	// renew is when another one is fetched.
	renew time.Time
}

// renewBefore is for how long a token is good that Token answers with, unless it is for less than five times that when it is new.
const renewBefore = time.Minute

// Token answers with an access token that is good for a while. Whoever comes while one is fetched waits for it. It fails as the
// network does, or where usher refuses: then with an *oauth2.RetrieveError.
func (c *ClientCredentials) Token(ctx context.Context) (string, error) {
	return c.token(ctx, c.TokenURL, c.HTTP)
}

func (c *ClientCredentials) token(ctx context.Context, at string, via *http.Client) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.kept != nil && time.Now().Before(c.renew) {
		return c.kept.AccessToken, nil
	}
	if via != nil {
		ctx = context.WithValue(ctx, oauth2.HTTPClient, via)
	}
	config := clientcredentials.Config{ClientID: c.ID, ClientSecret: string(c.Secret), TokenURL: at, Scopes: c.Scopes, AuthStyle: oauth2.AuthStyleInHeader}
	began := time.Now()
	token, err := config.Token(ctx)
	if err != nil {
		return "", fmt.Errorf("get an access token: %w", err)
	}
	lifetime := token.Expiry.Sub(began)
	c.kept, c.renew = token, token.Expiry.Add(-min(renewBefore, lifetime/5))
	return token.AccessToken, nil
}

// Refused says that a token was answered with 401, as one is that was signed by a key that is gone: the next is another one.
func (c *ClientCredentials) Refused(token string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.kept != nil && c.kept.AccessToken == token { // or another caller has fetched one already
		c.kept = nil
	}
}

// bearer is what a feed proves with who it is.
func (f *Feed) bearer(ctx context.Context) (string, error) {
	switch {
	case f.Key != "":
		return string(f.Key), nil
	case f.Client != nil:
		at, via := f.Client.TokenURL, f.Client.HTTP
		if at == "" {
			at = strings.TrimSuffix(f.URL, "/") + "/oauth2/token"
		}
		if via == nil {
			via = f.HTTP
		}
		return f.Client.token(ctx, at, via)
	case f.Token != nil:
		return f.Token(ctx)
	}
	return "", errors.New("the feed has no Client, no Key and no Token")
}
