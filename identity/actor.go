package identity

import (
	"strings"

	"github.com/google/uuid"
)

// Who acts, where it is no user: see eventstore.Metadata.
const (
	ActorAnonymous = "anonymous"
	ActorOperator  = "operator"
	ActorSystem    = "system"
)

const userActor = "user:"

// ActorUser is a user as an actor.
func ActorUser(id uuid.UUID) string { return userActor + id.String() }

// IsUser says whether an actor is a user.
func IsUser(actor string) bool { return strings.HasPrefix(actor, userActor) }

// ActorClient is a client as an actor.
func ActorClient(id uuid.UUID) string { return "client:" + id.String() }

// ActorDelegated is a user as an actor, who has a client act.
func ActorDelegated(user, client uuid.UUID) string {
	return ActorUser(user) + delegatedTo + ActorClient(client)
}

const delegatedTo = " via "

// IsActor says whether an actor is a user, whatever client the user has act.
func IsActor(actor string, user uuid.UUID) bool {
	who, _, _ := strings.Cut(actor, delegatedTo)
	return user != uuid.Nil && who == ActorUser(user)
}
