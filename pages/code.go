package pages

import (
	"context"

	"github.com/google/uuid"

	"usher.example/identity"
	"usher.example/pages/look"
	"usher.example/server"
)

// codePage is a page for a code that shows that somebody reads mail at an address.
type codePage struct {
	look.View
	Text    look.CodePage
	Code    string
	Done    bool
	Problem string // what is wrong with the code
}

func verifyText(w *look.Words) look.CodePage { return w.Verify }
func emailText(w *look.Words) look.CodePage  { return w.Email }

// showCode answers GET with the same page for every code: to look whether it is good would tell, and is not needed.
func (p *pages) showCode(text func(*look.Words) look.CodePage) handler {
	return func(_ context.Context, v *visit) (server.Answer, error) {
		page := codePage{View: v.View, Text: text(v.Words), Code: v.query.Get("code"), Done: v.isDone()}
		if page.Code == "" && !page.Done {
			page.Problem = v.Words.Failed.InvalidCode
		}
		return show(p.code, page)
	}
}

func (p *pages) useCode(text func(*look.Words) look.CodePage) handler {
	return func(ctx context.Context, v *visit) (server.Answer, error) {
		result, err := p.Identity.Verify(ctx, identity.MailCode(v.form.Get("code")), uuid.Nil, v.Metadata())
		if err != nil {
			return refused(err, p.code, func(f server.Failure) codePage {
				return codePage{View: v.View, Text: text(v.Words), Problem: problem(v.Echo(), v.Words, f)}
			})
		}
		return v.done(result.Position), nil
	}
}
