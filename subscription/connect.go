package subscription

import (
	"net/url"
	"strings"

	"github.com/nats-io/nats.go"
)

// Connect connects a service to usher's broker, at nats://[user:password@]host:port or several of those with commas between, and
// goes on trying whenever the connection breaks. name is what the broker shows the connection as. It has the option Inbox.
func Connect(servers, name string, options ...nats.Option) (*nats.Conn, error) {
	all := []nats.Option{nats.Name(name), nats.MaxReconnects(-1), Inbox(servers)}
	return nats.Connect(servers, append(all, options...)...)
}

// Inbox has replies come to an inbox of the broker's user's own. Where the users are set up as in usher's deploy/nats, no other may
// be listened to.
func Inbox(servers string) nats.Option {
	user := BrokerUser(servers)
	if user == "" {
		return func(*nats.Options) error { return nil }
	}
	return nats.CustomInboxPrefix("_INBOX." + user)
}

// BrokerUser is the user that the first of the servers is given, if its name can be part of a subject; else "".
func BrokerUser(servers string) string {
	first, _, _ := strings.Cut(servers, ",")
	u, err := url.Parse(strings.TrimSpace(first))
	if err != nil {
		return ""
	}
	if _, hasPassword := u.User.Password(); !hasPassword { // what stands alone is no user but a token, and secret
		return ""
	}
	return subjectToken(u.User.Username())
}

// subjectToken is a user's name if it can be part of a subject, else "".
func subjectToken(user string) string {
	if strings.ContainsAny(user, ".*> \t\r\n") {
		return ""
	}
	return user
}
