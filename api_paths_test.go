package wake_test

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/wake-go/wake"
	"github.com/wake-go/wake/waketest"
)

func TestWhatNoRouteTakesIsAProblem(t *testing.T) {
	app, w := newWorld()
	wake.Post(app, "/users/{name}", func(_ context.Context, _ *none, c wake.Call[*world]) (none, error) {
		c.Tasks.Add(noted.With("ran"))
		return none{}, nil
	})
	wake.Get(app, "/users/{name}", func(context.Context, *none, wake.Call[*world]) (none, error) { return none{}, nil })
	client := waketest.Start(t, app)
	for _, path := range []string{"/", "/users", "/users/", "/users/a/b", "/users/a/", "/nothing", "/%2F", "/users%2Fa"} {
		problemOf(t, client.Get(path), http.StatusNotFound)
	}
	res := client.Put("/users/a", nil)
	if p := problemOf(t, res, http.StatusMethodNotAllowed); !strings.Contains(p.Detail, "PUT") {
		t.Errorf("detail %q", p.Detail)
	}
	if got := res.Header.Get("Allow"); got != "GET, HEAD, POST" {
		t.Errorf("Allow is %q", got)
	}
	w.expect(t)
}

// Two spellings of a path never reach a handler as two paths: a GET is sent
// to the clean one, anything that changes something is refused.
func TestPathsWithDotsAndDoubleSlashesReachNoHandlerAsTheyAre(t *testing.T) {
	app, w := newWorld()
	handler := func(_ context.Context, _ *none, c wake.Call[*world]) (none, error) {
		c.Tasks.Add(noted.With(c.Request.URL.Path))
		return none{}, nil
	}
	wake.Post(app, "/admin/x", handler)
	wake.Get(app, "/admin/x", handler)
	srv := serveOnWire(t, app)
	for _, path := range []string{"//admin/x", "/admin//x", "/./admin/x", "/a/../admin/x", "/../admin/x"} {
		if got := srv.talk("POST " + path + " HTTP/1.1\nHost: x\nConnection: close\n\n"); !strings.HasPrefix(got, "HTTP/1.1 404 ") {
			t.Errorf("POST %s: %s", path, got)
		}
		got := srv.talk("GET " + path + " HTTP/1.1\nHost: x\nConnection: close\n\n")
		if !strings.HasPrefix(got, "HTTP/1.1 30") || !strings.Contains(got, "Location: /admin/x\r\n") {
			t.Errorf("GET %s: %s", path, got)
		}
	}
	w.expect(t)
}

func TestTheUsersOwnCatchAllTakesWhatIsLeft(t *testing.T) {
	for _, pattern := range []string{"/", "/{rest...}", "GET /"} {
		app, _ := newWorld()
		wake.Post(app, "/a", func(context.Context, *none, wake.Call[*world]) (none, error) { return none{}, nil })
		app.Handle(pattern, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("page")) }))
		client := waketest.Start(t, app)
		if res := client.Get("/any/thing"); string(res.Body) != "page" {
			t.Errorf("with %q: %v", pattern, res)
		}
		expectStatus(t, client.Post("/a", nil), http.StatusNoContent)
		if pattern == "GET /" {
			problemOf(t, client.Post("/any", nil), http.StatusMethodNotAllowed)
		}
	}
}
