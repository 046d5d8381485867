package api

import (
	"context"

	"usher.example/identity"
	"usher.example/identity/password"
	"usher.example/server"
)

// proof is how a user shows to be that user.
type proof struct {
	Password password.Password   `json:"current_password" required:"true"`
	TOTP     identity.FactorCode `json:"totp"`
}

func (p proof) of(call *server.Call) identity.Proof {
	return identity.Proof{Session: call.Session, Password: p.Password, TOTP: p.TOTP}
}

// optionalProof is how a user may.
type optionalProof struct {
	Password password.Password   `json:"current_password"`
	TOTP     identity.FactorCode `json:"totp"`
}

func (p optionalProof) of(call *server.Call) identity.Proof { return proof(p).of(call) }

// startTOTP answers POST /v1/me/totp.
func (a *api) startTOTP(ctx context.Context, call *server.Call, in proof) (server.Answer, error) {
	key, err := a.Identity.StartTOTP(ctx, call.User.ID, in.of(call), call.Metadata())
	return server.OK(struct {
		Secret string `json:"secret"`
		URL    string `json:"otpauth_url"`
	}{string(key.Secret), string(key.URL)}), err
}

// confirmTOTP answers POST /v1/me/totp/confirm.
func (a *api) confirmTOTP(ctx context.Context, call *server.Call, in struct {
	Code identity.FactorCode `json:"code" required:"true"`
}) (server.Answer, error) {
	result, err := a.Identity.ConfirmTOTP(ctx, call.User.ID, in.Code, call.Metadata())
	return server.Done(result.Position), err
}

// disableTOTP answers DELETE /v1/me/totp.
func (a *api) disableTOTP(ctx context.Context, call *server.Call, in proof) (server.Answer, error) {
	result, err := a.Identity.DisableTOTP(ctx, call.User.ID, in.of(call), call.Metadata())
	return server.Done(result.Position), err
}

// newRecoveryCodes answers POST /v1/me/recovery-codes.
func (a *api) newRecoveryCodes(ctx context.Context, call *server.Call, in proof) (server.Answer, error) {
	codes, result, err := a.Identity.NewRecoveryCodes(ctx, call.User.ID, in.of(call), call.Metadata())
	return server.OK(struct {
		Codes []identity.FactorCode `json:"codes"`
	}{codes}).At(result.Position), err
}
