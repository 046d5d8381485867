package projections

import (
	"context"
	"errors"
	"fmt"

	"usher.example/eventstore"
)

// explain finds out why a query of a read model failed: because it does not exist yet (ErrUnknownProjection), or because
// another version of the code filled the live generation, which may lack what the query names (ErrOtherVersion). What
// the other version has too is answered from it.
func explain(ctx context.Context, db eventstore.DB, p Projection, err error) error {
	if errors.Is(err, eventstore.ErrUnavailable) || errors.Is(err, ErrNotFound) || ctx.Err() != nil {
		return err
	}
	var code int
	known := db.QueryRow(ctx, "SELECT code_version FROM projections WHERE name = $1", p.Name()).Scan(&code)
	switch {
	case errors.Is(known, eventstore.ErrNoRows):
		return ErrUnknownProjection
	case known == nil && code != p.CodeVersion():
		return fmt.Errorf("%w (version %d, and this is %d): %w", ErrOtherVersion, code, p.CodeVersion(), err)
	}
	return err
}

// pageSize is the limit of a page.
func pageSize(limit int) (int, error) {
	switch {
	case limit == 0:
		return DefaultLimit, nil
	case limit < 0 || limit > MaxLimit:
		return 0, badFilter("limit %d, expected 1 to %d", limit, MaxLimit)
	}
	return limit, nil
}
