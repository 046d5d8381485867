package identity

import "github.com/google/uuid"

// Who acts, where it is no user: see eventstore.Metadata.
const (
	ActorAnonymous = "anonymous"
	ActorOperator  = "operator"
	ActorSystem    = "system"
)

// ActorUser is a user as an actor.
func ActorUser(id uuid.UUID) string { return "user:" + id.String() }

// ActorClient is a client as an actor.
func ActorClient(id uuid.UUID) string { return "client:" + id.String() }
