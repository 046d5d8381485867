package pages

import (
	"context"
	"errors"
	"strconv"
	"time"

	"usher.example/client"
	"usher.example/identity"
	"usher.example/pages/look"
	"usher.example/projections"
	"usher.example/server"
	"usher.example/words"
)

// activityPage is what happened to somebody's account, the newest first.
type activityPage struct {
	look.View
	Text  look.ActivityPage
	Items []happened
	Older string // where there is more; "" where there is none
	Told  string
}

// happened is something that did, in words.
type happened struct{ When, What, Device, Address string }

// activityShown is how many are on a page.
const activityShown = 25

func (p *pages) showActivity(ctx context.Context, v *visit) (server.Answer, error) {
	before, ok := int64(0), true
	if text := v.query.Get("before"); text != "" {
		before, ok = server.ParsePosition(text)
	}
	if !ok {
		return server.Answer{}, server.Refuse(identity.CodeInvalidRequest, "before is a position")
	}
	found, more, err := p.activities.List(ctx, projections.ActivityFilter{User: v.User.ID, Before: before, Limit: activityShown})
	w := v.Words
	page := activityPage{View: v.View, Text: w.Activity}
	if err != nil {
		return refused(err, p.activity, func(f server.Failure) activityPage {
			page.Told = problem(v.Echo(), w, f)
			if f.Code == identity.CodeBehind {
				page.Told = w.Activity.Behind
			}
			return page
		})
	}
	for _, a := range found {
		name, err := p.called(ctx, a.Details.Client)
		if err != nil {
			return server.Answer{}, err
		}
		one := happened{When: moment(a.Time), What: inWords(w, a, name)}
		if a.Address != "" {
			one.Address = w.Sessions.Address.With("address", leftToRight(a.Address))
		}
		if a.UserAgent != "" {
			one.Device = deviceName(w.Sessions, a.UserAgent)
		}
		page.Items = append(page.Items, one)
	}
	if more {
		page.Older = v.link("/account/activity", "before", strconv.FormatInt(found[len(found)-1].Position, 10))
	}
	return show(p.activity, page)
}

// called is what a client is called; by its id, where there is no such client any more.
func (p *pages) called(ctx context.Context, id string) (string, error) {
	if id == "" {
		return "", nil
	}
	name, err := p.Clients.NameOf(ctx, id)
	if errors.Is(err, client.ErrUnknown) {
		return shorten(id), nil
	}
	return name, err
}

// inWords is what an event says, by its type and the reason that it gives, of a client that is called so.
func inWords(w *look.Words, a projections.ActivityView, client string) string {
	for _, name := range []string{a.Type + " " + a.Details.Reason, a.Type} {
		if text, known := w.Events[name]; known {
			return words.Phrase(text.With("role", a.Details.Role)).With("client", isolated(client))
		}
	}
	return w.Activity.Other.With("type", a.Type)
}

// moment is a time as everybody reads it the same, to the minute.
func moment(t time.Time) string { return leftToRight(t.UTC().Format("2006-01-02 15:04 UTC")) }

// leftToRight keeps a text of digits and Latin letters as it is where what is around it reads from right to left, which would turn the
// parts of a date around (Unicode's LRI and PDI).
func leftToRight(text string) string { return "\u2066" + text + "\u2069" }

// isolated keeps a text that reads from either side from turning around what it stands in (Unicode's FSI and PDI).
func isolated(text string) string { return "\u2068" + text + "\u2069" }

// explain gives errors of read models their codes.
func explain(err error) (identity.Code, string) {
	for _, behind := range []error{projections.ErrBehind, projections.ErrUnknownProjection, projections.ErrOtherVersion} {
		if errors.Is(err, behind) {
			return identity.CodeBehind, ""
		}
	}
	return "", ""
}
