package webhook

import (
	"slices"
	"strings"

	"usher.example/identity"
)

// everything is the filter that every event passes.
const everything = "*"

// maxFilters bounds the filters of a webhook.
const maxFilters = 100

// parseFilters checks the filters that a webhook is to have: event types, prefixes of them such as "user.*", or "*". None
// stands for "*". A filter that no event can pass is refused with ErrUnknownEvent: it is a mistake in spelling.
func parseFilters(filters, types []string) ([]string, error) {
	if len(filters) > maxFilters {
		return nil, refuse(identity.CodeUnknownEvent, "there are %d filters of events, at most %d", len(filters), maxFilters)
	}
	var parsed []string
	for _, f := range filters {
		if !slices.ContainsFunc(types, func(eventType string) bool { return passes(f, eventType) }) {
			return nil, refuse(identity.CodeUnknownEvent, "%s is no event type; there are %s, prefixes such as user.*, and *",
				quote(f), strings.Join(types, ", "))
		}
		if !slices.Contains(parsed, f) {
			parsed = append(parsed, f)
		}
	}
	if parsed == nil {
		parsed = []string{everything}
	}
	return parsed, nil
}

// passes says whether events of a type pass a filter.
func passes(filter, eventType string) bool {
	prefix, isPrefix := strings.CutSuffix(filter, everything)
	switch {
	case !isPrefix:
		return filter == eventType
	case prefix == "":
		return true
	}
	return strings.HasSuffix(prefix, ".") && strings.HasPrefix(eventType, prefix)
}

// wants says whether events of a type pass one of the filters.
func wants(filters []string, eventType string) bool {
	return slices.ContainsFunc(filters, func(f string) bool { return passes(f, eventType) })
}
