package schema

import "context"

// UpTo applies the migrations up to a version, as an earlier usher did.
func (m *Migrator) UpTo(ctx context.Context, version int64) error {
	_, err := m.provider.UpTo(ctx, version)
	return err
}
