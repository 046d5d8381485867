package sdk_test

import (
	"context"
	"testing"

	"github.com/ogen-go/ogen/ogenerrors"

	"usher.example/test/sdk/generated/ogen"
)

// bearer is who asks.
type bearer struct{ token string }

func (b *bearer) Bearer(context.Context, ogen.OperationName) (ogen.Bearer, error) {
	return ogen.Bearer{Token: b.token}, nil
}

func (b *bearer) ClientSecret(context.Context, ogen.OperationName) (ogen.ClientSecret, error) {
	return ogen.ClientSecret{}, ogenerrors.ErrSkipClientSecurity
}

func TestOgen(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	who := &bearer{}
	usher, err := ogen.NewClient(base, who)
	if err != nil {
		t.Fatal(err)
	}
	const email, name = "ogen@example.org", "ogen"
	answer, err := usher.Register(ctx, &ogen.Registration{Email: email, Password: userPassword, Name: ogen.NewOptString(name)}, ogen.RegisterParams{})
	registered, ok := answer.(*ogen.RegisteredHeaders)
	if err != nil || !ok || registered.Response.User.Email != email || !registered.UsherPosition.Set {
		t.Fatalf("register: %v %#v", err, answer)
	}
	position := ogen.NewOptInt64(registered.UsherPosition.Value)

	login := func(email, password string) {
		t.Helper()
		answer, err := usher.Login(ctx, &ogen.Credentials{Email: email, Password: password}, ogen.LoginParams{})
		login, ok := answer.(*ogen.LoginHeaders)
		if err != nil || !ok {
			t.Fatalf("login: %v %#v", err, answer)
		}
		who.token = login.Response.AccessToken
	}
	login(email, userPassword)
	shown, err := usher.ShowMe(ctx, ogen.ShowMeParams{})
	me, ok := shown.(*ogen.UserHeaders)
	if err != nil || !ok || me.Response.Email != email || me.Response.Name != name || me.Response.Status != ogen.StatusActive || len(me.Response.Roles) != 0 {
		t.Fatalf("me: %v %#v", err, shown)
	}
	var null ogen.OptNilString
	null.SetToNull()
	patched, err := usher.UpdateMe(ctx, &ogen.UpdateMeReq{Name: null}, ogen.UpdateMeParams{})
	if changed, ok := patched.(*ogen.UpdateMeOKHeaders); err != nil || !ok || changed.Response.Name != "" {
		t.Errorf("take the name away: %v %#v", err, patched)
	}
	refused, err := usher.Login(ctx, &ogen.Credentials{Email: email, Password: "wrong"}, ogen.LoginParams{})
	if wrong, ok := refused.(*ogen.UnauthenticatedHeaders); err != nil || !ok || wrong.Response.Code != ogen.ProblemCodeInvalidCredentials {
		t.Errorf("login with a wrong password: %v %#v", err, refused)
	}
	login(adminEmail, adminPassword)
	list, err := usher.ListUsers(ctx, ogen.ListUsersParams{Email: ogen.NewOptString(email), UsherMinPosition: position})
	if found, ok := list.(*ogen.ListUsersOKHeaders); err != nil || !ok || len(found.Response.Items) != 1 || found.Response.Items[0].ID != me.Response.ID {
		t.Errorf("who has the address: %v %#v", err, list)
	}
	list, err = usher.ListUsers(ctx, ogen.ListUsersParams{Status: ogen.NewOptStatus(ogen.StatusActive), UsherMinPosition: position})
	if found, ok := list.(*ogen.ListUsersOKHeaders); err != nil || !ok || len(found.Response.Items) < 2 {
		t.Errorf("users: %v %#v", err, list)
	}
}
