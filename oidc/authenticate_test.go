package oidc

import (
	"encoding/base64"
	"net/url"
	"slices"
	"testing"
)

func basic(id, secret string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(url.QueryEscape(id)+":"+url.QueryEscape(secret)))
}

func FuzzBasicCredentials(f *testing.F) {
	for _, seed := range []string{"", "Basic", "Basic YTpi", "basic YTpi", "Basic YTpi\n", "Basic  YTpi", "Bearer YTpi", "Basic " + base64.StdEncoding.EncodeToString([]byte("a%3Ab:c%20d"))} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, header string) {
		id, secret, ok := basicCredentials([]string{header})
		if !ok {
			if id != "" || secret != "" {
				t.Errorf("basicCredentials(%q) = %q, %q, and not good", header, id, secret)
			}
			return
		}
		againID, againSecret, ok := basicCredentials([]string{basic(id, secret)})
		if !ok || !slices.Equal([]string{id, secret}, []string{againID, againSecret}) {
			t.Errorf("%q, %q is read back as %q, %q, %v", id, secret, againID, againSecret, ok)
		}
	})
}
