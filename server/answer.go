package server

import (
	"encoding/json"
	"net/http"
	"strconv"

	"github.com/labstack/echo/v5"

	"usher.example/identity"
)

// Answer is what a call is answered with.
type Answer struct {
	status   int
	body     any
	position int64
	device   identity.DeviceToken
	location string
	write    func(*echo.Context) error
}

// OK answers with a value, in JSON. A json.RawMessage goes out as it is.
func OK(body any) Answer { return With(http.StatusOK, body) }

// Created answers with something that was made, and where it is.
func Created(location string, body any) Answer {
	return Answer{status: http.StatusCreated, body: body, location: location}
}

// Accepted answers a request of which something is still to come, such as a mail.
func Accepted() Answer { return With(http.StatusAccepted, nil) }

// Done answers a request that changed something and has nothing to tell but where in the log; 0 for nowhere.
func Done(position int64) Answer { return With(http.StatusNoContent, nil).At(position) }

// With answers with a status and a value; without content where that is nil.
func With(status int, body any) Answer { return Answer{status: status, body: body} }

// Written is an answer that is written by hand, as what is not in JSON is.
func Written(write func(*echo.Context) error) Answer { return Answer{write: write} }

// At says where in the log what the call wrote is; 0 for nowhere.
func (a Answer) At(position int64) Answer {
	a.position = position
	return a
}

// On gives a device what it is known by from now on, if there is anything.
func (a Answer) On(device identity.DeviceToken) Answer {
	a.device = device
	return a
}

func (a Answer) send(c *echo.Context) error {
	h := c.Response().Header()
	if a.position > 0 {
		h.Set(HeaderPosition, strconv.FormatInt(a.position, 10))
	}
	if a.device != "" {
		h.Set(HeaderDevice, string(a.device))
	}
	if a.location != "" {
		h.Set(echo.HeaderLocation, a.location)
	}
	if a.write != nil {
		return a.write(c)
	}
	switch body := a.body.(type) {
	case nil:
		return c.NoContent(a.status)
	case json.RawMessage:
		return c.JSONBlob(a.status, body)
	default:
		return c.JSON(a.status, body)
	}
}
