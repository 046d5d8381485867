package token_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"usher.example/token"
)

func TestParsePublicKeys(t *testing.T) {
	t.Parallel()
	const ed = `"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"`
	rsa := `"kty":"RSA","e":"AQAB","n":"` + strings.Repeat("_", 341) + `w"`
	for members, want := range map[string]string{
		ed:                                  "EdDSA Ed25519",
		ed + `,"alg":"EdDSA"`:               "EdDSA Ed25519",
		ed + `,"use":"sig"`:                 "EdDSA Ed25519",
		ed + `,"alg":"Ed25519"`:             "EdDSA Ed25519",
		ed + `,"use":"enc"`:                 "",
		ed + `,"alg":"ES256"`:               "",
		rsa:                                 "RS256 PS256",
		rsa + `,"alg":"PS256"`:              "PS256",
		rsa + `,"alg":"RS256"`:              "RS256",
		rsa + `,"alg":"HS256"`:              "",
		rsa + `,"alg":"RSA-OAEP"`:           "",
		`"kty":"oct","k":"AAAA"`:            "",
		`"kty":"OKP","x":"AAAA"`:            "",
		`"kty":"RSA","n":"AQAB","e":"AQAB"`: "",
	} {
		keys, err := token.ParsePublicKeys([]byte(`{"keys":[7,{` + members + `}]}`))
		var got []string
		for _, k := range keys {
			got = k.Algorithms
		}
		if err != nil || strings.Join(got, " ") != want {
			t.Errorf("ParsePublicKeys(%s) = %v, %v, want %q", members, got, err, want)
		}
	}
	keys, err := token.ParsePublicKeys([]byte(`{"keys":[{` + ed + `},{` + rsa + `,"kid":"a"}]}`))
	if err != nil || len(keys) != 2 || keys[0].ID != "" || keys[1].ID != "a" || keys[0].Key == nil {
		t.Errorf("ParsePublicKeys = %v, %v", keys, err)
	}
	if !slices.IsSorted(token.PublicAlgorithms) || !keys[1].Fits("PS256") || keys[0].Fits("PS256") {
		t.Errorf("%v of %v", keys, token.PublicAlgorithms)
	}
	if _, err := token.ParsePublicKeys([]byte(`{}`)); !errors.Is(err, token.ErrKey) {
		t.Errorf("ParsePublicKeys({}) = %v, want %v", err, token.ErrKey)
	}
}
