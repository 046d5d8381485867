package identity

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Names that got a meaning are not what somebody was given before until an operator says so.
func TestUnadoptedRoles(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, d *database) {
		s := d.service(t, nil)
		holder := func(email string, role string) RoleHolder {
			t.Helper()
			u := mustRegister(t, s, email)
			d.appendTo(t, s, u.ID, RoleGranted{Role: role})
			if _, err := d.db.Exec(t.Context(), `INSERT INTO unadopted_roles (user_id, role) VALUES ($1, $2)`, u.ID, role); err != nil {
				t.Fatal(err)
			}
			return RoleHolder{u.ID, role}
		}
		ada, bob, cleo := holder("ada@example.org", RoleAuditor), holder("bob@example.org", RoleOperator), holder("cleo@example.org", RoleOperator)
		d.appendTo(t, s, cleo.User, RoleRevoked{Role: RoleOperator})
		want := func(holders ...RoleHolder) {
			t.Helper()
			list, err := s.UnadoptedRoles(t.Context())
			if diff := cmp.Diff(holders, list); diff != "" || err != nil {
				t.Errorf("%v, roles that were not adopted (-want +got):\n%s", err, diff)
			}
		}
		want(ada, bob)
		for _, try := range [][2]string{{"writer", "editor"}, {RoleOperator, RoleAdmin}, {RoleOperator, RoleAuditor}, {RoleOperator, "No Role"}} {
			_, err := s.RenameRole(t.Context(), try[0], try[1], byAdmin)
			wantCode(t, try[0]+" to "+try[1], err, CodeInvalidRequest)
		}
		if n, err := s.RenameRole(t.Context(), RoleOperator, "switchboard", byAdmin); n != 1 || err != nil {
			t.Errorf("RenameRole = %d, %v, want 1", n, err)
		}
		want(ada)
		if u, err := s.ReadUser(t.Context(), bob.User); err != nil || cmp.Diff([]string{"switchboard"}, u.Roles) != "" {
			t.Errorf("roles after the renaming: %v, %v", u.Roles, err)
		}
		if n, err := s.AdoptRole(t.Context(), RoleAuditor); n != 1 || err != nil {
			t.Errorf("AdoptRole = %d, %v, want 1", n, err)
		}
		want()
		if u, err := s.ReadUser(t.Context(), ada.User); err != nil || !u.HasRole(RoleAuditor) {
			t.Errorf("roles after the adoption: %v, %v", u.Roles, err)
		}
	})
}
