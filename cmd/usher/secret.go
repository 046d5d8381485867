package main

import (
	"log/slog"
	"net/url"
	"strings"
)

// secret is a setting that nothing prints.
type secret string

func (s secret) String() string {
	if s == "" {
		return ""
	}
	return "[hidden]"
}
func (s secret) GoString() string     { return s.String() }
func (s secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// shown is what of a secret may be shown: of addresses, everything but what lets somebody in, so that one sees which database
// it is. What is not surely understood is hidden whole.
func (s secret) shown() string {
	if !strings.Contains(string(s), "://") {
		return s.String()
	}
	list := strings.Split(string(s), ",")
	for i, address := range list {
		scheme, rest, found := strings.Cut(address, "://")
		if !found {
			if i == 0 || strings.ContainsAny(address, "@?#") { // one more host of the address before
				return s.String()
			}
			continue
		}
		end := strings.IndexAny(rest, "/?#")
		if end < 0 {
			end = len(rest)
		}
		who, host, named := strings.Cut(rest[:end], "@")
		if strings.ContainsAny(host, "@") || strings.ContainsAny(rest[end:], "@#") {
			return s.String()
		}
		user, _, both := strings.Cut(who, ":")
		switch {
		case !named:
			who, host = "", who
		case both:
			who = user + ":" + s.String() + "@"
		case strings.HasPrefix(scheme, "postgres"):
			who = user + "@"
		default: // to NATS it is a token
			who = s.String() + "@"
		}
		path, query, asked := strings.Cut(rest[end:], "?")
		if asked {
			path += "?" + s.shownQuery(query)
		}
		list[i] = scheme + "://" + who + host + path
	}
	return strings.Join(list, ",")
}

// shownQuery is what of an address's parameters may be shown.
func (s secret) shownQuery(query string) string {
	pairs := strings.Split(query, "&")
	for i, pair := range pairs {
		name, _, _ := strings.Cut(pair, "=")
		if decoded, err := url.QueryUnescape(name); err != nil || strings.Contains(strings.ToLower(decoded), "password") {
			pairs[i] = name + "=" + s.String()
		}
	}
	return strings.Join(pairs, "&")
}
