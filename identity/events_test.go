package identity

import (
	"bytes"
	"encoding/json"
	"flag"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"usher.example/eventstore"
	"usher.example/internal/eventcheck"
	"usher.example/schema"
)

var update = flag.Bool("update", false, "write golden files that don't exist yet")

var sampleClient = ClientSettings{
	Name: "shop", RedirectURIs: []string{"https://shop.example/cb"}, PostLogoutRedirectURIs: []string{"https://shop.example/"},
	AllowedOrigins: []string{"https://shop.example"}, Grants: []string{"authorization_code", "refresh_token"}, Scopes: []string{"openid", "email"},
	FirstParty: true, Authentication: "private_key_jwt", JWKS: json.RawMessage(`{"keys":[]}`), JWKSURI: "https://shop.example/jwks.json",
	AccessTokenSeconds: 600, RefreshTokenSeconds: 86400,
}

// samples has a payload of every event type, with every field set.
func samples() []Payload {
	var registered Registered
	registered.Personal.Email, registered.Personal.Name = "Ada@Example.org", "Ada Lovelace"
	imported := Imported{EmailVerified: true, Roles: []string{RoleAdmin}, CreatedAt: time.Date(2019, 3, 1, 10, 0, 0, 0, time.UTC)}
	imported.Personal.Email, imported.Personal.Name = "Ada@Example.org", "Ada Lovelace"
	imported.Personal.Attributes = json.RawMessage(`{"department":"engines"}`)
	updated := renamed("Ada King")
	updated.Personal.Attributes = json.RawMessage(`{"locale":"en-GB"}`)
	var requested EmailChangeRequested
	requested.Personal.Email = "ada@example.net"
	return []Payload{
		registered, imported, RegisteredAgain{}, EmailVerificationRequested{}, verified("Ada@Example.org"), requested, emailChanged("ada@example.net"), updated,
		PasswordResetRequested{}, PasswordChanged{Reason: ReasonChange, Session: uuid.MustParse("0198c0de-0000-7000-8000-000000000001")},
		RoleGranted{Role: RoleAdmin}, RoleRevoked{Role: RoleAdmin},
		Locked{}, Unlocked{}, Disabled{}, Enabled{},
		TOTPEnabled{}, TOTPDisabled{Reason: ReasonAdmin}, RecoveryCodesGenerated{Count: 10}, LoginFailed{Reason: MethodTOTP},
		ConsentGiven{Client: "0198c0de-0000-7000-8000-000000000004", Scopes: []string{"email", "openid"}},
		ConsentWithdrawn{Client: "https://agent.example/client.json"}, Erased{},
		SessionStarted{Methods: []string{MethodPassword}, ExpiresAt: time.Date(2026, 2, 3, 4, 5, 6, 789000, time.UTC)},
		SessionGranted{Client: "0198c0de-0000-7000-8000-000000000004", Scopes: []string{"email", "openid"}, Parent: uuid.MustParse("0198c0de-0000-7000-8000-000000000005"),
			ExpiresAt: time.Date(2026, 2, 3, 4, 5, 6, 789000, time.UTC)},
		SessionReuseDetected{}, SessionEnded{Reason: EndedLogout},
		KeyRotated{KeyID: "k1", Algorithm: "ES256", SignsFrom: time.Date(2026, 2, 3, 4, 5, 6, 789000, time.UTC)},
		WebhookDisabled{Webhook: uuid.MustParse("0198c0de-0000-7000-8000-000000000002"), Reason: WebhookGone},
		ClientRegistered{sampleClient}, ClientChanged{sampleClient}, ClientRemoved{},
		ClientSecretAdded{Secret: uuid.MustParse("0198c0de-0000-7000-8000-000000000003"), Kind: SecretKey, Prefix: "usher_sk_a1B2", Scopes: []string{"events:read"},
			ExpiresAt: time.Date(2026, 2, 3, 4, 5, 6, 789000, time.UTC)},
		ClientSecretRetired{Secret: uuid.MustParse("0198c0de-0000-7000-8000-000000000003")},
		ProjectionRebuilt{Name: "users", Generation: 2, CodeVersion: 1, Position: 1200, Events: 1200, Duration: 1.25,
			Differences: []ProjectionDifference{{Table: "users", Missing: 1, Extra: 2, Changed: 3}}},
		ProjectionRolledBack{Name: "users", Generation: 1, CodeVersion: 1, Position: 1300},
		eventstore.Restored{Fork: 9, Last: 12, Voided: 2, Part: 1, Parts: 1, Void: []eventstore.VoidEvent{
			{Position: 10, ID: uuid.MustParse("0198c0de-0000-7000-8000-000000000010"), Type: TypeUserRegistered,
				Stream: uuid.MustParse("0198c0de-0000-7000-8000-000000000011"), Subject: "0198c0de-0000-7000-8000-000000000011"},
			{Position: 12, ID: uuid.MustParse("0198c0de-0000-7000-8000-000000000012"), Type: TypeKeyRotated,
				Stream: uuid.MustParse("0198c0de-0000-7000-8000-000000000013"), Subject: "system"},
		}},
		ProjectionEventSkipped{Name: "users", Position: 17, Type: TypeUserRoleGranted, User: uuid.MustParse("01980000-0000-7000-8000-000000000001")},
	}
}

// sameJSON compares JSON for what it says.
var sameJSON = cmp.Transformer("JSON", func(raw json.RawMessage) (v any) {
	if err := json.Unmarshal(raw, &v); len(raw) > 0 && err != nil {
		panic(err)
	}
	return v
})

func TestEveryTypeHasASampleAndASchema(t *testing.T) {
	t.Parallel()
	var types, names []string
	for _, p := range samples() {
		types = append(types, p.EventType())
		names = append(names, p.EventType()+".v1")
	}
	slices.Sort(types)
	if diff := cmp.Diff(slices.Sorted(maps.Keys(decoders)), types); diff != "" {
		t.Errorf("decoders and samples differ (-decoders +samples):\n%s", diff)
	}
	slices.Sort(names)
	if diff := cmp.Diff(schema.Events(), names); diff != "" {
		t.Errorf("schemas and samples differ (-schemas +samples):\n%s", diff)
	}
}

// The golden files are what is stored for each version of an event. They never change: whatever this code becomes has
// to read them.
func TestGolden(t *testing.T) {
	t.Parallel()
	type stored struct {
		Data     json.RawMessage `json:"data"`
		Personal json.RawMessage `json:"personal,omitempty"`
	}
	for _, p := range samples() {
		t.Run(p.EventType(), func(t *testing.T) {
			t.Parallel()
			e := NewEvent(p)
			if err := eventcheck.Event(e); err != nil {
				t.Error(err)
			}
			file := filepath.Join("testdata", e.Type+".v1.json")
			got, err := json.MarshalIndent(stored{e.Data, e.Personal}, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, '\n')
			want, err := os.ReadFile(file)
			if *update && os.IsNotExist(err) {
				want, err = got, os.WriteFile(file, got, 0o644)
			}
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("encoded as\n%s\nwant\n%s", got, want)
			}
			var golden stored
			if err := json.Unmarshal(want, &golden); err != nil {
				t.Fatal(err)
			}
			event := eventstore.Event{Type: e.Type, SchemaVersion: 1, Data: golden.Data, Personal: golden.Personal}
			for name, e := range map[string]eventstore.Event{
				"from the log":   event,
				"from a message": {Type: e.Type, SchemaVersion: 1, Data: event.Payload()},
			} {
				decoded, err := DecodeAny(e)
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				if diff := cmp.Diff(p, decoded, sameJSON); diff != "" {
					t.Errorf("%s (-want +got):\n%s", name, diff)
				}
			}
		})
	}
}

// A field that is not set is not stored, and one that is set to be empty is.
func TestEncodeOptionalFields(t *testing.T) {
	t.Parallel()
	var imported Imported
	imported.Personal.Email = "a@example.org"
	for want, p := range map[string]Payload{
		`{"email_verified":false} {"email":"a@example.org"}`: imported,
		`{} {"name":""}`: renamed(""),
		`{} {}`:          ProfileUpdated{},
	} {
		e := NewEvent(p)
		if got := string(e.Data) + " " + string(e.Personal); got != want {
			t.Errorf("%#v is stored as %s, want %s", p, got, want)
		}
		if err := eventcheck.Event(e); (err == nil) != (want != "{} {}") {
			t.Errorf("%s against its schema: %v", want, err)
		}
		got, err := DecodeAny(eventstore.Event{Type: e.Type, SchemaVersion: 1, Data: e.Data, Personal: e.Personal})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(p, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", want, diff)
		}
	}
}

// What a struct stores as personal is what its schema marks, whether a sample sets it or not.
func TestPersonalFields(t *testing.T) {
	t.Parallel()
	for _, p := range samples() {
		want, err := eventcheck.Personal(p.EventType() + ".v1")
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]bool{}
		if field, ok := reflect.TypeOf(p).FieldByName("Personal"); ok {
			if field.Tag.Get("json") != "-" {
				t.Errorf("%s: Personal is encoded among the open fields", p.EventType())
			}
			for i := range field.Type.NumField() {
				name, _, _ := strings.Cut(field.Type.Field(i).Tag.Get("json"), ",")
				got[name] = true
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: personal fields (-schema +struct):\n%s", p.EventType(), diff)
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	t.Parallel()
	for name, e := range map[string]eventstore.Event{
		"an unknown type":        {Type: "user.vanished", SchemaVersion: 1},
		"a newer schema version": {Type: TypeUserLocked, SchemaVersion: 2},
		"broken content":         {Type: TypeUserRoleGranted, SchemaVersion: 1, Data: json.RawMessage(`{"role":7}`)},
	} {
		if p, err := DecodeAny(e); err == nil {
			t.Errorf("%s: decoded as %#v", name, p)
		}
	}
	if _, err := Decode[RoleGranted](eventstore.Event{Type: TypeUserRoleRevoked, SchemaVersion: 1}); err == nil {
		t.Error("a role.revoked was decoded as role.granted")
	}
}
