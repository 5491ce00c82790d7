package wake_test

import (
	"context"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wake-go/wake"
	"github.com/wake-go/wake/waketest"
)

func TestAnswersByTheTypeOfTheOutput(t *testing.T) {
	app, _ := newWorld()
	wake.Get(app, "/struct", func(context.Context, *none, wake.Call[*world]) (textAnswer, error) {
		return textAnswer{"<a & b>"}, nil
	})
	wake.Get(app, "/slice", func(context.Context, *none, wake.Call[*world]) ([]int, error) { return []int{1, 2}, nil })
	wake.Get(app, "/map", func(context.Context, *none, wake.Call[*world]) (map[string]int, error) {
		return map[string]int{"a": 1}, nil
	})
	wake.Get(app, "/string", func(context.Context, *none, wake.Call[*world]) (string, error) { return "s", nil })
	wake.Get(app, "/pointer", func(context.Context, *none, wake.Call[*world]) (*textAnswer, error) { return nil, nil })
	wake.Get(app, "/bytes", func(context.Context, *none, wake.Call[*world]) ([]byte, error) { return []byte{0, 1}, nil })
	wake.Get(app, "/nothing", func(context.Context, *none, wake.Call[*world]) (none, error) { return none{}, nil })
	wake.Get(app, "/created", func(context.Context, *none, wake.Call[*world]) (textAnswer, error) {
		return textAnswer{"new"}, nil
	}, wake.Status(http.StatusCreated))
	wake.Get(app, "/emptied", func(context.Context, *none, wake.Call[*world]) (textAnswer, error) {
		return textAnswer{"dropped"}, nil
	}, wake.Status(http.StatusNoContent))
	client := waketest.Start(t, app)
	for _, c := range []struct {
		path, contentType, body string
		status                  int
	}{
		{"/struct", "application/json", `{"text":"<a & b>"}` + "\n", 200},
		{"/slice", "application/json", "[1,2]\n", 200},
		{"/map", "application/json", `{"a":1}` + "\n", 200},
		{"/string", "application/json", `"s"` + "\n", 200},
		{"/pointer", "application/json", "null\n", 200},
		{"/bytes", "application/octet-stream", "\x00\x01", 200},
		{"/nothing", "", "", 204},
		{"/created", "application/json", `{"text":"new"}` + "\n", 201},
		{"/emptied", "", "", 204},
	} {
		res := client.Get(c.path)
		if res.Status != c.status || string(res.Body) != c.body || res.Header.Get("Content-Type") != c.contentType {
			t.Errorf("GET %s: %v with type %q, want %+v", c.path, res, res.Header.Get("Content-Type"), c)
		}
	}
}

func TestStatusHeaderAndCookiesOfTheResponse(t *testing.T) {
	app, _ := newWorld()
	type input struct {
		Fail bool `query:"fail"`
	}
	wake.Post(app, "/", func(_ context.Context, in *input, c wake.Call[*world]) (textAnswer, error) {
		c.Response.Status(http.StatusAccepted)
		c.Response.Header().Set("Location", "/jobs/1")
		c.Response.SetCookie(&http.Cookie{Name: "a", Value: "1", HttpOnly: true})
		c.Response.SetCookie(&http.Cookie{Name: "b", Value: "2"})
		c.Response.SetCookie(&http.Cookie{Name: "not valid"})
		if in.Fail {
			return textAnswer{}, wake.Errorf(http.StatusConflict, "taken")
		}
		return textAnswer{"ok"}, nil
	})
	client := waketest.Start(t, app)
	res := client.Post("/", nil)
	expectStatus(t, res, http.StatusAccepted)
	if got := res.Header.Get("Location"); got != "/jobs/1" {
		t.Errorf("Location is %q", got)
	}
	if got := res.Header.Values("Set-Cookie"); len(got) != 2 || got[0] != "a=1; HttpOnly" || got[1] != "b=2" {
		t.Errorf("cookies are %q", got)
	}
	failed := client.Post("/?fail=true", nil)
	problemOf(t, failed, http.StatusConflict)
	if len(failed.Header.Values("Set-Cookie"))+len(failed.Header.Values("Location")) != 0 {
		t.Errorf("the header of a successful answer is in that of a failed one: %v", failed.Header)
	}
}

func TestAStatusThatIsNoneIsRefused(t *testing.T) {
	app, _ := newWorld()
	call, _, _ := wake.Detached(&world{}, nil)
	expectPanic(t, func() { call.Response.Status(42) }, "status 42", "between 200 and 599")
	expectPanic(t, func() {
		wake.Get(app, "/", func(context.Context, *none, wake.Call[*world]) (none, error) { return none{}, nil }, wake.Status(99))
	}, "status 99", "between 200 and 599")
}

func TestHeadAnswersLikeGetWithoutABody(t *testing.T) {
	app, _ := newWorld()
	wake.Get(app, "/", func(_ context.Context, _ *none, c wake.Call[*world]) (textAnswer, error) {
		c.Response.Header().Set("X-Kind", "text")
		return textAnswer{c.Request.Method}, nil
	})
	srv := serveOnWire(t, app)
	got := srv.talk("HEAD / HTTP/1.1\nHost: x\nConnection: close\n\n")
	head, body, _ := strings.Cut(got, "\r\n\r\n")
	if !strings.HasPrefix(head, "HTTP/1.1 200 ") || body != "" {
		t.Errorf("HEAD: %q", got)
	}
	for _, want := range []string{"X-Kind: text", "Content-Type: application/json", "Content-Length: 16"} {
		if !strings.Contains(head, want) {
			t.Errorf("HEAD has no %q:\n%s", want, head)
		}
	}
}

func TestAnOutputThatIsAHandlerWritesTheAnswer(t *testing.T) {
	app, w := newWorld()
	file := filepath.Join(t.TempDir(), "poem.txt")
	if err := os.WriteFile(file, []byte("roses are red"), 0o600); err != nil {
		t.Fatal(err)
	}
	wake.Get(app, "/old", func(_ context.Context, _ *none, c wake.Call[*world]) (http.Handler, error) {
		c.Tasks.Add(noted.With("redirected"))
		return http.RedirectHandler("/new", http.StatusSeeOther), nil
	})
	wake.Get(app, "/poem", func(_ context.Context, _ *none, c wake.Call[*world]) (http.HandlerFunc, error) {
		c.Response.Header().Set("ETag", `"v1"`)
		c.Tasks.Add(noted.With("read"))
		return func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, file) }, nil
	})
	wake.Get(app, "/page", func(_ context.Context, _ *none, c wake.Call[*world]) (http.Handler, error) {
		c.Response.Status(http.StatusAccepted)
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("page")) }), nil
	})
	client := waketest.Start(t, app)

	res := client.Get("/old")
	if res.Status != http.StatusSeeOther || res.Header.Get("Location") != "/new" {
		t.Errorf("redirect: %v to %q", res, res.Header.Get("Location"))
	}
	res = client.Get("/poem")
	if res.Status != http.StatusOK || string(res.Body) != "roses are red" {
		t.Errorf("file: %v", res)
	}
	res = client.Get("/poem", "Range", "bytes=6-8")
	if res.Status != http.StatusPartialContent || string(res.Body) != "are" {
		t.Errorf("range: %v", res)
	}
	res = client.Get("/poem", "If-None-Match", `"v1"`)
	if res.Status != http.StatusNotModified || len(res.Body) != 0 {
		t.Errorf("not modified: %v", res)
	}
	res = client.Get("/page")
	if res.Status != http.StatusAccepted || string(res.Body) != "page" {
		t.Errorf("status of the Response: %v", res)
	}
	w.expect(t, "redirected", "read", "read", "read")
}

func TestANilHandlerAnswers500WithoutTasks(t *testing.T) {
	app, w := newWorld()
	var logs logbook
	wake.Get(app, "/nil", func(_ context.Context, _ *none, c wake.Call[*world]) (http.Handler, error) {
		c.Tasks.Add(noted.With("ran"))
		return nil, nil
	})
	wake.Get(app, "/func", func(_ context.Context, _ *none, c wake.Call[*world]) (http.HandlerFunc, error) {
		c.Tasks.Add(noted.With("ran"))
		return nil, nil
	})
	client := waketest.Start(t, app, waketest.With(logs.option()))
	problemOf(t, client.Get("/nil"), http.StatusInternalServerError)
	problemOf(t, client.Get("/func"), http.StatusInternalServerError)
	w.expect(t)
	if got := logs.line(t, "operation failed")["error"]; got != "the operation returned a nil http.Handler and no error" {
		t.Errorf("logged %q", got)
	}
}

func TestAnAnswerThatCannotBeEncodedIs500WithoutTasks(t *testing.T) {
	app, w := newWorld()
	const secret = "chan-of-secrets"
	type odd struct {
		Text string
		Any  any `json:"any"`
	}
	type input struct {
		Kind string `query:"kind"`
	}
	values := map[string]any{"chan": make(chan int), "func": func() {}, "nan": math.NaN(), "marshaler": badMarshaler{}}
	wake.Get(app, "/", func(_ context.Context, in *input, c wake.Call[*world]) (odd, error) {
		c.Tasks.Add(noted.With("ran"))
		c.Tasks.Always(noted.With("always " + in.Kind))
		c.Response.Status(http.StatusCreated)
		c.Response.Header().Set("X-Promise", "kept")
		return odd{secret, values[in.Kind]}, nil
	})
	client := waketest.Start(t, app)
	for _, kind := range []string{"chan", "func", "nan", "marshaler"} {
		res := client.Get("/?kind=" + kind)
		problemOf(t, res, http.StatusInternalServerError)
		if strings.Contains(string(res.Body), secret) || res.Header.Get("X-Promise") != "" {
			t.Errorf("%s: a part of the answer has left: %v %v", kind, res.Header, res)
		}
	}
	w.expect(t, "always chan", "always func", "always nan", "always marshaler")
}

type badMarshaler struct{}

func (badMarshaler) MarshalJSON() ([]byte, error) { return nil, os.ErrClosed }

func TestAnAnswerLargerThanABufferHasItsLength(t *testing.T) {
	app, _ := newWorld()
	wake.Get(app, "/", func(context.Context, *none, wake.Call[*world]) (string, error) {
		return strings.Repeat("x", 100_000), nil
	})
	res := waketest.Start(t, app).Get("/")
	if res.Status != http.StatusOK || res.Header.Get("Content-Length") != "100003" || len(res.Body) != 100_003 {
		t.Errorf("status %d, Content-Length %q, %d bytes", res.Status, res.Header.Get("Content-Length"), len(res.Body))
	}
}

func TestTheApplicationServesRequestsOfAnyServer(t *testing.T) {
	app, w := newWorld()
	wake.Post(app, "/notes/{text}", func(_ context.Context, in *noteInput, c wake.Call[*world]) (textAnswer, error) {
		c.Tasks.Add(noted.With(in.Text))
		return textAnswer(*in), nil
	})
	serve := func(path string) *httptest.ResponseRecorder {
		rec := httptest.NewRecorder()
		app.ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), http.MethodPost, path, nil))
		return rec
	}
	if rec := serve("/notes/early"); rec.Code != http.StatusServiceUnavailable || rec.Header().Get("Retry-After") == "" {
		t.Errorf("before it runs: %d %v", rec.Code, rec.Header())
	}
	client := waketest.Start(t, app)
	rec := serve("/notes/now")
	if rec.Code != http.StatusOK || rec.Body.String() != `{"text":"now"}`+"\n" {
		t.Errorf("while it runs: %d %s", rec.Code, rec.Body)
	}
	if err := client.Stop(); err != nil {
		t.Fatal(err)
	}
	w.expect(t, "now")
	if rec := serve("/notes/late"); rec.Code != http.StatusServiceUnavailable {
		t.Errorf("after it ran: %d %s", rec.Code, rec.Body)
	}
}

type noteInput struct {
	Text string `path:"text"`
}
