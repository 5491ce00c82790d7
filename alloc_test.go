//go:build !race

package wake_test

import (
	"context"
	"log/slog"
	"net/http"
	"net/url"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/wake-go/wake"
	"github.com/wake-go/wake/durable"
	"github.com/wake-go/wake/durable/memory"
	"github.com/wake-go/wake/lifespan"
)

// TestAllocations guards what a request costs. It counts allocations and not
// time, which a busy machine stretches. Without Wake the same request needs 8
// in Huma; bench has the whole comparison. (Under the race detector a
// sync.Pool forgets things at random, so the counts mean nothing there.)
func TestAllocations(t *testing.T) {
	queue := []wake.Option{wake.NoWorkers(), wake.OpenStore(func(context.Context) (durable.Store, error) {
		return memory.New(memory.Config{}), nil
	})}
	for _, test := range []struct {
		name  string
		path  string
		tasks int64
		most  float64
		opts  []wake.Option
	}{
		{"without tasks", "/tasks/0/alice", 0, 11, nil},
		{"two tasks", "/tasks/2/alice", 2, 21, nil},
		{"without tasks, with a queue", "/tasks/0/alice", 0, 11, queue},
		{"two tasks that the queue would take", "/tasks/2/alice", 2, 21, queue},
	} {
		t.Run(test.name, func(t *testing.T) {
			app := newCountingApp(t, test.opts...)
			r := (&http.Request{
				Method: http.MethodGet, URL: &url.URL{Path: test.path}, Host: "test",
				Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{}, Body: http.NoBody,
			}).WithContext(app.requests)
			w := &discard{header: http.Header{}}
			allocs := testing.AllocsPerRun(500, func() {
				clear(w.header)
				want := app.ran.Load() + test.tasks
				app.ServeHTTP(w, r)
				for app.ran.Load() < want {
					runtime.Gosched()
				}
			})
			if w.status != http.StatusOK {
				t.Fatalf("status = %d, want 200", w.status)
			}
			if allocs > test.most {
				t.Errorf("a request allocates %v times, want at most %v", allocs, test.most)
			}
		})
	}
}

type countingInput struct {
	Name string `path:"name" maxLength:"32"`
}

type countingOutput struct {
	Message string `json:"message"`
}

// A countingApp is an application that runs, with the context that its own
// server gives to requests.
type countingApp struct {
	*wake.App[*atomic.Int64]
	ran      atomic.Int64
	requests context.Context
}

func newCountingApp(t *testing.T, opts ...wake.Option) *countingApp {
	a := &countingApp{}
	ready, ended := make(chan struct{}), make(chan error, 1)
	a.App = wake.New("allocations", "1", lifespan.Fixed(&a.ran), opts...)
	count := wake.Define("count", func(_ context.Context, ran *atomic.Int64, name string) error {
		ran.Add(int64(len(name) / len("alice")))
		return nil
	})
	a.Tasks(count)
	answer := func(tasks int) wake.Handler[*atomic.Int64, countingInput, countingOutput] {
		return func(_ context.Context, in *countingInput, c wake.Call[*atomic.Int64]) (countingOutput, error) {
			for range tasks {
				c.Tasks.Add(count.With(in.Name))
			}
			return countingOutput{"Hello " + in.Name}, nil
		}
	}
	wake.Get(a.App, "/tasks/0/{name}", answer(0))
	wake.Get(a.App, "/tasks/2/{name}", answer(2))
	ctx, stop := context.WithCancel(t.Context())
	go func() {
		ended <- a.Run(ctx, wake.Addr("127.0.0.1:0"), wake.AdminAddr("off"), wake.Logger(slog.New(slog.DiscardHandler)),
			wake.HTTPServer(func(srv *http.Server) { a.requests = srv.BaseContext(nil) }),
			wake.OnEvent(func(e lifespan.Event) {
				if p, ok := e.(lifespan.PhaseChanged); ok && p.To == lifespan.Ready {
					close(ready)
				}
			}))
	}()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	select {
	case <-ready:
	case err := <-ended:
		ended <- nil
		t.Fatalf("the application did not start: %v", err)
	}
	return a
}

// A discard throws an answer away.
type discard struct {
	header http.Header
	status int
}

func (w *discard) Header() http.Header         { return w.header }
func (w *discard) WriteHeader(code int)        { w.status = code }
func (w *discard) Write(p []byte) (int, error) { return len(p), nil }
