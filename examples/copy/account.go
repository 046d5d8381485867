package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"
)

// account is the service's own account in usher. It logs in when it has to, and refreshes its access token before that
// expires.
type account struct {
	usher, email, password string

	mu      sync.Mutex
	access  string
	refresh string
	expires time.Time // of the access token
}

// given says what of it is missing.
func (a *account) given() error {
	var errs []error
	if a.email == "" {
		errs = append(errs, errors.New("copy: -email is missing: the address of an administrator, since only those may read the log"))
	}
	if a.password == "" {
		errs = append(errs, errors.New("copy: USHER_PASSWORD is not set: the password of that administrator"))
	}
	return errors.Join(errs...)
}

// token is an access token that is good for a minute at least.
func (a *account) token(ctx context.Context) (string, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if time.Until(a.expires) > time.Minute {
		return a.access, nil
	}
	if a.refresh != "" && a.ask(ctx, "/v1/auth/refresh", map[string]string{"refresh_token": a.refresh}) == nil {
		return a.access, nil
	}
	err := a.ask(ctx, "/v1/auth/login", map[string]string{"email": a.email, "password": a.password})
	return a.access, err
}

// ask asks for tokens.
func (a *account) ask(ctx context.Context, path string, with map[string]string) error {
	body, err := json.Marshal(with)
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, a.usher+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	var answer struct {
		Access  string `json:"access_token"`
		Refresh string `json:"refresh_token"`
		Expires int    `json:"expires_in"` // in seconds
		Code    string `json:"code"`       // of a problem
		Detail  string `json:"detail"`
	}
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		return fmt.Errorf("%s: %s: %w", path, response.Status, err)
	}
	if response.StatusCode != http.StatusOK {
		return errors.New(path + ": " + answer.Code + " " + answer.Detail)
	}
	a.access, a.refresh = answer.Access, answer.Refresh
	a.expires = time.Now().Add(time.Duration(answer.Expires) * time.Second)
	return nil
}
