// Package bench_test measures what a request costs beside what it costs with
// others. Run it with -cpu 1 for the processor time of a request, its tasks
// included.
package bench_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/url"
	"runtime"
	"testing"
	"time"

	"github.com/wake-go/wake/background"
	"github.com/wake-go/wake/bench/load"
	"github.com/wake-go/wake/bench/peer"
	"github.com/wake-go/wake/bench/peer/bare"
	"github.com/wake-go/wake/bench/peer/chi"
	"github.com/wake-go/wake/bench/peer/huma"
	"github.com/wake-go/wake/bench/peer/wakeapp"
)

const user = `{"username":"alice","email":"alice@example.test","age":42}`

var servers = []struct {
	name  string
	start peer.Start
	tasks int
}{
	{"nethttp", bare.Start, 0},
	{"nethttp-2go", bare.Start, 2},
	{"chi", chi.Start, 0},
	{"huma", huma.Start, 0},
	{"wake", wakeapp.Start, 0},
	{"wake-1task", wakeapp.Start, 1},
	{"wake-2tasks", wakeapp.Start, 2},
}

// BenchmarkHandler calls handlers without a connection. A request includes its
// tasks: they have run before the next one.
func BenchmarkHandler(b *testing.B) {
	b.Run("GET", func(b *testing.B) { benchHandlers(b, http.MethodGet, "/hello/alice", "") })
	b.Run("POST", func(b *testing.B) { benchHandlers(b, http.MethodPost, "/users", user) })
}

func benchHandlers(b *testing.B, method, path, body string) {
	for _, s := range servers {
		b.Run(s.name, func(b *testing.B) {
			running, _ := start(b, s.start, s.tasks)
			r := newRequest(running.Context, method, path, body)
			w := &writer{header: http.Header{}}
			want := peer.Ran.Load()
			b.ReportAllocs()
			for b.Loop() {
				r.rewind()
				w.reset()
				running.Handler.ServeHTTP(w, &r.Request)
				for want += int64(s.tasks); peer.Ran.Load() < want; {
					runtime.Gosched()
				}
			}
			if w.status != http.StatusOK {
				b.Fatalf("status = %d, want 200", w.status)
			}
		})
	}
}

// BenchmarkLoopback calls servers over loopback connections that are kept
// alive. It includes the client.
func BenchmarkLoopback(b *testing.B) {
	b.Run("GET", func(b *testing.B) { benchLoopback(b, load.Get("/hello/alice")) })
	b.Run("POST", func(b *testing.B) { benchLoopback(b, load.Post("/users", user)) })
}

func benchLoopback(b *testing.B, request []byte) {
	for _, s := range servers {
		b.Run(s.name, func(b *testing.B) {
			_, addr := start(b, s.start, s.tasks)
			b.SetParallelism(16)
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				c, err := load.Dial(addr, request)
				if err != nil {
					b.Error(err)
					return
				}
				defer c.Close()
				for pb.Next() {
					if err := c.Do(); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}

// BenchmarkMachinery compares a handler without tasks with and without what
// the tasks of others need: the middleware and the connection's hooks.
func BenchmarkMachinery(b *testing.B) {
	b.Run("without", func(b *testing.B) {
		h := bare.Handler(0)
		r, w := newRequest(context.Background(), http.MethodGet, "/hello/alice", ""), &writer{header: http.Header{}}
		b.ReportAllocs()
		for b.Loop() {
			w.reset()
			h.ServeHTTP(w, &r.Request)
		}
	})
	b.Run("with", func(b *testing.B) {
		runner, err := background.New(background.Config{})
		if err != nil {
			b.Fatal(err)
		}
		h := runner.Middleware(bare.Handler(0))
		var srv http.Server
		runner.Configure(&srv)
		conn, _ := net.Pipe()
		r, w := newRequest(srv.ConnContext(context.Background(), conn), http.MethodGet, "/hello/alice", ""), &writer{header: http.Header{}}
		b.ReportAllocs()
		for b.Loop() {
			w.reset()
			srv.ConnState(conn, http.StateActive)
			h.ServeHTTP(w, &r.Request)
			srv.ConnState(conn, http.StateIdle)
		}
	})
}

func start(b *testing.B, start peer.Start, tasks int) (running *peer.Running, addr string) {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	if running, err = start(l, peer.Options{Tasks: tasks}); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := running.Stop(); err != nil {
			b.Error(err)
		}
	})
	return running, l.Addr().String()
}

// A request can be sent again.
type request struct {
	http.Request
	body *bytes.Reader
}

func newRequest(ctx context.Context, method, path, body string) *request {
	r := &request{body: bytes.NewReader([]byte(body))}
	r.Request = *(&http.Request{
		Method: method, URL: &url.URL{Path: path}, Host: "bench", RequestURI: path,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"Content-Type": {"application/json"}}, Body: http.NoBody, ContentLength: int64(len(body)),
	}).WithContext(ctx)
	return r
}

func (r *request) rewind() {
	if r.body.Size() > 0 {
		_, _ = r.body.Seek(0, io.SeekStart)
		r.Body = r
	}
}

func (r *request) Read(p []byte) (int, error) { return r.body.Read(p) }
func (r *request) Close() error               { return nil }

// A writer throws answers away.
type writer struct {
	header http.Header
	status int
}

func (w *writer) reset() {
	clear(w.header)
	w.status = http.StatusOK
}

func (w *writer) Header() http.Header         { return w.header }
func (w *writer) WriteHeader(code int)        { w.status = code }
func (w *writer) Write(p []byte) (int, error) { return len(p), nil }

// SetReadDeadline is there because a server's writers have it.
func (w *writer) SetReadDeadline(time.Time) error { return nil }
