package server

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/labstack/echo/v5"
)

// DocumentMaxAge is how long what Document answers with may be kept. A key has to be announced for longer before it signs.
const DocumentMaxAge = 5 * time.Minute

// publicFor is how long documents that seldom change may be kept.
var publicFor = []string{fmt.Sprintf("public, max-age=%d", DocumentMaxAge/time.Second)}

// Document answers with something that everybody may see and keep for a while, and after that ask whether it is still the
// same (RFC 9110, section 13.1.2).
func Document(contentType string, content []byte) Answer {
	sum := sha256.Sum256(content)
	tag := `"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`
	return Written(func(c *echo.Context) error {
		h := c.Response().Header()
		h[echo.HeaderCacheControl] = publicFor
		h["Etag"] = []string{tag}
		if matches(c.Request().Header["If-None-Match"], tag) {
			return c.NoContent(http.StatusNotModified)
		}
		return c.Blob(http.StatusOK, contentType, content)
	})
}

// matches says whether a tag is among those of an If-None-Match header.
func matches(headers []string, tag string) bool {
	for _, header := range headers {
		for _, t := range strings.Split(header, ",") {
			if t = strings.TrimSpace(t); t == "*" || strings.TrimPrefix(t, "W/") == tag {
				return true
			}
		}
	}
	return false
}
