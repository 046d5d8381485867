package projections

import (
	"context"
	"fmt"
	"time"

	"usher.example/eventstore"
)

// Stats queries the read model of statistics.
type Stats struct{ DB eventstore.DB }

// MaxSpans bounds the spans of an answer.
const MaxSpans = 1000

// Between answers with the figures of every span that begins at or after from, taken back to where a span begins, and
// before to, in the order of time. A span in which nothing happened has zeros. It fails with ErrBadFilter for a span that
// there is not, for no time, and for more than MaxSpans; and as Users.List does.
func (q Stats) Between(ctx context.Context, span Span, from, to time.Time) ([]Figures, error) {
	list, err := q.between(ctx, span, from, to)
	if err != nil {
		return nil, fmt.Errorf("read statistics: %w", err)
	}
	return list, nil
}

// Check fails as Between does for what can't be asked, and reads nothing: for who would wait before it is read.
func (Stats) Check(span Span, from, to time.Time) error {
	_, _, err := spansBetween(span, from, to)
	return err
}

// spansBetween is where the first span begins, and how many there are.
func spansBetween(span Span, from, to time.Time) (begin time.Time, spans int, err error) {
	length := span.Length()
	if length == 0 {
		return begin, 0, badFilter("the interval is hour or day")
	}
	begin = from.UTC().Truncate(length)
	count := (to.Sub(begin) + length - 1) / length
	if count < 1 || count > MaxSpans {
		return begin, 0, badFilter("from is before to, and at most %d times the %s", MaxSpans, span)
	}
	return begin, int(count), nil
}

func (q Stats) between(ctx context.Context, span Span, from, to time.Time) ([]Figures, error) {
	from, spans, err := spansBetween(span, from, to)
	if err != nil {
		return nil, err
	}
	length := span.Length()
	list := make([]Figures, spans)
	for i := range list {
		list[i].Start = from.Add(time.Duration(i) * length)
	}
	rows, err := q.DB.Query(ctx, "SELECT start, registrations, logins, failed_logins, active_users FROM "+ViewName(q.DB.Dialect(), StatsName)+
		" WHERE span = $1 AND start >= $2 AND start < $3", string(span), from, to)
	if err != nil {
		return nil, explain(ctx, q.DB, StatsProjection{}, err)
	}
	defer rows.Close()
	for rows.Next() {
		var f Figures
		if err := rows.Scan(&f.Start, &f.Registrations, &f.Logins, &f.FailedLogins, &f.ActiveUsers); err != nil {
			return nil, err
		}
		f.Start = f.Start.UTC()
		list[f.Start.Sub(from)/length] = f
	}
	if err := rows.Err(); err != nil {
		return nil, explain(ctx, q.DB, StatsProjection{}, err)
	}
	return list, nil
}
