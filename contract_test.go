package wake_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wake-go/wake"
	"github.com/wake-go/wake/lifespan"
	"github.com/wake-go/wake/waketest"
)

// The tests of this file are the ten things that users of FastAPI's background
// tasks and lifespan rely on.

// 1. One list for a request, shared by operation and dependencies; its tasks
// run after the last byte of the response, in order, one at a time.
func TestContractTasksRunAfterTheLastByteInOrderOneAtATime(t *testing.T) {
	app, w := newWorld()
	answered := make(chan struct{})
	var mu sync.Mutex
	one := wake.Define("one", func(_ context.Context, w *world, what string) error {
		if !mu.TryLock() {
			w.note("at the same time")
		}
		defer mu.Unlock()
		<-answered // a task before the last byte would never end
		w.note(what)
		return nil
	})
	dependency := func(ctx context.Context, what string) {
		wake.From[*world](ctx).Tasks.Add(one.With(what))
	}
	app.Use(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			dependency(r.Context(), "middleware")
			next.ServeHTTP(w, r)
		})
	})
	wake.Post(app, "/", func(ctx context.Context, _ *none, c wake.Call[*world]) (string, error) {
		dependency(ctx, "dependency")
		c.Tasks.Add(one.With("first"), one.With("second"))
		c.Tasks.Add(one.With("third"))
		return strings.Repeat("x", 1<<20), nil
	})
	srv := serveOnWire(t, app)
	conn := srv.dial()
	if _, err := io.WriteString(conn, "POST / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(res.Body)
	if err != nil || len(body) != 1<<20+3 {
		t.Fatalf("read %d bytes: %v", len(body), err)
	}
	w.expect(t)
	close(answered)
	srv.stop()
	if err := srv.err(); err != nil {
		t.Fatal(err)
	}
	w.expect(t, "middleware", "dependency", "first", "second", "third")
}

// 2. Functions that block and functions that compute are both accepted, and
// neither stalls the server.
func TestContractBlockingAndComputingTasksDoNotStallTheServer(t *testing.T) {
	app, _ := newWorld()
	release := make(chan struct{})
	var released atomic.Bool
	started := make(chan struct{}, 64)
	block := wake.Define0("block", func(context.Context, *world) error {
		started <- struct{}{}
		<-release
		return nil
	})
	compute := wake.Define0("compute", func(context.Context, *world) error {
		started <- struct{}{}
		for !released.Load() {
		}
		return nil
	}, wake.Lane("cpu"))
	wake.Post(app, "/work", func(_ context.Context, _ *none, c wake.Call[*world]) (none, error) {
		c.Tasks.Group(block.With(), compute.With())
		return none{}, nil
	})
	wake.Get(app, "/ping", func(context.Context, *none, wake.Call[*world]) (string, error) { return "pong", nil })
	srv := serveOnWire(t, app)
	for range 8 {
		if got := srv.talk("POST /work HTTP/1.1\nHost: x\nConnection: close\n\n"); !strings.HasPrefix(got, "HTTP/1.1 204 ") {
			t.Fatalf("work: %s", got)
		}
	}
	wait(t, started, "a task")
	for range 20 {
		if got := srv.talk("GET /ping HTTP/1.1\nHost: x\nConnection: close\n\n"); !strings.HasPrefix(got, "HTTP/1.1 200 ") {
			t.Fatalf("ping: %s", got)
		}
	}
	released.Store(true)
	close(release)
}

// 3. Without a successful operation there is no task.
func TestContractNoSuccessNoTask(t *testing.T) {
	app, w := newWorld()
	type input struct {
		How string `query:"how" enum:"error,conflict,panic,encode,dependency,ok"`
	}
	dependency := func(_ context.Context, c wake.Call[*world]) error {
		c.Tasks.Add(noted.With("dependency"))
		return errors.New("not allowed")
	}
	app.Use(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			wake.From[*world](r.Context()).Tasks.Add(noted.With("middleware"))
			next.ServeHTTP(rw, r)
		})
	})
	wake.Post(app, "/", func(ctx context.Context, in *input, c wake.Call[*world]) (any, error) {
		c.Tasks.Add(noted.With(in.How))
		switch in.How {
		case "error":
			return nil, errors.New("no")
		case "conflict":
			return nil, wake.Errorf(http.StatusConflict, "no")
		case "panic":
			panic("no")
		case "encode":
			return make(chan int), nil
		case "dependency":
			return nil, dependency(ctx, c)
		}
		return "yes", nil
	})
	client := waketest.Start(t, app)
	for how, status := range map[string]int{"error": 500, "conflict": 409, "panic": 500, "encode": 500, "dependency": 500, "invalid": 422} {
		expectStatus(t, client.Post("/?how="+how, nil), status)
	}
	w.expect(t)
	expectStatus(t, client.Post("/?how=ok", nil), http.StatusOK)
	w.expect(t, "middleware", "ok")
}

// 4. A client that goes away neither cancels nor prevents tasks.
func TestContractAClientThatLeavesChangesNothing(t *testing.T) {
	app, w := newWorld()
	arrived, left := make(chan struct{}), make(chan struct{})
	done := make(chan error, 1)
	alive := wake.Define0("alive", func(ctx context.Context, w *world) error {
		w.note("ran")
		done <- ctx.Err()
		return nil
	})
	wake.Post(app, "/", func(ctx context.Context, _ *none, c wake.Call[*world]) (string, error) {
		c.Tasks.Add(alive.With())
		close(arrived)
		<-left
		<-ctx.Done() // the server has noticed
		return strings.Repeat("x", 1<<20), nil
	})
	srv := serveOnWire(t, app)
	conn := srv.dial()
	if _, err := io.WriteString(conn, "POST / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	wait(t, arrived, "the request")
	if err := conn.(*net.TCPConn).SetLinger(0); err != nil {
		t.Fatal(err)
	}
	conn.Close()
	close(left)
	if err := wait(t, done, "the task"); err != nil {
		t.Errorf("the task's context: %v", err)
	}
	w.expect(t, "ran")
}

// 5. Tasks do not delay the next request of their connection.
func TestContractTasksDoNotDelayTheNextRequestOnTheirConnection(t *testing.T) {
	app, _ := newWorld()
	release := make(chan struct{})
	block := wake.Define0("block", func(context.Context, *world) error { <-release; return nil })
	wake.Post(app, "/", func(_ context.Context, _ *none, c wake.Call[*world]) (string, error) {
		c.Tasks.Add(block.With())
		return "ok", nil
	})
	srv := serveOnWire(t, app)
	conn := srv.dial()
	r := bufio.NewReader(conn)
	for range 5 {
		if _, err := io.WriteString(conn, "POST / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, res.Body); err != nil || res.StatusCode != http.StatusOK {
			t.Fatalf("status %d: %v", res.StatusCode, err)
		}
	}
	close(release)
}

// 6. Set-up ends before the port opens; if it fails the port was never opened.
// The exit code is tested with a process.
func TestContractThePortOpensAfterSetUp(t *testing.T) {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := free.Addr().String()
	free.Close()
	dial := func() error {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
		}
		return err
	}
	broken := errors.New("no database")
	var during error
	app := wake.New("App", "1.0", func(context.Context, func(int) error) error {
		during = dial()
		return broken
	})
	err = app.Run(t.Context(), quiet, wake.Addr(addr), wake.AdminAddr("off"))
	if !errors.Is(err, broken) || lifespan.ExitCode(err) != lifespan.ExitStart {
		t.Errorf("Run: %v, exit code %d", err, lifespan.ExitCode(err))
	}
	if during == nil {
		t.Error("the port was open during set-up")
	}
	if dial() == nil {
		t.Error("the port is open after set-up has failed")
	}
}

// 7. The stop goes: no new connections, requests end, tasks end, clean-up.
func TestContractTheStopGoesInOrder(t *testing.T) {
	w := &world{}
	arrived, finish := make(chan struct{}), make(chan struct{})
	app := wake.New("App", "1.0", func(_ context.Context, yield func(*world) error) error {
		defer w.note("clean-up")
		return yield(w)
	})
	wake.Post(app, "/", func(_ context.Context, _ *none, c wake.Call[*world]) (string, error) {
		c.Tasks.Add(noted.With("task"))
		close(arrived)
		<-finish
		w.note("request")
		return "answered", nil
	})
	draining := make(chan struct{})
	srv := serveOnWire(t, app, wake.OnEvent(func(e lifespan.Event) {
		if p, ok := e.(lifespan.PhaseChanged); ok && p.To == lifespan.Draining {
			close(draining)
		}
	}))
	conn := srv.dial()
	if _, err := io.WriteString(conn, "POST / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	wait(t, arrived, "the request")
	srv.stop()
	wait(t, draining, "the drain")
	refused := false
	for late := time.Now().Add(10 * time.Second); !refused && time.Now().Before(late); { // the listener closes a moment after the drain has begun
		c, err := net.Dial("tcp", srv.addr)
		if refused = err != nil; !refused {
			c.Close()
		}
	}
	if !refused {
		t.Error("connections are accepted while the application drains")
	}
	close(finish)
	answer, err := io.ReadAll(conn)
	if err != nil || !strings.Contains(string(answer), "answered") || !strings.Contains(string(answer), "Connection: close") {
		t.Errorf("the request in progress: %v\n%s", err, answer)
	}
	if err := srv.err(); err != nil {
		t.Error(err)
	}
	w.expect(t, "request", "task", "clean-up")
}

// 8. What the lifespan yields is every request's state, one shared object.
func TestContractTheStateIsWhatTheLifespanYields(t *testing.T) {
	type state struct{ hits int }
	var mu sync.Mutex
	yielded := &state{}
	app := wake.New("App", "1.0", lifespan.Fixed(yielded))
	wake.Post(app, "/hit", func(ctx context.Context, _ *none, c wake.Call[*state]) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		c.State.hits++
		if wake.From[*state](ctx).State != c.State {
			return 0, errors.New("From finds another state")
		}
		return c.State.hits, nil
	})
	client := waketest.Start(t, app)
	for n := 1; n <= 3; n++ {
		if res := client.Post("/hit", nil); string(res.Body) != fmt.Sprintln(n) {
			t.Errorf("hit %d: %v", n, res)
		}
	}
	if yielded.hits != 3 {
		t.Errorf("the yielded state has %d hits", yielded.hits)
	}
}

// 9. Lifespans nest: the outer one is first in and last out.
func TestContractLifespansNestFirstInLastOut(t *testing.T) {
	var w world
	layer := func(name string) lifespan.Func[int] {
		return func(_ context.Context, yield func(int) error) error {
			w.note(name + " in")
			defer w.note(name + " out")
			return yield(0)
		}
	}
	inner := wake.New("Inner", "1.0", layer("inner"))
	outer := wake.New("Outer", "1.0", lifespan.Then(layer("outer"), func(ctx context.Context, _ int, yield func(int) error) error {
		return layer("middle")(ctx, yield)
	}))
	wake.Mount(outer, "/inner", inner)
	if err := waketest.Start(t, outer).Stop(); err != nil {
		t.Fatal(err)
	}
	w.expect(t, "outer in", "middle in", "inner in", "inner out", "middle out", "outer out")
}

// 10. In a test a request returns when its tasks have run, and a failing task
// fails the test.
func TestContractInTestsARequestReturnsAfterItsTasks(t *testing.T) {
	synctest.Test(t, inTestsARequestReturnsAfterItsTasks)
}

func inTestsARequestReturnsAfterItsTasks(t *testing.T) {
	app, w := newWorld()
	slow := wake.Define0("slow", func(_ context.Context, w *world) error {
		time.Sleep(time.Hour) // a request that does not wait returns before
		w.note("slow")
		return nil
	})
	wake.Post(app, "/slow", func(_ context.Context, _ *none, c wake.Call[*world]) (none, error) {
		c.Tasks.Add(slow.With())
		return none{}, nil
	})
	wake.Post(app, "/failing", func(_ context.Context, _ *none, c wake.Call[*world]) (none, error) {
		c.Tasks.Add(failing.With("broken"))
		return none{}, nil
	})
	tb := &fakeTB{TB: t}
	client := waketest.Start(tb, app)
	client.Post("/slow", nil)
	w.expect(t, "slow")
	if tb.Failed() {
		t.Error("the test has failed already")
	}
	expectStatus(t, client.Post("/failing", nil), http.StatusNoContent)
	if got := tb.errors(); !strings.Contains(got, `task "failing"`) || !strings.Contains(got, "broken") {
		t.Errorf("the test has failed with %q", got)
	}
}

// A fakeTB is a test that may fail.
type fakeTB struct {
	testing.TB
	mu     sync.Mutex
	failed []string
}

func (f *fakeTB) Errorf(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failed = append(f.failed, fmt.Sprintf(format, args...))
}

func (f *fakeTB) Failed() bool { return f.errors() != "" }

func (f *fakeTB) errors() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return strings.Join(f.failed, "\n")
}
