package wake_test

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/wake-go/wake"
	"github.com/wake-go/wake/waketest"
)

// A panic is answered 500 if nothing has been written, and else cuts the
// connection: a client must not take half an answer for a whole one.
func TestPanicsAreAnsweredOrCutTheConnection(t *testing.T) {
	app, w := newWorld()
	add := func(ctx context.Context) { wake.From[*world](ctx).Tasks.Add(noted.With("never")) }
	app.Use(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/middleware" {
				add(r.Context())
				panic("boom")
			}
			next.ServeHTTP(rw, r)
			if r.URL.Path == "/afterwards" {
				panic("boom")
			}
		})
	})
	for path, handler := range map[string]http.HandlerFunc{
		"/before": func(_ http.ResponseWriter, r *http.Request) { add(r.Context()); panic("boom") },
		"/after": func(rw http.ResponseWriter, r *http.Request) {
			add(r.Context())
			_, _ = rw.Write([]byte("half"))
			panic("boom")
		},
		"/status": func(rw http.ResponseWriter, r *http.Request) { add(r.Context()); rw.WriteHeader(204); panic("boom") },
		"/flushed": func(rw http.ResponseWriter, r *http.Request) {
			add(r.Context())
			rw.(http.Flusher).Flush()
			panic("boom")
		},
		"/abort": func(_ http.ResponseWriter, r *http.Request) { add(r.Context()); panic(http.ErrAbortHandler) },
	} {
		app.Handle("GET "+path, handler)
	}
	operation := func(v any) wake.Handler[*world, none, string] {
		return func(ctx context.Context, _ *none, _ wake.Call[*world]) (string, error) {
			add(ctx)
			panic(v)
		}
	}
	wake.Get(app, "/operation", operation("boom"))
	wake.Get(app, "/operation/nil", operation(nil))
	wake.Get(app, "/operation/abort", operation(http.ErrAbortHandler))
	wake.Get(app, "/output", func(_ context.Context, _ *none, c wake.Call[*world]) (http.Handler, error) {
		add(c.Request.Context())
		return http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("boom") }), nil
	})
	wake.Get(app, "/afterwards", func(ctx context.Context, _ *none, _ wake.Call[*world]) (string, error) {
		add(ctx)
		return strings.Repeat("x", 10_000), nil
	})
	srv := serveOnWire(t, app)
	for path, answered := range map[string]bool{
		"/before": true, "/operation": true, "/operation/nil": true,
		"/after": false, "/status": false, "/flushed": false, "/abort": false, "/operation/abort": false,
		"/output": false, "/middleware": false, "/afterwards": false,
	} {
		got := srv.talk("GET " + path + " HTTP/1.1\nHost: x\n" + closeIf(answered) + "\n")
		if strings.HasPrefix(got, "HTTP/1.1 500 ") != answered {
			t.Errorf("GET %s: want an answer: %v\n%s", path, answered, got)
		}
		if !answered && strings.HasSuffix(got, "0\r\n\r\n") {
			t.Errorf("GET %s: the answer looks complete:\n%.200s", path, got)
		}
		if strings.Contains(got, "boom") {
			t.Errorf("GET %s tells the panic:\n%s", path, got)
		}
	}
	w.expect(t)
}

// closeIf asks for the end of the connection where the server would keep it.
func closeIf(answered bool) string {
	if answered {
		return "Connection: close\n"
	}
	return ""
}

func TestThePanicOfATaskStaysATask(t *testing.T) {
	app, w := newWorld()
	burst := wake.Define0("burst", func(context.Context, *world) error { panic("boom") })
	wake.Post(app, "/", func(_ context.Context, _ *none, c wake.Call[*world]) (none, error) {
		c.Tasks.Add(burst.With(), noted.With("next"))
		return none{}, nil
	})
	client := waketest.Start(t, app, waketest.AllowTaskErrors())
	expectStatus(t, client.Post("/", nil), http.StatusNoContent)
	expectStatus(t, client.Post("/", nil), http.StatusNoContent)
	w.expect(t, "next", "next")
}
