package server

import (
	"net/http"
	"strconv"
	"strings"
)

// WantsHTML says whether a request names HTML among what it accepts. What accepts everything did not ask for a page.
func WantsHTML(r *http.Request) bool {
	for _, header := range r.Header["Accept"] {
		for part := range strings.SplitSeq(header, ",") {
			media, parameters, _ := strings.Cut(part, ";")
			if strings.EqualFold(strings.TrimSpace(media), "text/html") && !refusedByWeight(parameters) {
				return true
			}
		}
	}
	return false
}

// refusedByWeight says whether the parameters of a media type have a weight of nothing (RFC 9110, section 12.4.2).
func refusedByWeight(parameters string) bool {
	for part := range strings.SplitSeq(parameters, ";") {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		if weight, err := strconv.ParseFloat(value, 64); strings.EqualFold(name, "q") && err == nil && weight == 0 {
			return true
		}
	}
	return false
}
