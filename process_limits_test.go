//go:build unix

package wake_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"mime/multipart"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/wake-go/wake"
	"github.com/wake-go/wake/lifespan"
)

// run runs an application on a port until the test ends, and returns the
// port's address.
func run[S any](t *testing.T, app *wake.App[S], opts ...wake.Option) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ready, ended := make(chan struct{}), make(chan error, 1)
	ctx, stop := context.WithCancel(context.Background())
	opts = append([]wake.Option{
		wake.Listener(l),
		wake.Logger(slog.New(slog.NewTextHandler(t.Output(), nil))),
		wake.OnEvent(func(e lifespan.Event) {
			if p, ok := e.(lifespan.PhaseChanged); ok && p.To == lifespan.Ready {
				close(ready)
			}
		}),
	}, opts...)
	go func() { ended <- app.Run(ctx, opts...) }()
	t.Cleanup(func() {
		stop()
		if err := receive(t, ended, "the end of the application"); err != nil {
			t.Errorf("the application ends with %v", err)
		}
	})
	receive(t, ready, "readiness")
	return l.Addr().String()
}

// dial connects to addr and sends text.
func dial(t *testing.T, addr, text string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience)) // it is a TCP connection
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	return conn
}

// wantClosed waits until the server closes the connection.
func wantClosed(t *testing.T, from io.Reader) {
	t.Helper()
	if _, err := io.Copy(io.Discard, from); isTimeout(err) {
		t.Error("the connection stays open")
	}
}

func isTimeout(err error) bool {
	timeout, ok := err.(interface{ Timeout() bool })
	return ok && timeout.Timeout()
}

func pingApp() *wake.App[int] {
	app := wake.New("Ping", "1", lifespan.Fixed(1))
	wake.Get(app, "/ping", func(context.Context, *struct{}, wake.Call[int]) (string, error) { return "pong", nil })
	return app
}

func TestAServerWithoutOptionsHasEveryLimit(t *testing.T) {
	t.Parallel()
	var srv *http.Server
	run(t, pingApp(), wake.HTTPServer(func(s *http.Server) { srv = s }))
	for limit, ok := range map[string]bool{
		"ReadHeaderTimeout": srv.ReadHeaderTimeout == 5*time.Second,
		"IdleTimeout":       srv.IdleTimeout == time.Minute,
		"WriteTimeout":      srv.WriteTimeout == 2*time.Minute,
		"MaxHeaderBytes":    srv.MaxHeaderBytes == 64<<10,
		"ErrorLog":          srv.ErrorLog != nil,
	} {
		if !ok {
			t.Errorf("%s is not as documented: %+v", limit, srv)
		}
	}
}

func TestAHeaderThatDoesNotArriveEndsTheConnection(t *testing.T) {
	t.Parallel()
	const limit = 200 * time.Millisecond
	addr := run(t, pingApp(), wake.HeaderTimeout(limit))
	for name, header := range map[string]string{
		"nothing":       "",
		"half a header": "GET /ping HTTP/1.1\r\nHost: ping\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			began := time.Now()
			wantClosed(t, dial(t, addr, header))
			if took := time.Since(began); took < limit/2 {
				t.Errorf("the connection is closed after %v already, with a limit of %v", took, limit)
			}
		})
	}
	t.Run("a line now and then", func(t *testing.T) {
		t.Parallel()
		conn := dial(t, addr, "GET /ping HTTP/1.1\r\nHost: ping\r\n")
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_, _ = io.Copy(io.Discard, conn) // until it is closed
		}()
		tick := time.NewTicker(limit / 10)
		defer tick.Stop()
		for lines := 0; ; lines++ {
			select {
			case <-tick.C:
				_, _ = io.WriteString(conn, "X-Slow: loris\r\n") // it fails once the server has closed it
			case <-ended:
				return
			}
			if lines > 1000 {
				t.Fatal("each line prolongs the connection's life")
			}
		}
	})
}

func TestAConnectionThatAsksNothingMoreIsClosed(t *testing.T) {
	t.Parallel()
	addr := run(t, pingApp(), wake.IdleTimeout(100*time.Millisecond))
	conn := dial(t, addr, "GET /ping HTTP/1.1\r\nHost: ping\r\n\r\n")
	from := bufio.NewReader(conn)
	res, err := http.ReadResponse(from, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != 200 || res.Close {
		t.Errorf("it is answered %s, with the connection closed: %v", res.Status, res.Close)
	}
	wantClosed(t, from)
}

func TestAHeaderTooLargeIsAnswered431(t *testing.T) {
	t.Parallel()
	addr := run(t, pingApp())
	for size, status := range map[int]int{60 << 10: 200, 80 << 10: 431} {
		req, err := http.NewRequest("GET", "http://"+addr+"/ping", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-Large", strings.Repeat("x", size))
		res, err := newVisitor(t).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != status {
			t.Errorf("a header of %d bytes is answered %d, want %d", size, res.StatusCode, status)
		}
	}
}

// bodyApp has every kind of operation with a body.
func bodyApp() *wake.App[int] {
	app := wake.New("Bodies", "1", lifespan.Fixed(1))
	wake.Post(app, "/json", func(_ context.Context, in *struct{ Body map[string]string }, _ wake.Call[int]) (int, error) {
		return len(in.Body["text"]), nil
	})
	wake.Post(app, "/raw", func(_ context.Context, in *struct{ RawBody []byte }, _ wake.Call[int]) (int, error) {
		return len(in.RawBody), nil
	})
	wake.Post(app, "/form", func(_ context.Context, in *struct {
		RawBody huma.MultipartFormFiles[struct {
			File huma.FormFile `form:"file"`
		}]
	}, _ wake.Call[int]) (int64, error) {
		return in.RawBody.Data().File.Size, nil
	})
	app.Handle("POST /mounted", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		if err != nil {
			http.Error(w, "too much", http.StatusRequestEntityTooLarge)
			return
		}
		fmt.Fprint(w, n)
	}))
	return app
}

// sized makes a body of about size bytes for the path.
func sized(t *testing.T, path string, size int) (contentType string, body []byte) {
	t.Helper()
	text := strings.Repeat("x", size)
	switch path {
	case "/json":
		return "application/json", []byte(`{"text":"` + text + `"}`)
	case "/form":
		var b bytes.Buffer
		w := multipart.NewWriter(&b)
		part, err := w.CreateFormFile("file", "file.txt")
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(part, text) // a buffer
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return w.FormDataContentType(), b.Bytes()
	}
	return "application/octet-stream", []byte(text)
}

func TestABodyTooLargeIsAnswered413HoweverItComes(t *testing.T) {
	t.Parallel()
	addr := run(t, bodyApp())
	for _, path := range []string{"/json", "/raw", "/form", "/mounted"} {
		for _, chunked := range []bool{false, true} {
			for size, status := range map[int]int{1<<20 - 1000: 200, 1<<20 + 1000: 413} {
				contentType, body := sized(t, path, size)
				req, err := http.NewRequest("POST", "http://"+addr+path, bytes.NewReader(body))
				if err != nil {
					t.Fatal(err)
				}
				req.Header.Set("Content-Type", contentType)
				if chunked {
					req.ContentLength = -1
				}
				res, err := newVisitor(t).Do(req)
				if err != nil {
					t.Errorf("%s, %d bytes, chunked %v: %v", path, size, chunked, err)
					continue
				}
				res.Body.Close()
				if res.StatusCode != status {
					t.Errorf("%s, %d bytes, chunked %v: answered %d, want %d", path, size, chunked, res.StatusCode, status)
				}
			}
		}
	}
}

func TestABodyThatDoesNotArriveIsAnswered408(t *testing.T) {
	t.Parallel()
	addr := run(t, bodyApp(), wake.BodyTimeout(150*time.Millisecond))
	for path, contentType := range map[string]string{
		"/json": "application/json",
		"/raw":  "application/octet-stream",
		"/form": "multipart/form-data; boundary=limit",
	} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			conn := dial(t, addr, "POST "+path+" HTTP/1.1\r\nHost: bodies\r\nContent-Type: "+contentType+"\r\nContent-Length: 1000\r\n\r\n{\"text\":")
			from := bufio.NewReader(conn)
			res, err := http.ReadResponse(from, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			if res.StatusCode != http.StatusRequestTimeout {
				t.Errorf("it is answered %s", res.Status)
			}
			wantClosed(t, from)
		})
	}
}

func TestAClientThatNeverReadsIsGivenUpAndTheTasksRun(t *testing.T) {
	t.Parallel()
	app := wake.New("Large", "1", lifespan.Fixed(1))
	ran := make(chan struct{})
	task := wake.Define0("after", func(context.Context, int) error { close(ran); return nil })
	app.Tasks(task)
	wake.Get(app, "/large", func(_ context.Context, _ *struct{}, c wake.Call[int]) ([]byte, error) {
		c.Tasks.Add(task.With())
		return make([]byte, 64<<20), nil // more than the system takes for a client
	})
	addr := run(t, app, wake.WriteTimeout(200*time.Millisecond))
	dial(t, addr, "GET /large HTTP/1.1\r\nHost: large\r\n\r\n")
	receive(t, ran, "the task after an answer that nobody reads")
}

func TestLimitsThatAreNoneAreRefused(t *testing.T) {
	for name, none := range map[string]wake.Option{
		"StartTimeout": wake.StartTimeout(0), "DrainTimeout": wake.DrainTimeout(0), "StopTimeout": wake.StopTimeout(-1),
		"Grace": wake.Grace(0), "HeaderTimeout": wake.HeaderTimeout(0), "BodyTimeout": wake.BodyTimeout(0),
		"WriteTimeout": wake.WriteTimeout(0), "IdleTimeout": wake.IdleTimeout(-1), "BodyLimit": wake.DefaultBodyLimit(0),
		"HeaderLimit": wake.HeaderLimit(0), "DrainDelay": wake.DrainDelay(time.Hour),
	} {
		t.Run(name, func(t *testing.T) {
			err := pingApp().Run(t.Context(), none)
			if err == nil || !strings.Contains(err.Error(), name) || lifespan.ExitCode(err) != lifespan.ExitStart {
				t.Errorf("the error is %v, exit code %d", err, lifespan.ExitCode(err))
			}
		})
	}
}
