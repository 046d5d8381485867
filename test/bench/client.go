package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
)

const (
	registerPath = "/v1/auth/register"
	loginPath    = "/v1/auth/login"
	refreshPath  = "/v1/auth/refresh"
	mePath       = "/v1/me"
)

type registerBody struct {
	Email    string `json:"email"`
	Password string `json:"password"`
	Name     string `json:"name"`
}

type loginBody struct {
	Email    string `json:"email"`
	Password string `json:"password"`
}

type refreshBody struct {
	RefreshToken string `json:"refresh_token"`
}

type loginAnswer struct {
	AccessToken  string `json:"access_token"`
	RefreshToken string `json:"refresh_token"`
}

// client is one connection to a server. net/http's client uses more CPU than the servers under measurement do; this one
// writes a request that was made before and reads an answer that has a Content-Length.
type client struct {
	conn net.Conn
	in   *bufio.Reader
}

func dial(address string) (*client, error) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	return &client{conn, bufio.NewReader(conn)}, nil
}

func (c *client) close() error { return c.conn.Close() }

// request is a request as it goes over the wire. body is nil for a GET.
func request(address, path, token string, body any) ([]byte, error) {
	var b bytes.Buffer
	var raw []byte
	method := "GET"
	if body != nil {
		method = "POST"
		var err error
		if raw, err = json.Marshal(body); err != nil {
			return nil, err
		}
	}
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: bench\r\n", method, path, address)
	if body != nil {
		fmt.Fprintf(&b, "Content-Type: application/json\r\nContent-Length: %d\r\n", len(raw))
	}
	if token != "" {
		fmt.Fprintf(&b, "Authorization: Bearer %s\r\n", token)
	}
	b.WriteString("\r\n")
	b.Write(raw)
	return b.Bytes(), nil
}

// do sends a request and answers with the body, which is valid until the next call. A status other than 2xx is an error.
func (c *client) do(request []byte) ([]byte, error) {
	if _, err := c.conn.Write(request); err != nil {
		return nil, err
	}
	status, err := c.line()
	if err != nil {
		return nil, err
	}
	ok := bytes.HasPrefix(status, []byte("HTTP/1.1 2"))
	text := string(status)
	length := -1
	for {
		header, err := c.line()
		if err != nil {
			return nil, err
		}
		if len(header) == 0 {
			break
		}
		if value, found := bytes.CutPrefix(header, []byte("Content-Length: ")); found {
			if length, err = strconv.Atoi(string(value)); err != nil {
				return nil, err
			}
		}
	}
	if length < 0 {
		return nil, errors.New("an answer without Content-Length")
	}
	body, err := c.in.Peek(length)
	if err != nil {
		return nil, err
	}
	if _, err := c.in.Discard(length); err != nil {
		return nil, err
	}
	if !ok {
		return nil, fmt.Errorf("%s: %s", text, body)
	}
	return body, nil
}

func (c *client) line() ([]byte, error) {
	line, err := c.in.ReadSlice('\n')
	if errors.Is(err, io.EOF) {
		return nil, io.ErrUnexpectedEOF
	}
	return bytes.TrimRight(line, "\r\n"), err
}
