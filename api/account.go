package api

import (
	"context"
	"encoding/json"
	"time"

	"github.com/google/uuid"

	"usher.example/client"
	"usher.example/eventstore"
	"usher.example/identity"
	"usher.example/identity/password"
	"usher.example/server"
)

// verifyEmail answers POST /v1/auth/verify-email, with a code from a mail.
func (a *api) verifyEmail(ctx context.Context, call *server.Call, in struct {
	Code identity.MailCode `json:"code" required:"true"`
}) (server.Answer, error) {
	result, err := a.Identity.Verify(ctx, in.Code, call.SecretCommandID("verify email", string(in.Code)), call.Metadata())
	return server.Done(result.Position), err
}

// resendVerification answers POST /v1/auth/verify-email/resend: for whoever has an address, or else for the caller.
func (a *api) resendVerification(ctx context.Context, call *server.Call, in struct {
	Email string `json:"email"`
}) (server.Answer, error) {
	if in.Email != "" {
		return askByAddress(ctx, call, "resend verification", in.Email, a.Identity.RequestVerificationOf)
	}
	if !call.HasCredentials() {
		return server.Answer{}, server.Refuse(identity.CodeInvalidRequest, `the field "email" is needed, or an access token`)
	}
	if err := call.Admit(server.Own(client.ScopeAccountWrite)); err != nil {
		return server.Answer{}, err
	}
	id := call.User.ID
	result, err := a.Identity.RequestVerification(ctx, id, call.SecretCommandID("resend verification", id.String()), call.Metadata())
	return server.Accepted().At(result.Position), err
}

// forgotPassword answers POST /v1/auth/password/forgot.
func (a *api) forgotPassword(ctx context.Context, call *server.Call, in struct {
	Email string `json:"email" required:"true"`
}) (server.Answer, error) {
	return askByAddress(ctx, call, "forgot password", in.Email, a.Identity.RequestPasswordReset)
}

// askByAddress asks for something in the name of whoever has an address, and answers in the same way, after the same time,
// whether or not anybody has.
func askByAddress(ctx context.Context, call *server.Call, kind, address string, ask func(context.Context, string, uuid.UUID, eventstore.Metadata) error) (server.Answer, error) {
	begin := time.Now()
	err := ask(ctx, address, call.SecretCommandID(kind, address), call.Metadata())
	server.EvenOut(ctx, begin)
	return server.Accepted(), err
}

// resetPassword answers POST /v1/auth/password/reset, with a code from a mail.
func (a *api) resetPassword(ctx context.Context, call *server.Call, in struct {
	Code        identity.MailCode `json:"code" required:"true"`
	NewPassword password.Password `json:"new_password" required:"true"`
}) (server.Answer, error) {
	set, err := a.Identity.ResetPassword(ctx, in.Code, in.NewPassword, call.SecretCommandID("reset password", string(in.Code), string(in.NewPassword)), call.Metadata())
	return server.Done(set.Position).On(set.Device), err
}

// me answers GET /v1/me, with the user's own state. Its query is left alone.
func me(call *server.Call) (server.Answer, error) {
	return server.OK(json.RawMessage(call.User.JSON())), nil
}

// updateMe answers PATCH /v1/me.
func (a *api) updateMe(ctx context.Context, call *server.Call, in profileChange) (server.Answer, error) {
	result, err := a.Identity.UpdateOwnProfile(ctx, call.User.ID, in.of(), call.Metadata())
	if err != nil {
		return server.Answer{}, err
	}
	u, err := a.Identity.User(ctx, call.User.ID)
	if err != nil {
		return server.Answer{}, err
	}
	return server.OK(json.RawMessage(u.JSON())).At(result.Position), nil
}

// profileChange is what a PATCH of a user may change of the profile.
type profileChange struct {
	Name       server.PatchText  `json:"name"`
	Attributes server.MergePatch `json:"attributes"`
}

func (p profileChange) of() identity.ProfileChange {
	return identity.ProfileChange{Name: p.Name.Value, Attributes: p.Attributes.RawMessage}
}

// eraseMe answers DELETE /v1/me: the caller's own account is erased, and with it the session of the access token.
func (a *api) eraseMe(ctx context.Context, call *server.Call, in proof) (server.Answer, error) {
	result, err := a.Identity.EraseOwn(ctx, call.User.ID, in.of(call), call.Metadata())
	return server.Done(result.Position), err
}

// changePassword answers POST /v1/me/password. The session of the access token goes on, and no other.
func (a *api) changePassword(ctx context.Context, call *server.Call, in struct {
	proof
	New password.Password `json:"new_password" required:"true"`
}) (server.Answer, error) {
	id := call.User.ID
	set, err := a.Identity.ChangePassword(ctx, identity.PasswordChange{
		User: id, Session: call.Session, Proof: in.of(call), New: in.New, Metadata: call.Metadata(),
		CommandID: call.SecretCommandID("change password", id.String(), string(in.Password), string(in.New)),
	})
	return server.Done(set.Position).On(set.Device), err
}

// changeEmail answers POST /v1/me/email. The address changes once the code that is mailed to the new one comes back.
func (a *api) changeEmail(ctx context.Context, call *server.Call, in struct {
	proof
	Email string `json:"email" required:"true"`
}) (server.Answer, error) {
	id := call.User.ID
	command := call.SecretCommandID("change email", id.String(), string(in.Password), in.Email)
	result, err := a.Identity.RequestEmailChange(ctx, id, in.of(call), in.Email, command, call.Metadata())
	return server.Accepted().At(result.Position), err
}
