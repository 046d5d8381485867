package subscription

import "testing"

func TestBrokerUser(t *testing.T) {
	t.Parallel()
	for servers, want := range map[string]string{
		"nats://billing:secret@nats:4222":                   "billing",
		" nats://billing:secret@a:4222,nats://other@b:4222": "billing",
		"nats://nats:4222":                                  "",
		"nats:4222":                                         "",
		"nats://of-a-token@nats:4222":                       "", // which is a secret
		"nats://a.b:secret@nats:4222":                       "", // would be two tokens of a subject
		"nats://%3E:secret@nats:4222":                       "",
		"nats://billing:sec ret@nats:4222":                  "",
		"":                                                  "",
	} {
		if got := BrokerUser(servers); got != want {
			t.Errorf("BrokerUser(%q) = %q, want %q", servers, got, want)
		}
	}
}
