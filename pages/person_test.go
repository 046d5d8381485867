package pages

import (
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
)

// person is somebody with a browser: what keeps its cookies, and follows nothing.
type person struct {
	*stack
	cookies map[string]string
}

func (s *stack) person() *person { return &person{s, map[string]string{}} }

// on is the same person at another process.
func (p *person) on(s *stack) *person { return &person{s, p.cookies} }

func (p *person) get(path string, headers ...string) answer {
	p.tb.Helper()
	return p.visit(http.MethodGet, path, nil, headers...)
}

// post sends a form; fields are names and values.
func (p *person) post(path string, fields ...string) answer {
	p.tb.Helper()
	form := url.Values{}
	for i := 0; i < len(fields); i += 2 {
		form.Set(fields[i], fields[i+1])
	}
	return p.visit(http.MethodPost, path, form, "Sec-Fetch-Site", "same-origin")
}

func (p *person) visit(method, path string, form url.Values, headers ...string) answer {
	p.tb.Helper()
	var list []string
	for name, value := range p.cookies {
		list = append(list, name+"="+value)
	}
	a := p.call(method, path, form, append(headers, "Cookie", strings.Join(list, "; "))...)
	for _, line := range a.header.Values("Set-Cookie") {
		c, err := http.ParseSetCookie(line)
		if err != nil {
			p.tb.Fatal(err)
		}
		if !c.HttpOnly || c.SameSite != http.SameSiteLaxMode || c.Path != "/" || c.Domain != "" {
			p.tb.Errorf("the cookie %s is %s", c.Name, strings.Replace(line, c.Value, "…", 1))
		}
		if c.MaxAge < 0 {
			delete(p.cookies, c.Name)
		} else {
			p.cookies[c.Name] = c.Value
		}
	}
	return a
}

// logsIn logs in as somebody, by the page.
func (p *person) logsIn(email string) {
	p.tb.Helper()
	p.leadsTo(p.post("/login", "email", email, "password", secret), "/account")
}

// leadsTo wants an answer to lead elsewhere.
func (s *stack) leadsTo(a answer, path string) {
	s.tb.Helper()
	if a.status != http.StatusSeeOther || a.header.Get("Location") != path {
		s.tb.Errorf("the answer is %d to %q, want one to %q: %s", a.status, a.header.Get("Location"), path, mainOf(a.body))
	}
}

// says wants an answer to be a page with words.
func (s *stack) says(a answer, status int, words ...string) {
	s.tb.Helper()
	for _, w := range words {
		if a.status != status || !strings.Contains(a.body, w) {
			s.tb.Errorf("the answer is %d, want %d with %q: %s", a.status, status, w, mainOf(a.body))
		}
	}
}

// isIn says whether the browser is let in.
func (p *person) isIn() bool {
	p.tb.Helper()
	a := p.get("/login")
	if a.status != http.StatusSeeOther && a.status != http.StatusOK {
		p.tb.Errorf("GET /login = %d %s", a.status, mainOf(a.body))
	}
	return a.status == http.StatusSeeOther
}

func mainOf(body string) string {
	if _, rest, found := strings.Cut(body, "<main"); found {
		return rest
	}
	return body
}

// hidden is the value of a hidden field of a page.
func hidden(t testing.TB, body, name string) string {
	t.Helper()
	found := regexp.MustCompile(`type="hidden" name="` + name + `" value="([^"]*)"`).FindStringSubmatch(body)
	if found == nil {
		t.Fatalf("the page has no hidden field %s: %s", name, mainOf(body))
	}
	return found[1]
}
