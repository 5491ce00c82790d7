package wake_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/wake-go/wake"
	"github.com/wake-go/wake/background"
	"github.com/wake-go/wake/lifespan"
	"github.com/wake-go/wake/waketest"
)

// The tests of this file are the faults of FastAPI, Starlette and uvicorn that
// an application of this package can have and must not. docs/guarantees.md has
// the whole list, with those that need a process of their own.

// G1: a failing task cuts the next request on its connection.
func TestAFailingTaskDoesNotKillTheNextRequestOnItsConnection(t *testing.T) {
	app, _ := newWorld()
	second := make(chan struct{})
	failed := make(chan struct{}, 4)
	bad := wake.Define("bad", func(_ context.Context, _ *world, panics bool) error {
		<-second // fails while the next request is in progress
		defer func() { failed <- struct{}{} }()
		if panics {
			panic("bad")
		}
		return errors.New("bad")
	})
	wake.Post(app, "/first", func(_ context.Context, _ *none, c wake.Call[*world]) (string, error) {
		c.Tasks.Add(bad.With(false), bad.With(true))
		return "first", nil
	})
	wake.Post(app, "/second", func(context.Context, *none, wake.Call[*world]) (string, error) {
		close(second)
		<-failed
		<-failed
		return "second", nil
	})
	conn := serveOnWire(t, app).dial()
	r := bufio.NewReader(conn)
	for _, path := range []string{"first", "second"} {
		if _, err := fmt.Fprintf(conn, "POST /%s HTTP/1.1\r\nHost: x\r\n\r\n", path); err != nil {
			t.Fatal(err)
		}
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		if body, err := io.ReadAll(res.Body); err != nil || string(body) != `"`+path+"\"\n" {
			t.Errorf("%s: %q, %v", path, body, err)
		}
	}
}

// G2: a failing task drops the later ones.
// G3: a task's error is a line without name, request or hook.
func TestAFailingTaskDoesNotStopTheLaterOnesAndIsReportedByName(t *testing.T) {
	var logs logbook
	var events []background.TaskFinished
	app, w := newWorld(logs.option(), wake.OnTask(func(e background.Event) {
		if f, ok := e.(background.TaskFinished); ok {
			events = append(events, f) // one list's tasks run one after another
		}
	}))
	burst := wake.Define0("burst", func(context.Context, *world) error { panic("pipe") })
	exits := wake.Define0("exits", func(context.Context, *world) error {
		defer func() { _ = recover() }()
		panic("kept inside")
	})
	wake.Post(app, "/", func(_ context.Context, _ *none, c wake.Call[*world]) (none, error) {
		c.Tasks.Add(failing.With("disk"), burst.With(), exits.With(), noted.With("last"))
		return none{}, nil
	})
	client := waketest.Start(t, app, waketest.AllowTaskErrors(), waketest.With(logs.option()))
	client.Post("/", nil, "X-Request-Id", "r-1")
	w.expect(t, "disk", "last")
	if err := client.Stop(); err != nil {
		t.Error(err)
	}
	if len(events) != 4 {
		t.Fatalf("%d events: %+v", len(events), events)
	}
	for i, name := range []string{"failing", "burst", "exits", "noted"} {
		if e := events[i]; e.Name != name || e.RequestID != "r-1" || (e.Err != nil) != (i < 2) {
			t.Errorf("event %d: %+v", i, e)
		}
	}
	record := logs.line(t, "task failed")
	if record["task"] != "failing" || record["request"] != "r-1" || record["error"] != "disk" {
		t.Errorf("logged %v", record)
	}
	if !strings.Contains(logs.String(), `"stack":"goroutine `) {
		t.Error("the log has no stack of the panic")
	}
}

// G11: the server goes on with closed resources when something of the lifespan
// dies.
func TestAPartOfTheLifespanThatDiesEndsTheApplication(t *testing.T) {
	died := errors.New("the consumer died")
	kill := make(chan struct{})
	var cleaned atomic.Bool
	app := wake.New("App", "1.0", func(ctx context.Context, yield func(int) error) error {
		defer cleaned.Store(true)
		lifespan.Go(ctx, "consumer", func(context.Context) error { <-kill; return died })
		return yield(0)
	})
	client := waketest.Start(&fakeTB{TB: t}, app)
	close(kill)
	err := client.Stop()
	if !errors.Is(err, died) || lifespan.ExitCode(err) == 0 || !cleaned.Load() {
		t.Errorf("the application ended with %v, code %d, cleaned up: %v", err, lifespan.ExitCode(err), cleaned.Load())
	}
}

// G12: tasks are dropped when the answer is an object of its own.
func TestTasksOfAnOperationRunWhateverItsAnswerIs(t *testing.T) {
	app, w := newWorld()
	for _, status := range []int{200, 204, 303, 304, 404, 500} {
		wake.Post(app, fmt.Sprintf("/handler/%d", status), func(_ context.Context, _ *none, c wake.Call[*world]) (http.Handler, error) {
			c.Tasks.Add(noted.With(fmt.Sprint(status)))
			return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }), nil
		})
	}
	client := waketest.Start(t, app)
	for _, status := range []int{200, 204, 303, 304, 404, 500} {
		expectStatus(t, client.Post(fmt.Sprintf("/handler/%d", status), nil), status)
	}
	w.expect(t, "200", "204", "303", "304", "404", "500")
}

// G13: tasks that a dependency adds in its exit code are dropped.
func TestTasksAddedByDeferredCodeRun(t *testing.T) {
	app, w := newWorld()
	app.Use(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			defer wake.From[*world](r.Context()).Tasks.Add(noted.With("middleware"))
			next.ServeHTTP(rw, r)
		})
	})
	wake.Post(app, "/", func(_ context.Context, _ *none, c wake.Call[*world]) (none, error) {
		defer c.Tasks.Add(noted.With("operation"))
		return none{}, nil
	})
	waketest.Start(t, app).Post("/", nil)
	w.expect(t, "operation", "middleware")
}

// G14: tasks of a WebSocket handler are accepted and never run.
func TestTasksOfAConnectionThatIsTakenOverRunWhenItsHandlerEnds(t *testing.T) {
	app, w := newWorld()
	ran := make(chan struct{})
	last := wake.Define0("last", func(_ context.Context, w *world) error {
		w.note("task")
		close(ran)
		return nil
	})
	app.Handle("GET /ws", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		wake.From[*world](r.Context()).Tasks.Add(last.With())
		conn, buf, err := http.NewResponseController(rw).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		fmt.Fprint(buf, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n")
		buf.Flush()
		line, err := buf.ReadString('\n')
		w.note("echo")
		fmt.Fprint(buf, line)
		buf.Flush()
		if err != nil {
			t.Error(err)
		}
	}))
	conn := serveOnWire(t, app).dial()
	if _, err := io.WriteString(conn, "GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(conn)
	res, err := http.ReadResponse(r, nil)
	if err != nil || res.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("%v, %v", res, err)
	}
	w.expect(t)
	if _, err := io.WriteString(conn, "hello\n"); err != nil {
		t.Fatal(err)
	}
	if line, err := r.ReadString('\n'); err != nil || line != "hello\n" {
		t.Errorf("echo %q, %v", line, err)
	}
	wait(t, ran, "the task")
	w.expect(t, "echo", "task")
}

// G15: what a request holds is held until its last task has ended.
// G16: a task's failure is thrown into the request's resources.
func TestARequestsResourcesAreReleasedBeforeItsTasks(t *testing.T) {
	app, w := newWorld()
	app.Use(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			defer func() {
				if v := recover(); v != nil {
					w.note("the task's failure")
				}
				w.note("session closed")
			}()
			next.ServeHTTP(rw, r)
		})
	})
	wake.Post(app, "/", func(_ context.Context, _ *none, c wake.Call[*world]) (none, error) {
		c.Tasks.Add(failing.With("task"))
		defer w.note("operation ended")
		return none{}, nil
	})
	waketest.Start(t, app, waketest.AllowTaskErrors()).Post("/", nil)
	w.expect(t, "operation ended", "session closed", "task")
}

// G17: lifespans of mounted applications do not run, and their requests see
// the outer state.
func TestTheLifespanOfAMountedApplicationRunsAndIsItsState(t *testing.T) {
	inner := wake.New("Inner", "1.0", lifespan.Fixed("inner state"))
	wake.Get(inner, "/state", func(_ context.Context, _ *none, c wake.Call[string]) (string, error) { return c.State, nil })
	outer := wake.New("Outer", "1.0", lifespan.Fixed("outer state"))
	wake.Mount(outer, "/inner", inner)
	if res := waketest.Start(t, outer).Get("/inner/state"); string(res.Body) != "\"inner state\"\n" {
		t.Errorf("got %v", res)
	}
}

// G18: set-up of an included router runs twice.
// G19: set-up that fails half-way leaves the rest open; a clean-up that fails
// skips the others.
func TestSetUpRunsOnceAndEveryCleanUpRuns(t *testing.T) {
	var w world
	part := func(name string, startErr, stopErr error) lifespan.Func[int] {
		return lifespan.Hooks(
			func(context.Context) (int, error) { w.note(name + " up"); return 0, startErr },
			func(context.Context, int) error { w.note(name + " down"); return stopErr })
	}
	errA, errB, errC := errors.New("a"), errors.New("b"), errors.New("c")
	chain := func(parts ...lifespan.Func[int]) lifespan.Func[int] {
		all := parts[0]
		for _, p := range parts[1:] {
			all = lifespan.Then(all, func(ctx context.Context, _ int, yield func(int) error) error { return p(ctx, yield) })
		}
		return all
	}
	inner := wake.New("Inner", "1.0", part("inner", nil, errC))
	app := wake.New("App", "1.0", chain(part("a", nil, errA), part("b", nil, errB)))
	wake.Mount(app, "/inner", inner)
	err := waketest.Start(t, app).Stop()
	w.expect(t, "a up", "b up", "inner up", "inner down", "b down", "a down")
	for _, want := range []error{errA, errB, errC} {
		if !errors.Is(err, want) {
			t.Errorf("the error of clean-up %q is lost: %v", want, err)
		}
	}

	w = world{}
	app = wake.New("App", "1.0", chain(part("a", nil, nil), part("b", errB, nil)))
	wake.Mount(app, "/inner", inner)
	if err := app.Run(t.Context(), quiet); !errors.Is(err, errB) {
		t.Errorf("Run: %v", err)
	}
	w.expect(t, "a up", "b up", "a down")
}

// G20: slow tasks take the threads that requests need.
// G22: running tasks count against the limit of requests.
func TestSlowTasksDoNotTakeTheRoomOfRequests(t *testing.T) {
	app, _ := newWorld()
	release := make(chan struct{})
	slow := wake.Define0("slow", func(context.Context, *world) error { <-release; return nil })
	wake.Post(app, "/", func(_ context.Context, _ *none, c wake.Call[*world]) (string, error) {
		c.Tasks.Add(slow.With())
		return "ok", nil
	})
	wake.Get(app, "/ping", func(context.Context, *none, wake.Call[*world]) (string, error) { return "pong", nil })
	srv := serveOnWire(t, app, wake.Background(background.Config{Lanes: map[string]background.Lane{"default": {Running: 2}}}))
	for range 100 { // two run, the others wait: none of them is a request
		if got := srv.talk("POST / HTTP/1.1\nHost: x\nConnection: close\n\n"); !strings.HasPrefix(got, "HTTP/1.1 200 ") {
			t.Fatalf("got %s", got)
		}
	}
	if got := srv.talk("GET /ping HTTP/1.1\nHost: x\nConnection: close\n\n"); !strings.HasPrefix(got, "HTTP/1.1 200 ") {
		t.Errorf("got %s", got)
	}
	close(release)
}

// G23: tasks have no name, time limit or figures.
func TestATaskHasANameATimeLimitAndFigures(t *testing.T) {
	var finished background.TaskFinished
	app, _ := newWorld(wake.OnTask(func(e background.Event) { finished, _ = e.(background.TaskFinished) }))
	cause := make(chan error, 1)
	hangs := wake.Define0("hangs", func(ctx context.Context, _ *world) error {
		<-ctx.Done()
		cause <- context.Cause(ctx)
		return ctx.Err()
	}, wake.Timeout(1))
	wake.Post(app, "/", func(_ context.Context, _ *none, c wake.Call[*world]) (none, error) {
		c.Tasks.Add(hangs.With())
		return none{}, nil
	})
	client := waketest.Start(t, app, waketest.AllowTaskErrors())
	client.Post("/", nil)
	if err := client.Stop(); err != nil {
		t.Error(err)
	}
	if err := wait(t, cause, "the end of the task"); !errors.Is(err, background.ErrTimeout) {
		t.Errorf("the task's context ended with %v", err)
	}
	if finished.Name != "hangs" || finished.RequestID == "" || finished.Lane != "default" || finished.Err == nil {
		t.Errorf("reported %+v", finished)
	}
}

// G24: wrong arguments of a task are found when it runs.
func TestAProgramThatAddsATaskWithAWrongArgumentDoesNotCompile(t *testing.T) {
	const program = `package bad

import (
	"context"

	"github.com/wake-go/wake"
)

var mail = wake.Define("mail", func(context.Context, *int, string) error { return nil })

func operation(_ context.Context, _ *struct{}, c wake.Call[%s]) (string, error) {
	c.Tasks.Add(mail.With(%s))
	return "", nil
}

var _ = operation
`
	dir := t.TempDir()
	for name, c := range map[string]struct{ state, arg, want string }{
		"good":     {"*int", `"Ada"`, ""},
		"argument": {"*int", `42`, "cannot use 42"},
		"missing":  {"*int", ``, "not enough arguments"},
		"state":    {"*string", `"Ada"`, "wake.Job[*int]"},
	} {
		file := filepath.Join(dir, name+".go")
		if err := os.WriteFile(file, fmt.Appendf(nil, program, c.state, c.arg), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.CommandContext(t.Context(), "go", "vet", file).CombinedOutput()
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: the program is refused: %v\n%s", name, err, out)
		case c.want != "" && (err == nil || !strings.Contains(string(out), c.want)):
			t.Errorf("%s: want %q, got %v\n%s", name, c.want, err, out)
		}
	}
}

// G26: the application is not told that it is about to stop.
func TestTheApplicationIsToldThatItIsAboutToStop(t *testing.T) {
	var told atomic.Int32
	app := wake.New("App", "1.0", func(ctx context.Context, yield func(<-chan struct{}) error) error {
		return yield(wake.Draining(ctx))
	})
	started := make(chan struct{}, 2)
	wake.Get(app, "/wait", func(ctx context.Context, _ *none, c wake.Call[<-chan struct{}]) (none, error) {
		started <- struct{}{}
		<-wake.Draining(ctx)
		<-c.State
		told.Add(1)
		return none{}, nil
	})
	wake.Stream(app, "/stream", func(ctx context.Context, _ *none, c wake.StreamCall[<-chan struct{}]) error {
		if err := c.Send("open"); err != nil {
			return err
		}
		started <- struct{}{}
		<-ctx.Done()
		if context.Cause(ctx) == wake.ErrDraining {
			told.Add(1)
		}
		return ctx.Err()
	})
	srv := serveOnWire(t, app)
	for _, path := range []string{"/wait", "/stream"} {
		if _, err := io.WriteString(srv.dial(), "GET "+path+" HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		wait(t, started, path)
	}
	srv.stop()
	if err := srv.err(); err != nil || told.Load() != 2 {
		t.Errorf("%d of 2 were told; Run: %v", told.Load(), err)
	}
}
