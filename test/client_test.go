package test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"testing"
	"time"
)

// client calls the API of one process.
type client struct {
	d    *deployment
	base string
	http *http.Client
}

func (d *deployment) client(addr string) *client {
	transport := &http.Transport{MaxIdleConnsPerHost: 64}
	d.t.Cleanup(transport.CloseIdleConnections)
	return &client{d, "http://" + addr, &http.Client{Transport: transport, Timeout: time.Minute}}
}

// answer is what the API answered.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// call makes a request, with a JSON body unless it is nil, and headers given as names and values.
func (c *client) call(method, path string, body any, headers ...string) (answer, error) {
	var content io.Reader
	if body != nil {
		raw, err := json.Marshal(body)
		if err != nil {
			return answer{}, err
		}
		content = bytes.NewReader(raw)
	}
	r, err := http.NewRequest(method, c.base+path, content)
	if err != nil {
		return answer{}, err
	}
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	response, err := c.http.Do(r)
	if err != nil {
		return answer{}, err
	}
	defer response.Body.Close()
	a := answer{status: response.StatusCode, header: response.Header}
	a.body, err = io.ReadAll(response.Body)
	return a, err
}

// want makes a request that has to be answered with a status.
func (c *client) want(t *testing.T, status int, method, path string, body any, headers ...string) answer {
	t.Helper()
	a, err := c.call(method, path, body, headers...)
	if err != nil {
		t.Fatal(err)
	}
	if a.status != status {
		t.Fatalf("%s %s = %d, want %d: %s", method, path, a.status, status, a.body)
	}
	return a
}

// into reads the body of an answer.
func into[T any](t *testing.T, a answer) (v T) {
	t.Helper()
	if err := json.Unmarshal(a.body, &v); err != nil {
		t.Fatalf("answer %d: %v\n%s", a.status, err, a.body)
	}
	return v
}

// bearer is the header that a token goes into.
func bearer(token string) (name, value string) { return "Authorization", "Bearer " + token }

// position is the place in the log that the answer to a write tells.
func (a answer) position() (int64, error) {
	return strconv.ParseInt(a.header.Get("Usher-Position"), 10, 64)
}

// user is a user as the API shows one.
type user struct {
	ID    string   `json:"id"`
	Email string   `json:"email"`
	Name  string   `json:"name"`
	Roles []string `json:"roles"`
}

// registration is a registration that was answered with 201.
type registration struct {
	user
	position int64
}

const userPassword = "correct horse battery staple"

// errNot201 is an answer to a registration that is not 201.
type errNot201 struct{ answer }

func (e errNot201) Error() string { return fmt.Sprintf("answer %d: %s", e.status, e.body) }

// register registers a user with userPassword.
func (c *client) register(email string, headers ...string) (registration, error) {
	c.d.keepSecret(userPassword)
	a, err := c.call("POST", "/v1/auth/register", map[string]string{"email": email, "password": userPassword, "name": "Somebody"}, headers...)
	if err != nil {
		return registration{}, err
	}
	if a.status != http.StatusCreated {
		return registration{}, errNot201{a}
	}
	var created struct{ User user }
	position, err := a.position()
	return registration{created.User, position}, errors.Join(err, json.Unmarshal(a.body, &created))
}

// registerInTime registers as a client does that comes back when it is told to, because there was too much to do.
func (c *client) registerInTime(t *testing.T, email string) (registration, error) {
	for {
		r, err := c.register(email)
		var busy errNot201
		if !errors.As(err, &busy) || busy.status != http.StatusServiceUnavailable {
			return r, err
		}
		wantProblem(t, busy.answer, http.StatusServiceUnavailable, "overloaded")
		seconds, err := strconv.Atoi(busy.header.Get("Retry-After"))
		if err != nil {
			return r, err
		}
		select {
		case <-time.After(time.Duration(seconds) * time.Second):
		case <-t.Context().Done():
			return r, t.Context().Err()
		}
	}
}

// mustRegister registers a user, which has to succeed.
func (c *client) mustRegister(t *testing.T, email string, headers ...string) registration {
	t.Helper()
	c.d.keepSecret(userPassword)
	a := c.want(t, http.StatusCreated, "POST", "/v1/auth/register",
		map[string]string{"email": email, "password": userPassword, "name": "Somebody"}, headers...)
	position, err := a.position()
	if err != nil {
		t.Fatalf("Usher-Position of a registration: %v", err)
	}
	return registration{into[struct{ User user }](t, a).User, position}
}

// login answers with an access token.
func (c *client) login(t *testing.T, who credentials) string {
	t.Helper()
	a := c.want(t, http.StatusOK, "POST", "/v1/auth/login", map[string]string{"email": who.email, "password": who.password})
	token := into[struct {
		AccessToken string `json:"access_token"`
	}](t, a).AccessToken
	c.d.keepSecret(token)
	return token
}

// waitReady waits until /readyz says so.
func (c *client) waitReady() {
	c.d.t.Helper()
	eventually(c.d.t, c.base+" is ready", func() error { return c.status(http.StatusOK, "/readyz") })
}

// status asks once for the status of a GET.
func (c *client) status(want int, path string) error {
	a, err := c.call("GET", path, nil)
	if err == nil && a.status != want {
		err = fmt.Errorf("GET %s = %d, want %d: %s", path, a.status, want, a.body)
	}
	return err
}

// users lists every user of the read model, page by page, once that has reached a position: a worker that has only just
// started may take longer than the API waits for it.
func (c *client) users(t *testing.T, token string, position int64) map[string]user {
	t.Helper()
	users := map[string]user{}
	for cursor := ""; ; {
		name, value := bearer(token)
		var a answer
		eventually(t, "the read model reaches the position", func() (err error) {
			a, err = c.call("GET", "/v1/users?limit=50&cursor="+url.QueryEscape(cursor), nil,
				name, value, "Usher-Min-Position", strconv.FormatInt(position, 10))
			if err == nil && a.status == http.StatusServiceUnavailable {
				err = fmt.Errorf("answer 503: %s", a.body)
			}
			return err
		})
		if a.status != http.StatusOK {
			t.Fatalf("GET /v1/users = %d: %s", a.status, a.body)
		}
		page := into[struct {
			Items      []user
			NextCursor string `json:"next_cursor"`
		}](t, a)
		for _, u := range page.Items {
			if _, twice := users[u.ID]; twice {
				t.Errorf("user %s is listed twice", u.ID)
			}
			users[u.ID] = u
		}
		if cursor = page.NextCursor; cursor == "" {
			return users
		}
	}
}

// wantProblem fails unless an answer is a problem detail with a status, and with Retry-After where trying again helps.
func wantProblem(t *testing.T, a answer, status int, code string) {
	t.Helper()
	var p struct {
		Type, Title, Code string
		Status            int
	}
	if err := json.Unmarshal(a.body, &p); err != nil {
		t.Errorf("answer %d is no problem detail: %v\n%s", a.status, err, a.body)
	}
	if a.status != status || p.Status != status || p.Code != code || p.Type == "" || p.Title == "" ||
		a.header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("answer %d %s: %s, want a problem %d %s", a.status, a.header.Get("Content-Type"), a.body, status, code)
	}
	if _, err := strconv.Atoi(a.header.Get("Retry-After")); (err == nil) != (status == http.StatusServiceUnavailable) {
		t.Errorf("answer %d has Retry-After %q", a.status, a.header.Get("Retry-After"))
	}
}
