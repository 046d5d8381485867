package pages

import (
	"context"

	"usher.example/pages/look"
	"usher.example/server"
)

// homePage says what is here.
type homePage struct {
	look.View
}

func (p *pages) showHome(_ context.Context, v *visit) (server.Answer, error) {
	return show(p.home, homePage{v.View})
}
