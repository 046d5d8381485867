package identity

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"unicode/utf8"
)

// Limits of attributes.
const (
	maxAttributes     = 8 << 10 // bytes, in the encoding that is stored
	maxAttributeName  = 64      // bytes, on every level
	maxAttributeDepth = 5       // objects and arrays inside each other; the attributes themselves are the first
)

// ParseAttributes reads the attributes of a new user: a JSON object of what the application keeps about a user. They are a
// merge patch to none, so a member that is null is left out. It fails as MergeAttributes does.
//
// An administrator may set every attribute. Users may set those whose names Config.UserAttributes has, and no others: an
// application may well keep in here what a user must not decide, such as a plan that was paid for.
func ParseAttributes(raw json.RawMessage) (json.RawMessage, error) {
	return MergeAttributes(noAttributes, raw)
}

// MergeAttributes applies a JSON merge patch (RFC 7396) to a user's attributes, and answers with all of them: names sorted,
// without white space, numbers as they were written. It fails with an *Error of CodeInvalidAttributes that says why.
func MergeAttributes(present, patch json.RawMessage) (json.RawMessage, error) {
	changes, err := decodeAttributes(patch)
	if err != nil {
		return nil, err
	}
	merged := marshal(mergePatch(decodeNumbers(present), changes))
	if len(merged) > maxAttributes {
		return nil, refuse(CodeInvalidAttributes, "the attributes have %d bytes, at most %d", len(merged), maxAttributes)
	}
	return merged, nil
}

// mergePatch is MergePatch of RFC 7396, section 2.
func mergePatch(target, patch any) any {
	members, ok := patch.(map[string]any)
	if !ok {
		return patch
	}
	merged, ok := target.(map[string]any)
	if !ok {
		merged = map[string]any{}
	}
	for name, value := range members {
		if value == nil {
			delete(merged, name)
		} else {
			merged[name] = mergePatch(merged[name], value)
		}
	}
	return merged
}

// decodeNumbers decodes JSON that is valid, and keeps the numbers as they were written.
func decodeNumbers(raw json.RawMessage) (v any) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		panic(err)
	}
	return v
}

// decodeAttributes decodes attributes, or a patch of some, and checks everything about them but their size.
func decodeAttributes(raw json.RawMessage) (map[string]any, error) {
	switch {
	case !utf8.Valid(raw):
		return nil, refuse(CodeInvalidAttributes, "the attributes are not valid UTF-8")
	case !json.Valid(raw):
		return nil, refuse(CodeInvalidAttributes, "the attributes are not a JSON object")
	}
	members, ok := decodeNumbers(raw).(map[string]any)
	if !ok {
		return nil, refuse(CodeInvalidAttributes, "the attributes are not a JSON object")
	}
	return members, checkAttribute(members, 1)
}

// checkAttribute checks a value of attributes, which is that deep in them.
func checkAttribute(value any, depth int) error {
	switch v := value.(type) {
	case string:
		return checkAttributeText(v)
	case json.Number:
		if _, err := v.Float64(); err != nil {
			return refuse(CodeInvalidAttributes, "a number in the attributes is out of range")
		}
	case []any:
		if depth > maxAttributeDepth {
			return tooDeep()
		}
		for _, element := range v {
			if err := checkAttribute(element, depth+1); err != nil {
				return err
			}
		}
	case map[string]any:
		if depth > maxAttributeDepth {
			return tooDeep()
		}
		for name, member := range v {
			if name == "" || len(name) > maxAttributeName {
				return refuse(CodeInvalidAttributes, "the name of an attribute has 1 to %d bytes", maxAttributeName)
			}
			if err := checkAttributeText(name); err != nil {
				return err
			}
			if err := checkAttribute(member, depth+1); err != nil {
				return err
			}
		}
	}
	return nil
}

func tooDeep() error {
	return refuse(CodeInvalidAttributes, "the attributes are nested more than %d deep", maxAttributeDepth)
}

func checkAttributeText(text string) error {
	if strings.ContainsRune(text, 0) {
		return refuse(CodeInvalidAttributes, "the attributes have a NUL character")
	}
	return nil
}

// everyAttribute in Config.UserAttributes lets users set all attributes.
const everyAttribute = "*"

// maySetAttributes refuses a merge patch of attributes by the user whom they are about, where one of them is not the
// user's to set. The patch is one that MergeAttributes takes.
func (s *Service) maySetAttributes(patch json.RawMessage) error {
	if slices.Contains(s.userAttributes, everyAttribute) {
		return nil
	}
	members, _ := decodeNumbers(patch).(map[string]any)
	for name := range members {
		if !slices.Contains(s.userAttributes, name) {
			return refuse(CodeForbidden, "users may not set the attribute %q themselves", name)
		}
	}
	return nil
}
