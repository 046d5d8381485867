// Command verify is a service that takes usher's access tokens. It verifies them by itself, with the keys that usher publishes,
// and refuses those of sessions that have ended within a second, without asking usher about any request.
//
//	verify -issuer http://localhost:8080 -nats nats://127.0.0.1:4222 -listen 127.0.0.1:8081
//	curl -H "Authorization: Bearer $TOKEN" http://127.0.0.1:8081/hello
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"usher.example/subscription"
	"usher.example/token"
)

func main() {
	issuer := flag.String("issuer", "http://localhost:8080", "the claim iss of the tokens, JWT_ISSUER of usher, which is where it publishes its keys")
	audience := flag.String("audience", "usher", "the claim aud that is expected, one of JWT_AUDIENCE of usher")
	lifetime := flag.Duration("lifetime", 30*time.Minute, "how long an access token lives, JWT_ACCESS_TOKEN_EXPIRE_MINUTES of usher")
	server := flag.String("nats", "nats://127.0.0.1:4222", "the NATS server, with user and password where it asks for them")
	listen := flag.String("listen", "127.0.0.1:8081", "where this service listens")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *issuer, *audience, *lifetime, *server, *listen); err != nil && ctx.Err() == nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, issuer, audience string, lifetime time.Duration, server, listen string) error {
	conn, err := subscription.Connect(server, "verify")
	if err != nil {
		return err
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		return err
	}
	keys := &token.RemoteKeys{URL: issuer + "/.well-known/jwks.json", Keys: new(token.KeyRing)}
	revocations := token.NewRevocations(token.RevocationsConfig{Lifetime: lifetime})
	verifier, err := token.NewVerifier(token.VerifierConfig{
		Keys: keys.Keys, Issuer: issuer, Audience: audience, Missing: keys.Missing, Revoked: revocations.Revoked,
	})
	if err != nil {
		return err
	}
	if _, err := keys.Fetch(ctx); err != nil { // a wrong address is told at the start
		return err
	}
	feed := &subscription.RevocationFeed{JetStream: js, Lifetime: lifetime, EndSession: revocations.EndSession, EndUser: revocations.EndUser, EndConsent: revocations.EndConsent}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return keys.Run(ctx) })
	group.Go(func() error { return feed.Run(ctx) })
	group.Go(func() error {
		select {
		case <-feed.Ready(): // nobody is let in before it is known whose sessions have ended
		case <-ctx.Done():
			return nil
		}
		return serve(ctx, listen, hello(verifier))
	})
	return group.Wait()
}

// hello greets whoever has a good access token.
func hello(verifier *token.Verifier) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /hello", func(w http.ResponseWriter, r *http.Request) {
		raw, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		claims, err := verifier.Verify(raw)
		if err != nil {
			w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
			http.Error(w, "a valid access token is needed", http.StatusUnauthorized)
			return
		}
		fmt.Fprintf(w, "hello %s, administrator: %t\n", claims.Subject, claims.HasRole("admin"))
	})
	return mux
}

// serve answers requests until ctx ends.
func serve(ctx context.Context, listen string, handler http.Handler) error {
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	log.Printf("listening on %s", l.Addr())
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })() // whoever waits for an answer tries again
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
