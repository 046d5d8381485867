package test

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// person is a user whose traces can be told from everybody else's: whatever is known of the person begins with the mark,
// and ends in a letter that tells what it is.
type person struct {
	mark   string
	id     string
	token  string
	erased int64 // position; 0 for one who stays
}

// The kinds of traces.
const (
	inEmail     = "e"
	inName      = "n"
	inAttribute = "a"
	inAgent     = "u"
	inNewName   = "m" // that the person took later
	traces      = inEmail + inName + inAttribute + inAgent + inNewName
)

var trace = regexp.MustCompile(`zq[0-9a-f]{16}[` + traces + `]`)

func newPerson() *person {
	raw := make([]byte, 8)
	rand.Read(raw)
	return &person{mark: "zq" + hex.EncodeToString(raw)}
}

func (p *person) email() string            { return p.mark + inEmail + "@example.org" }
func (p *person) credentials() credentials { return credentials{p.email(), userPassword} }

// settle registers the person, logs in, and says something more.
func (p *person) settle(c *client) error {
	a, err := c.call("POST", "/v1/auth/register", map[string]string{"email": p.email(), "password": userPassword, "name": p.mark + inName})
	if err == nil && a.status != http.StatusCreated {
		err = fmt.Errorf("register: %d %s", a.status, a.body)
	}
	if err != nil {
		return err
	}
	var registered struct{ User user }
	if err := json.Unmarshal(a.body, &registered); err != nil {
		return err
	}
	p.id = registered.User.ID
	if p.token, err = p.login(c); err != nil {
		return err
	}
	name, value := bearer(p.token)
	a, err = c.call("PATCH", "/v1/me", map[string]any{"name": p.mark + inNewName, "attributes": map[string]string{"note": p.mark + inAttribute}}, name, value)
	if err == nil && a.status != http.StatusOK {
		err = fmt.Errorf("change the profile: %d %s", a.status, a.body)
	}
	return err
}

func (p *person) login(c *client) (token string, err error) {
	a, err := c.call("POST", "/v1/auth/login", map[string]string{"email": p.email(), "password": userPassword}, "User-Agent", p.mark+inAgent)
	if err == nil && a.status != http.StatusOK {
		err = fmt.Errorf("log in: %d %s", a.status, a.body)
	}
	if err != nil {
		return "", err
	}
	var granted struct {
		AccessToken string `json:"access_token"`
	}
	if err := json.Unmarshal(a.body, &granted); err != nil {
		return "", err
	}
	c.d.keepSecret(granted.AccessToken)
	return granted.AccessToken, nil
}

// forAll does something for every person, a few at a time.
func forAll(t *testing.T, people []*person, do func(i int, p *person) error) {
	t.Helper()
	var wg sync.WaitGroup
	var next atomic.Int64
	for range 16 {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(people); i = int(next.Add(1)) - 1 {
				if err := do(i, people[i]); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
}

// found counts the traces in the files under a directory, by mark and kind.
func found(t *testing.T, dir string) map[string]int {
	t.Helper()
	seen := map[string]int{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) { // gone since it was listed
			return nil
		}
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		raw, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		for _, m := range trace.FindAll(raw, -1) {
			seen[string(m)]++
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return seen
}

// wantGone fails unless the files under a directory have no trace of those who are erased, while the same search finds the
// traces of the given kinds of everybody else.
func wantGone(t *testing.T, what, dir string, people []*person, kinds string) {
	t.Helper()
	seen := found(t, dir)
	left, missed := 0, 0
	for _, p := range people {
		for _, kind := range strings.Split(traces, "") {
			n := seen[p.mark+kind]
			if p.erased > 0 && n > 0 {
				left++
			}
			if p.erased == 0 && n == 0 && strings.Contains(kinds, kind) {
				missed++
			}
		}
	}
	if left > 0 {
		t.Errorf("%s: %d traces of erased users are left", what, left)
	}
	if missed > 0 {
		t.Errorf("%s: %d traces of those who stayed were not found, so the search is good for nothing", what, missed)
	}
}
