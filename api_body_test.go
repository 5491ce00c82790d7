package wake_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/wake-go/wake"
	"github.com/wake-go/wake/waketest"
)

// bodies has an operation for each kind of body.
func bodies(t *testing.T, opts ...wake.Option) (*wire, *world) {
	t.Helper()
	app, w := newWorld(opts...)
	type raw struct{ RawBody []byte }
	type object struct{ Body textAnswer }
	wake.Post(app, "/raw", func(_ context.Context, in *raw, c wake.Call[*world]) (int, error) {
		c.Tasks.Add(noted.With("raw"))
		return len(in.RawBody), nil
	})
	wake.Post(app, "/small", func(_ context.Context, in *raw, c wake.Call[*world]) (int, error) {
		c.Tasks.Add(noted.With("small"))
		return len(in.RawBody), nil
	}, wake.BodyLimit(10))
	wake.Post(app, "/large", func(_ context.Context, in *raw, c wake.Call[*world]) (int, error) {
		c.Tasks.Add(noted.With("large"))
		return len(in.RawBody), nil
	}, wake.BodyLimit(1000))
	wake.Post(app, "/json", func(_ context.Context, _ *object, c wake.Call[*world]) (none, error) {
		c.Tasks.Add(noted.With("json"))
		return none{}, nil
	})
	wake.Post(app, "/form", func(_ context.Context, _ *formInput, c wake.Call[*world]) (none, error) {
		c.Tasks.Add(noted.With("form"))
		return none{}, nil
	})
	app.Handle("POST /handler", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, err := io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, "handler: ", err)
	}))
	return serveOnWire(t, app, opts...), w
}

func TestBodiesLargerThanTheirLimitAreRefused(t *testing.T) {
	srv, w := bodies(t, wake.DefaultBodyLimit(100))
	head := "POST %s HTTP/1.1\nHost: x\nConnection: close\n"
	chunked := func(n int) string {
		return fmt.Sprintf("Transfer-Encoding: chunked\n\n%x\n%s\n0\n\n", n, strings.Repeat("x", n))
	}
	sized := func(n int) string { return fmt.Sprintf("Content-Length: %d\n\n%s", n, strings.Repeat("x", n)) }
	form := func(n int) string {
		part := "--b\r\nContent-Disposition: form-data; name=\"picture\"; filename=\"p\"\r\nContent-Type: text/plain\r\n\r\n" +
			strings.Repeat("x", n) + "\r\n--b--\r\n"
		return fmt.Sprintf("Content-Type: multipart/form-data; boundary=b\nTransfer-Encoding: chunked\n\n%x\n%s\n0\n\n", len(part), strings.ReplaceAll(part, "\r\n", "\n"))
	}
	for _, c := range []struct{ name, path, rest, status string }{
		{"default, fits", "/raw", sized(100), "200"},
		{"default", "/raw", sized(101), "413"},
		{"chunked, fits", "/raw", chunked(100), "200"},
		{"chunked", "/raw", chunked(101), "413"},
		{"a smaller one, fits", "/small", sized(10), "200"},
		{"a smaller one", "/small", sized(11), "413"},
		{"a smaller one, chunked", "/small", chunked(11), "413"},
		{"a larger one, fits", "/large", sized(1000), "200"},
		{"a larger one, chunked, fits", "/large", chunked(1000), "200"},
		{"a larger one", "/large", chunked(1001), "413"},
		{"JSON", "/json", sized(101), "413"},
		{"multipart", "/form", form(200), "413"},
		// The body never comes: refused before it is read.
		{"announced", "/raw", "Content-Length: 5000000\n\n", "413"},
		{"announced with a question", "/raw", "Expect: 100-continue\nContent-Length: 5000000\n\n", "413"},
	} {
		got := srv.talk(fmt.Sprintf(head, c.path) + c.rest)
		if !strings.HasPrefix(got, "HTTP/1.1 "+c.status+" ") {
			t.Errorf("%s: want %s, got\n%s", c.name, c.status, got)
		}
		if c.status == "413" && !strings.Contains(got, "application/problem+json") {
			t.Errorf("%s: no problem document:\n%s", c.name, got)
		}
	}
	if got := srv.talk(fmt.Sprintf(head, "/handler") + chunked(101)); !strings.Contains(got, "request body too large") {
		t.Errorf("a mounted handler reads more than the limit: %s", got)
	}
	if err := srv.end(); err != nil {
		t.Error(err)
	}
	ran := w.all()
	slices.Sort(ran)
	if want := []string{"large", "large", "raw", "raw", "small"}; !slices.Equal(ran, want) {
		t.Errorf("tasks of %q have run, want %q", ran, want)
	}
}

func TestTheDefaultBodyLimitIsAMebibyte(t *testing.T) {
	app, _ := newWorld()
	type raw struct{ RawBody []byte }
	wake.Post(app, "/", func(_ context.Context, in *raw, _ wake.Call[*world]) (int, error) { return len(in.RawBody), nil })
	client := waketest.Start(t, app)
	expectStatus(t, client.Post("/", strings.Repeat("x", 1<<20)), http.StatusOK)
	problemOf(t, client.Post("/", strings.Repeat("x", 1<<20+1)), http.StatusRequestEntityTooLarge)
}

func TestABodyThatIsCutOffIsTheClientsMistake(t *testing.T) {
	srv, w := bodies(t)
	for _, c := range []struct{ name, request string }{
		{"JSON", "POST /json HTTP/1.1\nHost: x\nContent-Length: 50\n\n{\"text\":"},
		{"chunk", "POST /raw HTTP/1.1\nHost: x\nTransfer-Encoding: chunked\n\n20\nabc"},
		{"no chunk", "POST /raw HTTP/1.1\nHost: x\nTransfer-Encoding: chunked\n\nzz\n"},
		{"multipart", "POST /form HTTP/1.1\nHost: x\nContent-Type: multipart/form-data; boundary=b\nContent-Length: 500\n\n--b\n"},
	} {
		conn := srv.dial()
		if _, err := io.WriteString(conn, strings.ReplaceAll(c.request, "\n", "\r\n")); err != nil {
			t.Fatal(err)
		}
		if err := conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(conn)
		if err != nil || !strings.HasPrefix(string(got), "HTTP/1.1 4") {
			t.Errorf("%s: %v\n%s", c.name, err, got)
		}
	}
	w.expect(t)
}
