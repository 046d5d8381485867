package cloudevent

import (
	"strings"

	"github.com/google/uuid"

	"usher.example/eventstore"
)

// Subjects are usher.v1.<shard>.<event type>. A JetStream server keeps some 570 bytes of memory for each subject of a
// stream, whatever its messages are, so they do not grow with the users: every user belongs to one of 256 shards.

// Shard is the shard of the events about a user: the last two hexadecimal digits of the id, which are random in a UUIDv7.
// The nil UUID stands for no user.
func Shard(user uuid.UUID) string {
	if user == uuid.Nil {
		return SystemShard
	}
	return ShardOf(user[len(user)-1])
}

// ShardOf is the name of one of the 256 shards of users: "00" to "ff".
func ShardOf(n byte) string { return string([]byte{hexDigits[n>>4], hexDigits[n&15]}) }

// ShardSubjects is the NATS wildcard for every event of a shard.
func ShardSubjects(shard string) string { return SubjectPrefix + shard + ".>" }

// Subject is the NATS subject of an event.
func Subject(e eventstore.Event) string { return ShardSubject(Shard(e.Stream.Subject), e.Type) }

// ShardSubject is the NATS subject of the events of a type in a shard.
func ShardSubject(shard, eventType string) string { return SubjectPrefix + shard + "." + eventType }

// PerUser says whether a subject, or a filter on subjects, names a user by the id, as subjects did before there were
// shards: a message with such a subject was published by an earlier version.
func PerUser(subject string) bool {
	rest, ours := strings.CutPrefix(subject, SubjectPrefix)
	if !ours {
		return false
	}
	token, _, _ := strings.Cut(rest, ".")
	_, err := uuid.Parse(token)
	return err == nil && len(token) == 36
}
