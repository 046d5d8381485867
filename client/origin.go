package client

import (
	"context"
	"encoding/json"
	"fmt"

	"usher.example/identity"
)

// origins are those of all clients, as of some number of changes.
type origins struct {
	of   map[string]bool
	asOf int
}

// AllowsOrigin says whether pages of an origin belong to any client: see ClientSettings.AllowedOrigins. It is answered from memory, as
// Get is, and fails as the database does.
func (r *Registry) AllowsOrigin(ctx context.Context, origin string) (bool, error) {
	if r.config.Current() {
		if of, known := r.known.originsOf(); known {
			return of[origin], nil
		}
	}
	// One at a time reads them: every client is among them, and whoever waits finds them read.
	select {
	case r.reading <- struct{}{}:
		defer func() { <-r.reading }()
	case <-ctx.Done():
		return false, context.Cause(ctx)
	}
	current := r.config.Current()
	if current {
		if of, known := r.known.originsOf(); known {
			return of[origin], nil
		}
	}
	before := r.known.changed()
	of, err := r.readOrigins(ctx)
	if err != nil {
		return false, err
	}
	if current {
		r.known.keepOrigins(origins{of, before})
	}
	return of[origin], nil
}

func (r *Registry) readOrigins(ctx context.Context) (map[string]bool, error) {
	rows, err := r.config.DB.Query(ctx, `SELECT settings FROM clients`)
	if err != nil {
		return nil, fmt.Errorf("read the origins of clients: %w", err)
	}
	defer rows.Close()
	of := map[string]bool{}
	for rows.Next() {
		var raw []byte
		var s identity.ClientSettings
		if err := rows.Scan(&raw); err != nil {
			return nil, fmt.Errorf("read the origins of clients: %w", err)
		}
		if err := json.Unmarshal(raw, &s); err != nil {
			return nil, fmt.Errorf("read the origins of a client: %w", err)
		}
		for _, origin := range s.AllowedOrigins {
			of[origin] = true
		}
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read the origins of clients: %w", err)
	}
	return of, nil
}

// originsOf are the origins of all clients, unless any client changed since they were read.
func (k *known) originsOf() (of map[string]bool, known bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.origins.of, k.origins.of != nil && k.origins.asOf == k.changes
}

func (k *known) keepOrigins(o origins) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.origins = o
}

func (k *known) changed() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.changes
}
