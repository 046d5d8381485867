package server

import (
	"net/http"

	"github.com/labstack/echo/v5"

	"usher.example/identity"
)

// Surface is how one of several that a Server serves side by side tells what went wrong.
type Surface struct {
	// Explain gives an error that only the surface knows the code that it has, and the detail that the caller may see;
	// no code for any other. Errors of packages identity and token are known here.
	Explain func(error) (code identity.Code, detail string)
	// Tell answers a request that failed, which nothing has answered yet. TellProblem when nil.
	Tell func(*echo.Context, Failure) error
}

// Routes are those of a surface.
type Routes struct {
	server  *Server
	surface Surface
}

// Routes is where a surface adds its routes. It does so before the server answers requests.
func (s *Server) Routes(of Surface) *Routes {
	if of.Explain == nil {
		of.Explain = func(error) (identity.Code, string) { return "", "" }
	}
	if of.Tell == nil {
		of.Tell = TellProblem
	}
	return &Routes{s, of}
}

// GET adds a route for GET, and for HEAD: net/http leaves the body out.
func (r *Routes) GET(path string, of Access, answer Handler) {
	r.add(http.MethodGet, path, of, answer)
	r.add(http.MethodHead, path, of, answer)
}

// POST adds a route for POST.
func (r *Routes) POST(path string, of Access, answer Handler) {
	r.add(http.MethodPost, path, of, answer)
}

// PUT adds a route for PUT.
func (r *Routes) PUT(path string, of Access, answer Handler) {
	r.add(http.MethodPut, path, of, answer)
}

// PATCH adds a route for PATCH.
func (r *Routes) PATCH(path string, of Access, answer Handler) {
	r.add(http.MethodPatch, path, of, answer)
}

// DELETE adds a route for DELETE.
func (r *Routes) DELETE(path string, of Access, answer Handler) {
	r.add(http.MethodDelete, path, of, answer)
}

func (r *Routes) add(method, path string, of Access, answer Handler) {
	r.server.surfaces[Endpoint{method, path}] = r.surface
	r.server.echo.Add(method, path, func(c *echo.Context) error {
		call := &Call{server: r.server, echo: c}
		if err := call.Admit(of); err != nil {
			return err
		}
		a, err := answer(call)
		if err != nil {
			return err
		}
		return a.send(c)
	})
}

// Endpoint is a route: a method and a path, as it was registered.
type Endpoint struct{ Method, Path string }

// Endpoints are the routes of all surfaces, in the order in which they were added.
func (s *Server) Endpoints() []Endpoint {
	var list []Endpoint
	for _, r := range s.echo.Router().Routes() {
		list = append(list, Endpoint{r.Method, r.Path})
	}
	return list
}

// surface is the one that a request is for; where it is for none of them, one that tells problems.
func (s *Server) surface(c *echo.Context) Surface {
	if of, ok := s.surfaces[Endpoint{c.Request().Method, c.Path()}]; ok {
		return of
	}
	return s.elsewhere
}
