#!/usr/bin/env bash
# One would guess that a router gives a handler the parameters of a path either as they were sent or decoded, always in one way.
#
# What happens: with Echo's defaults the same bytes of a parameter come decoded or not by what else is in the path. a%20b is "a b"; once any
# character anywhere in the path is encoded that need not be, or is a slash, net/url keeps RawPath, Echo matches on that, and a%20b
# stays "a%20b", even where the slash is in another parameter.
#
# Why it matters: ids that are URLs (a client of a Client ID Metadata Document, a resource indicator) have encoded slashes, so a handler that
# looks one up finds nothing; one that decodes by itself decodes twice where the path had none. RouterConfig.UnescapePathParamValues
# decodes what comes of RawPath alone, so that it is once in both cases.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
cat >main.go <<'END'
package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"

	"github.com/labstack/echo/v5"
)

func ask(config echo.RouterConfig, path string) string {
	e := echo.NewWithConfig(echo.Config{Router: echo.NewRouter(config)})
	e.GET("/of/:user/:client", func(c *echo.Context) error { return c.String(http.StatusOK, c.Param("user")+" | "+c.Param("client")) })
	w := httptest.NewRecorder()
	e.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	return w.Body.String()
}

func main() {
	fmt.Println("echo", echo.Version)
	failed := false
	for _, t := range []struct{ path, plain, unescaped string }{
		{"/of/a%20b/c", "a b | c", "a b | c"},
		{"/of/a%20b/c%2Fd", "a%20b | c%2Fd", "a b | c/d"},
		{"/of/a%2520b/c%2Fd", "a%2520b | c%2Fd", "a%20b | c/d"},
	} {
		plain, unescaped := ask(echo.RouterConfig{}, t.path), ask(echo.RouterConfig{UnescapePathParamValues: true}, t.path)
		fmt.Printf("%-20s by default: %-18q UnescapePathParamValues: %q\n", t.path, plain, unescaped)
		failed = failed || plain != t.plain || unescaped != t.unescaped
	}
	if failed {
		fmt.Println("that is otherwise than it was")
		os.Exit(1)
	}
}
END
go mod init example.org/parameters >/dev/null 2>&1
go get github.com/labstack/echo/v5@v5.4.4 >/dev/null 2>&1
go mod tidy >/dev/null 2>&1
go run .
