package sdk_test

import (
	"context"
	"net/http"
	"strconv"
	"testing"

	"usher.example/test/sdk/generated/oapi"
)

func TestOAPICodegen(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	usher, err := oapi.NewClientWithResponses(base)
	if err != nil {
		t.Fatal(err)
	}
	const email, name = "oapi-codegen@example.org", "oapi-codegen"
	named := name
	registered, err := usher.RegisterWithResponse(ctx, nil, oapi.Registration{Email: email, Password: userPassword, Name: &named})
	if err != nil || registered.JSON201 == nil || registered.JSON201.User.Email != email {
		t.Fatalf("register: %v %+v", err, registered)
	}
	position, err := strconv.ParseInt(registered.HTTPResponse.Header.Get("Usher-Position"), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	taken, err := usher.RegisterWithResponse(ctx, nil, oapi.Registration{Email: email, Password: userPassword})
	if err != nil || taken.ApplicationproblemJSON409 == nil || taken.ApplicationproblemJSON409.Code != oapi.ProblemCodeEmailTaken {
		t.Errorf("register again: %v %+v", err, taken)
	}

	as := func(email, password string) oapi.RequestEditorFn {
		t.Helper()
		login, err := usher.LoginWithResponse(ctx, nil, oapi.Credentials{Email: email, Password: password})
		if err != nil || login.JSON200 == nil || login.JSON200.TokenType != "Bearer" {
			t.Fatalf("login: %v %+v", err, login)
		}
		return func(_ context.Context, r *http.Request) error {
			r.Header.Set("Authorization", "Bearer "+login.JSON200.AccessToken)
			return nil
		}
	}
	user, admin := as(email, userPassword), as(adminEmail, adminPassword)
	me, err := usher.ShowMeWithResponse(ctx, nil, user)
	if err != nil || me.JSON200 == nil || me.JSON200.Email != email || me.JSON200.Name != name || me.JSON200.Status != oapi.StatusActive {
		t.Fatalf("me: %v %+v", err, me)
	}
	none := ""
	changed, err := usher.UpdateMeWithResponse(ctx, nil, oapi.UpdateMeJSONRequestBody{Name: &none}, user)
	if err != nil || changed.JSON200 == nil || changed.JSON200.Name != "" {
		t.Errorf("take the name away: %v %+v", err, changed)
	}
	forbidden, err := usher.ListUsersWithResponse(ctx, nil, user)
	if err != nil || forbidden.ApplicationproblemJSON403 == nil || forbidden.ApplicationproblemJSON403.Code != oapi.ProblemCodeForbidden {
		t.Errorf("users, for a user: %v %+v", err, forbidden)
	}
	address := email
	found, err := usher.ListUsersWithResponse(ctx, &oapi.ListUsersParams{Email: &address, UsherMinPosition: &position}, admin)
	if err != nil || found.JSON200 == nil || len(found.JSON200.Items) != 1 || found.JSON200.Items[0].Id != me.JSON200.Id {
		t.Errorf("who has the address: %v %+v", err, found)
	}
	active := oapi.StatusActive
	listed, err := usher.ListUsersWithResponse(ctx, &oapi.ListUsersParams{Status: &active, UsherMinPosition: &position}, admin)
	if err != nil || listed.JSON200 == nil || len(listed.JSON200.Items) < 2 {
		t.Errorf("users: %v %+v", err, listed)
	}
	yes := true
	throttled, err := usher.ListUsersWithResponse(ctx, &oapi.ListUsersParams{Throttled: &yes}, admin)
	if err != nil || throttled.JSON200 == nil || throttled.JSON200.UnknownAddresses == nil {
		t.Errorf("users who are throttled: %v %+v", err, throttled)
	}
	wrong, err := usher.LoginWithResponse(ctx, nil, oapi.Credentials{Email: email, Password: "wrong"})
	if err != nil || wrong.ApplicationproblemJSON401 == nil || wrong.ApplicationproblemJSON401.Code != oapi.ProblemCodeInvalidCredentials {
		t.Errorf("login with a wrong password: %v %+v", err, wrong)
	}
}
