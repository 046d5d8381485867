package client

import (
	"slices"
	"strings"

	"usher.example/identity"
)

// The scopes of usher's own API: what the bearer of a token may do there at most. Each route asks for one of them.
const (
	ScopeUsersRead     = "users:read"    // users, their sessions and activity; personal fields in events
	ScopeUsersWrite    = "users:write"   // users: all that administrators do to them
	ScopeEventsRead    = "events:read"   // the log; without ScopeUsersRead nothing personal in it
	ScopeOperateRead   = "operate:read"  // read models, outbox, webhooks, clients, statistics
	ScopeOperateWrite  = "operate:write" // read models: rebuild, pause, skip; deliveries: redrive
	ScopeClientsWrite  = "clients:write"
	ScopeWebhooksWrite = "webhooks:write"
	ScopeAccountRead   = "account:read" // the user's own account, for first-party clients
	ScopeAccountWrite  = "account:write"
)

// ServiceScopes are those that a client can have for itself, without a user; sorted.
var ServiceScopes = []string{
	ScopeClientsWrite, ScopeEventsRead, ScopeOperateRead, ScopeOperateWrite, ScopeUsersRead, ScopeUsersWrite, ScopeWebhooksWrite,
}

// Scopes are all that there are; sorted. They are those of the tokens that usher's own login gives.
var Scopes = slices.Sorted(slices.Values(append([]string{ScopeAccountRead, ScopeAccountWrite}, ServiceScopes...)))

// The scopes that tell a client about a user who logs in to it (OpenID Connect Core, section 5.4).
const (
	ScopeOpenID        = "openid"
	ScopeProfile       = "profile"
	ScopeEmail         = "email"
	ScopeOfflineAccess = "offline_access" // a refresh token
)

// userScopes are all of these.
var userScopes = []string{ScopeEmail, ScopeOfflineAccess, ScopeOpenID, ScopeProfile}

// GrantScopes are all that a user can give a client; sorted.
var GrantScopes = slices.Sorted(slices.Values(append(slices.Clone(userScopes), Scopes...)))

// ParseScopes reads scopes with spaces between (RFC 6749, section 3.3); each once, sorted.
func ParseScopes(text string) []string {
	list := strings.Fields(text)
	slices.Sort(list)
	return slices.Compact(list)
}

// within is the scopes that both lists have, in the order of the first.
func within(wanted, allowed []string) []string {
	return slices.DeleteFunc(slices.Clone(wanted), func(s string) bool { return !slices.Contains(allowed, s) })
}

// rights are the scopes that a role allows. Every other role is for others to give a meaning to.
var rights = map[string][]string{
	identity.RoleAdmin:    ServiceScopes,
	identity.RoleAuditor:  {ScopeEventsRead, ScopeOperateRead, ScopeUsersRead},
	identity.RoleOperator: {ScopeEventsRead, ScopeOperateRead, ScopeOperateWrite},
}

// RolesFor lists the roles that allow a scope, sorted.
func RolesFor(scope string) (roles []string) {
	for role, scopes := range rights {
		if slices.Contains(scopes, scope) {
			roles = append(roles, role)
		}
	}
	slices.Sort(roles)
	return roles
}

// Rights are the scopes that some roles allow.
func Rights(roles []string) (scopes []string) {
	for _, role := range roles {
		scopes = append(scopes, rights[role]...)
	}
	return scopes
}

// Allow says whether any of a user's roles allows a scope. What a user does to the own account needs none.
func Allow(roles []string, scope string) bool {
	if scope == ScopeAccountRead || scope == ScopeAccountWrite {
		return true
	}
	return slices.ContainsFunc(roles, func(role string) bool { return slices.Contains(rights[role], scope) })
}
