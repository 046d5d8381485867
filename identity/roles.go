package identity

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/google/uuid"

	"usher.example/eventstore"
)

// RoleHolder is a user who has a role.
type RoleHolder struct {
	User uuid.UUID `json:"user"`
	Role string    `json:"role"`
}

// reservedRoles are those that got a meaning after roles had been free text.
var reservedRoles = []string{RoleAuditor, RoleOperator}

// UnadoptedRoles lists who has had the name of one of usher's own roles since before it meant anything here, and has it still. While
// there is anybody the API must not be served: those users could do what nobody meant them to. It fails as the database does.
func (s *Service) UnadoptedRoles(ctx context.Context) ([]RoleHolder, error) {
	listed, err := s.unadoptedRows(ctx)
	if err != nil {
		return nil, err
	}
	var list []RoleHolder
	for _, h := range listed {
		u, err := s.ReadUser(ctx, h.User)
		switch {
		case err == nil && u.HasRole(h.Role):
			list = append(list, h)
		case err == nil || errors.Is(err, ErrNotFound):
			if err := s.adopted(ctx, h); err != nil {
				return nil, err
			}
		default:
			return nil, err
		}
	}
	return list, nil
}

func (s *Service) unadoptedRows(ctx context.Context) (list []RoleHolder, err error) {
	rows, err := s.db.Query(ctx, `SELECT user_id, role FROM unadopted_roles ORDER BY role, user_id`)
	if err != nil {
		return nil, fmt.Errorf("list roles that were not adopted: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var h RoleHolder
		if err := rows.Scan(&h.User, &h.Role); err != nil {
			return nil, fmt.Errorf("list roles that were not adopted: %w", err)
		}
		list = append(list, h)
	}
	return list, rows.Err()
}

// adopted notes that nothing is in question about a role that a user has.
func (s *Service) adopted(ctx context.Context, h RoleHolder) error {
	if _, err := s.db.Exec(ctx, `DELETE FROM unadopted_roles WHERE user_id = $1 AND role = $2`, h.User, h.Role); err != nil {
		return fmt.Errorf("adopt the role %s of %s: %w", h.Role, h.User, err)
	}
	return nil
}

// AdoptRole leaves a role to all who were listed by UnadoptedRoles, who may do from now on what it means, and says how many that
// were. It fails with CodeInvalidRequest for a role that is none of those, or as the database does.
func (s *Service) AdoptRole(ctx context.Context, role string) (int, error) {
	return s.settleRole(ctx, role, func(RoleHolder) error { return nil })
}

// RenameRole gives all of those another role in its place. It fails with CodeInvalidRequest for a role that is none of those, or for
// another that can't be one, or as appending does; done again, it goes on.
func (s *Service) RenameRole(ctx context.Context, role, to string, m eventstore.Metadata) (int, error) {
	if slices.Contains(reservedRoles, to) || to == RoleAdmin {
		return 0, refuse(CodeInvalidRequest, "the role %s has a meaning too; choose another name", to)
	}
	return s.settleRole(ctx, role, func(h RoleHolder) error {
		if _, err := s.GrantRole(ctx, h.User, to, m); err != nil {
			return err
		}
		_, err := s.RevokeRole(ctx, h.User, role, m)
		return err
	})
}

func (s *Service) settleRole(ctx context.Context, role string, settle func(RoleHolder) error) (n int, err error) {
	if !slices.Contains(reservedRoles, role) {
		return 0, refuse(CodeInvalidRequest, "the role %s is in nobody's way; those that are: %s, %s", role, RoleAuditor, RoleOperator)
	}
	list, err := s.UnadoptedRoles(ctx)
	if err != nil {
		return 0, err
	}
	for _, h := range list {
		if h.Role != role {
			continue
		}
		if err := settle(h); err != nil && !errors.Is(err, ErrNotFound) {
			return n, err
		}
		if err := s.adopted(ctx, h); err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}
