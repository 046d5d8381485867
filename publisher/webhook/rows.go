package webhook

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	"usher.example/eventstore"
)

// row is what is written of a delivery. The names are those of the columns that it is read as in a statement; times are texts
// on SQLite, as UTC.
type row struct {
	Of       int64     `json:"of"` // position
	Subject  uuid.UUID `json:"subject"`
	IsUser   bool      `json:"is_user"`
	EventID  uuid.UUID `json:"event_id"`
	Type     string    `json:"type"`
	Status   string    `json:"status"`
	Attempts int32     `json:"attempts"`
	Next     *string   `json:"next"`
	At       *string   `json:"at"` // of the last attempt
	Code     *int32    `json:"code"`
	Reason   string    `json:"reason"`
	Response *string   `json:"response"` // in hexadecimal
	Leads    bool      `json:"leads"`    // it is the first pending one of its user in the list
}

// rowsOf makes a list of deliveries the source of a statement, r, whose columns are those of row. The placeholders begin at
// n. Postgres gets an array a column, which costs it and us a fraction of what JSON does.
func rowsOf(d eventstore.Dialect, n int, list []*parcel) (from string, args []any) {
	if d == eventstore.SQLite {
		return jsonRows(n, list)
	}
	var (
		positions        = make([]int64, len(list))
		subjects, events = make([][16]byte, len(list)), make([][16]byte, len(list))
		users, leads     = make([]bool, len(list)), make([]bool, len(list))
		types, statuses  = make([]string, len(list)), make([]string, len(list))
		attempts         = make([]int32, len(list))
		next, at         = make([]*time.Time, len(list)), make([]*time.Time, len(list))
		codes            = make([]*int32, len(list))
		reasons          = make([]string, len(list))
		responses        = make([][]byte, len(list))
		lead             = leaders{}
	)
	for i, p := range list {
		positions[i], subjects[i], events[i], users[i], types[i] = p.position, p.subject, p.eventID, p.isUser, p.eventType
		statuses[i], attempts[i], next[i], leads[i] = string(p.status), p.made(), p.next, lead.first(p)
		if p.tried {
			at[i], codes[i], reasons[i], responses[i] = &p.began, p.code(), p.reason, p.response
		}
	}
	columns := []struct {
		name, kind string
		values     any
	}{
		{"of", "bigint", positions},
		{"subject", "uuid", subjects},
		{"is_user", "boolean", users},
		{"event_id", "uuid", events},
		{"type", "text", types},
		{"status", "text", statuses},
		{"attempts", "int", attempts},
		{"next", "timestamptz", next},
		{"at", "timestamptz", at},
		{"code", "int", codes},
		{"reason", "text", reasons},
		{"response", "bytea", responses},
		{"leads", "boolean", leads},
	}
	names, arrays := make([]string, len(columns)), make([]string, len(columns))
	for i, c := range columns {
		names[i], arrays[i] = c.name, fmt.Sprintf("$%d::%s[]", n+i, c.kind)
		args = append(args, c.values)
	}
	return "unnest(" + strings.Join(arrays, ", ") + ") AS r(" + strings.Join(names, ", ") + ")", args
}

func jsonRows(n int, list []*parcel) (from string, args []any) {
	rows, lead := make([]row, len(list)), leaders{}
	for i, p := range list {
		rows[i] = row{
			Of: p.position, Subject: p.subject, IsUser: p.isUser, EventID: p.eventID, Type: p.eventType,
			Status: string(p.status), Attempts: p.made(), Next: timeText(p.next), Leads: lead.first(p),
		}
		if p.tried {
			rows[i].At, rows[i].Code, rows[i].Reason = timeText(&p.began), p.code(), p.reason
			if p.response != nil {
				response := hex.EncodeToString(p.response)
				rows[i].Response = &response
			}
		}
	}
	raw, err := json.Marshal(rows)
	if err != nil { // texts, numbers and ids can be expressed in JSON
		panic(err)
	}
	return fmt.Sprintf(`(SELECT value->>'of' AS of, value->>'subject' AS subject, value->>'is_user' AS is_user, value->>'event_id' AS event_id,
		value->>'type' AS type, value->>'status' AS status, value->>'attempts' AS attempts, value->>'next' AS next, value->>'at' AS at,
		value->>'code' AS code, value->>'reason' AS reason, unhex(value->>'response') AS response, value->>'leads' AS leads
		FROM json_each($%d)) AS r`, n), []any{string(raw)}
}

// leaders are the users of whom a list has had a pending delivery.
type leaders map[uuid.UUID]bool

func (l leaders) first(p *parcel) bool {
	if p.status != DeliveryPending || l[p.subject] {
		return false
	}
	l[p.subject] = true
	return true
}

// made is how many attempts were made.
func (p *parcel) made() int32 {
	if p.tried {
		return int32(p.attempts) + 1
	}
	return int32(p.attempts)
}

// code is the status of HTTP of the last answer, nil where there was none.
func (p *parcel) code() *int32 {
	if p.answer.status == 0 {
		return nil
	}
	code := int32(p.answer.status)
	return &code
}

func timeText(t *time.Time) *string {
	if t == nil {
		return nil
	}
	text := t.Format("2006-01-02 15:04:05.000000")
	return &text
}
