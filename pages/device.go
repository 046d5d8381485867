package pages

import (
	"context"
	"errors"

	"github.com/google/uuid"

	"usher.example/client"
	"usher.example/identity"
	"usher.example/pages/look"
	"usher.example/server"
)

// pathDevice is the page, which devices show the address of.
const pathDevice = "/device"

// devicePage is where somebody types the code that a device shows, and is asked whether to let it in.
type devicePage struct {
	look.View
	Text    look.DevicePage
	Title   string
	Code    look.Field
	Asked   *deviceAsked // nil while no device was found
	Told    string       // what has been answered; "" while nothing has
	Problem string
}

// deviceAsked is what a device asks for, in words.
type deviceAsked struct {
	Client, Code, Origin string
	May                  []string
}

// The answers, as the buttons have them.
const (
	answerAllow = "allow"
	answerDeny  = "deny"
)

func newDevicePage(v *visit, code string) devicePage {
	w := v.Words.Device
	return devicePage{View: v.View, Text: w, Title: w.Title, Code: look.Field{
		Name: "user_code", Label: w.Code, Type: "text", Autocomplete: "off", Value: code, Hint: w.Hint,
	}}
}

// showDevice asks for a code, or what the device of one is to be answered. A code that no device shows is a guess, which is counted.
func (p *pages) showDevice(ctx context.Context, v *visit) (server.Answer, error) {
	typed := v.query.Get("user_code")
	page := newDevicePage(v, typed)
	switch v.query.Get("done") {
	case answerAllow:
		page.Title, page.Told = page.Text.AllowedTitle, page.Text.Allowed
		return show(p.device, page)
	case answerDeny:
		page.Title, page.Told = page.Text.DeniedTitle, page.Text.Denied
		return show(p.device, page)
	}
	if typed == "" {
		return show(p.device, page)
	}
	code, request, of, err := p.findDevice(ctx, v, typed)
	switch {
	case errors.Is(err, identity.ErrNoDeviceRequest):
		page.Code.Errors = []string{page.Text.Wrong}
		return show(p.device, page)
	case err != nil:
		return p.refuseDevice(v, err, typed)
	}
	page.Title, page.Asked = page.Text.AskTitle, &deviceAsked{Client: of.Name, Code: code.Shown()}
	if request.Address != "" {
		page.Asked.Origin = page.Text.Origin.With("address", leftToRight(request.Address))
	}
	for _, scope := range request.Scopes {
		page.Asked.May = append(page.Asked.May, v.Words.Consents.InWords(shorten(scope)))
	}
	return show(p.device, page)
}

// findDevice finds what the device asks for that shows a code. It fails with identity.ErrNoDeviceRequest, or as
// identity.Service.FindDeviceRequest does.
func (p *pages) findDevice(ctx context.Context, v *visit, typed string) (identity.UserCode, identity.DeviceRequest, client.Client, error) {
	var r identity.DeviceRequest
	var c client.Client
	code, ok := identity.ParseUserCode(typed)
	if !ok {
		return code, r, c, identity.ErrNoDeviceRequest
	}
	r, err := p.Identity.FindDeviceRequest(ctx, v.User.ID, code, v.Metadata())
	if err != nil {
		return code, r, c, err
	}
	id, err := uuid.Parse(r.Client)
	if err == nil {
		c, err = p.Clients.Get(ctx, id)
	}
	if errors.Is(err, client.ErrUnknown) { // removed since
		err = identity.ErrNoDeviceRequest
	}
	return code, r, c, err
}

// doDevice leads from a code that was typed to what is asked, and answers the device. An application of others needs the user's consent,
// which a yes is.
func (p *pages) doDevice(ctx context.Context, v *visit) (server.Answer, error) {
	typed, said := v.form.Get("user_code"), v.form.Get("answer")
	switch {
	case typed == "":
		return p.refuseDevice(v, errNeeded, typed)
	case said == "":
		return goTo(v.link(pathDevice, "user_code", typed)), nil
	case said != answerAllow && said != answerDeny:
		return p.refuseDevice(v, server.Refuse(identity.CodeInvalidRequest, "the answer is allow or deny"), typed)
	}
	code, request, of, err := p.findDevice(ctx, v, typed)
	var at int64
	if err == nil && said == answerAllow && !of.FirstParty {
		result, failed := p.Identity.GiveConsent(ctx, v.User.ID, request.Client, request.Scopes, v.Metadata())
		at, err = result.Position, failed
	}
	if err == nil {
		err = p.Identity.AnswerDevice(ctx, code, identity.DeviceAnswer{User: v.User.ID, Session: v.Session, Methods: v.Browser.Methods, Allow: said == answerAllow})
	}
	if err != nil {
		return p.refuseDevice(v, err, typed)
	}
	return v.doneWith(said, at), nil
}

func (p *pages) refuseDevice(v *visit, err error, typed string) (server.Answer, error) {
	return refused(err, p.device, func(f server.Failure) devicePage {
		page := newDevicePage(v, typed)
		switch {
		case errors.Is(err, errNeeded):
			page.Code.Errors = needed(v, "user_code")
		case errors.Is(err, identity.ErrNoDeviceRequest):
			page.Code.Errors = []string{page.Text.Wrong}
		default:
			page.Problem = problem(v.Echo(), v.Words, f)
		}
		return page
	})
}
