package waketest_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/wake-go/wake"
	"github.com/wake-go/wake/background"
	"github.com/wake-go/wake/lifespan"
	"github.com/wake-go/wake/waketest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type state struct {
	mu    sync.Mutex
	notes []string
}

func (s *state) note(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.notes = append(s.notes, what)
}

func (s *state) all() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.notes)
}

type input struct {
	What string `path:"what"`
}

var (
	note = wake.Define("note", func(_ context.Context, s *state, what string) error { s.note(what); return nil })
	fail = wake.Define("fail", func(_ context.Context, _ *state, what string) error { return errors.New(what) })
	hour = wake.Define0("hour", func(_ context.Context, s *state) error {
		time.Sleep(time.Hour)
		s.note("an hour later")
		return nil
	}, wake.Timeout(2*time.Hour))
)

func addNote(_ context.Context, in *input, c wake.Call[*state]) (string, error) {
	c.Tasks.Add(note.With(in.What), note.With("and "+in.What))
	return in.What, nil
}

func addFail(_ context.Context, in *input, c wake.Call[*state]) (string, error) {
	c.Tasks.Add(fail.With(in.What))
	return in.What, nil
}

func newApp(opts ...wake.Option) (*wake.App[*state], *state) {
	s := &state{}
	app := wake.New("App", "1.0", lifespan.Fixed(s), opts...)
	wake.Post(app, "/note/{what}", addNote)
	wake.Post(app, "/fail/{what}", addFail)
	return app, s
}

// A recording is a test that may fail without this one failing. What
// Fatal would end is ended by a panic.
type recording struct {
	testing.TB
	mu       sync.Mutex
	messages []string
	cleanups []func()
}

type fatal string

func (r *recording) Errorf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.messages = append(r.messages, fmt.Sprintf(format, args...))
}

func (r *recording) Fatalf(format string, args ...any) {
	r.Errorf(format, args...)
	panic(fatal(fmt.Sprintf(format, args...)))
}

func (r *recording) Cleanup(f func()) { r.cleanups = append(r.cleanups, f) }

func (r *recording) text() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.messages, "\n")
}

// record runs f as a test of its own, to its end, and returns what it failed with.
func record(t *testing.T, f func(t testing.TB)) string {
	t.Helper()
	r := &recording{TB: t}
	func() {
		defer func() {
			if v := recover(); v != nil {
				if _, ok := v.(fatal); !ok {
					panic(v)
				}
			}
		}()
		f(r)
	}()
	for _, cleanup := range slices.Backward(r.cleanups) {
		cleanup()
	}
	return r.text()
}

func TestARequestReturnsWhenItsTasksHaveEnded(t *testing.T) {
	app, s := newApp()
	client := waketest.Start(t, app)
	var got string
	if client.Post("/note/a", nil).JSON(&got); got != "a" {
		t.Errorf("got %q", got)
	}
	if want := []string{"a", "and a"}; !slices.Equal(s.all(), want) {
		t.Errorf("the tasks did %q, want %q", s.all(), want)
	}
}

func TestAFailingTaskFailsTheTest(t *testing.T) {
	app, _ := newApp()
	got := record(t, func(t testing.TB) { waketest.Start(t, app).Post("/fail/disk", nil, "X-Request-Id", "r-1") })
	if got != `task "fail" of request r-1 failed: disk` {
		t.Errorf("the test failed with %q", got)
	}
}

func TestTaskErrorsCanBeAllowed(t *testing.T) {
	app, _ := newApp()
	got := record(t, func(t testing.TB) { waketest.Start(t, app, waketest.AllowTaskErrors()).Post("/fail/disk", nil) })
	if got != "" {
		t.Errorf("the test failed with %q", got)
	}
}

func TestAFailedStartEndsTheTestWithItsReason(t *testing.T) {
	app := wake.New("App", "1.0", func(context.Context, func(int) error) error { return errors.New("no database") })
	got := record(t, func(t testing.TB) { waketest.Start(t, app) })
	if !strings.Contains(got, "did not start") || !strings.Contains(got, "no database") {
		t.Errorf("the test failed with %q", got)
	}
}

func TestAStartThatHangsEndsTheTest(t *testing.T) {
	app := wake.New("App", "1.0", func(ctx context.Context, _ func(int) error) error {
		<-ctx.Done()
		return context.Cause(ctx)
	})
	got := record(t, func(t testing.TB) { waketest.Start(t, app, waketest.Patience(time.Millisecond)) })
	if !strings.Contains(got, "not ready after 1ms") {
		t.Errorf("the test failed with %q", got)
	}
}

func TestACleanUpThatFailsFailsTheTest(t *testing.T) {
	app := wake.New("App", "1.0", lifespan.Hooks(
		func(context.Context) (int, error) { return 0, nil },
		func(context.Context, int) error { return errors.New("not flushed") }))
	if got := record(t, func(t testing.TB) { waketest.Start(t, app) }); !strings.Contains(got, "not flushed") {
		t.Errorf("the test failed with %q", got)
	}
	got := record(t, func(t testing.TB) {
		if err := waketest.Start(t, app).Stop(); err == nil {
			t.Errorf("Stop returns no error")
		}
	})
	if got != "" {
		t.Errorf("after Stop has returned the error the test failed with %q", got)
	}
}

func TestTasksThatDoNotEndAreToldAfterThePatience(t *testing.T) {
	app, _ := newApp()
	release := make(chan struct{})
	wake.Post(app, "/stuck", func(_ context.Context, _ *struct{}, c wake.Call[*state]) (string, error) {
		c.Tasks.Func("stuck", func(context.Context) error { <-release; return nil })
		return "answered", nil
	})
	got := record(t, func(t testing.TB) {
		res := waketest.Start(t, app, waketest.Patience(50*time.Millisecond)).Post("/stuck", nil)
		close(release)
		if res.Status != http.StatusOK {
			t.Errorf("got %v", res)
		}
	})
	if got != "waketest: the tasks of POST /stuck have not ended after 50ms" {
		t.Errorf("the test failed with %q", got)
	}
}

func TestAnAnswerOfMiddlewareOrOfTheServerIsNotWaitedFor(t *testing.T) {
	app, _ := newApp(wake.HeaderLimit(1024), wake.Middleware(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") == "" {
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			next.ServeHTTP(w, r)
		})
	}))
	client := waketest.Start(t, app)
	if res := client.Post("/note/a", nil); res.Status != http.StatusUnauthorized {
		t.Errorf("got %v", res)
	}
	if res := client.Post("/note/a", nil, "X-Large", strings.Repeat("x", 64<<10)); res.Status != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("got %v", res)
	}
}

func TestStartWithReplacesTheState(t *testing.T) {
	app, real := newApp()
	fake := &state{}
	waketest.StartWith(t, app, lifespan.Fixed(fake)).Post("/note/a", nil)
	if len(real.all()) != 0 || len(fake.all()) != 2 {
		t.Errorf("the real state has %q, the fake one %q", real.all(), fake.all())
	}
}

func TestTheApplicationDoesNotSeeTheClientsHeader(t *testing.T) {
	app, _ := newApp()
	wake.Get(app, "/header", func(_ context.Context, _ *struct{}, c wake.Call[*state]) (int, error) {
		return len(c.Request.Header.Values("Waketest-Request")), nil
	})
	if res := waketest.Start(t, app).Get("/header"); string(res.Body) != "0\n" {
		t.Errorf("got %v", res)
	}
}

func TestOneHandlerIsTriedAlone(t *testing.T) {
	s := &state{}
	call, tasks := waketest.Call(t, s)
	got, err := addNote(t.Context(), &input{"x"}, call)
	if got != "x" || err != nil || call.Request == nil || call.Response == nil {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := addFail(t.Context(), &input{"y"}, call); err != nil {
		t.Error(err)
	}
	call.Tasks.Always(note.With("always"))
	call.Tasks.Group(note.With("group"))
	if err := call.Tasks.TryAdd(note.With("try")); err != nil {
		t.Error(err)
	}
	if want := []string{"note", "note", "fail", "note", "note", "note"}; !slices.Equal(tasks.Names(), want) {
		t.Errorf("names %q, want %q", tasks.Names(), want)
	}
	if want := []string{"x", "and x", "always", "group", "try"}; !slices.Equal(waketest.Added(tasks, note), want) {
		t.Errorf("added %q, want %q", waketest.Added(tasks, note), want)
	}
	if len(s.all()) != 0 {
		t.Errorf("tasks have run: %q", s.all())
	}
}

func TestARecorderRunsWhatItHas(t *testing.T) {
	s := &state{}
	got := record(t, func(t testing.TB) {
		call, tasks := waketest.Call(t, s)
		call.Tasks.Add(note.With("first"), fail.With("broken"), note.With("last"))
		tasks.Run(t.Context())
	})
	if got != `task "fail" failed: broken` || !slices.Equal(s.all(), []string{"first", "last"}) {
		t.Errorf("failed with %q, did %q", got, s.all())
	}
}

func TestALifespanIsTriedAlone(t *testing.T) {
	s := &state{}
	life := lifespan.Hooks(
		func(context.Context) (string, error) { s.note("up"); return "state", nil },
		func(context.Context, string) error { s.note("down"); return errors.New("not closed") })
	got := record(t, func(t testing.TB) {
		if got := waketest.Lifespan(t, life); got != "state" || !slices.Equal(s.all(), []string{"up"}) {
			t.Errorf("state %q after %q", got, s.all())
		}
	})
	if !strings.Contains(got, "not closed") || !slices.Equal(s.all(), []string{"up", "down"}) {
		t.Errorf("failed with %q after %q", got, s.all())
	}
	broken := func(context.Context, func(int) error) error { return errors.New("no database") }
	if got := record(t, func(t testing.TB) { waketest.Lifespan(t, broken) }); !strings.Contains(got, "no database") {
		t.Errorf("failed with %q", got)
	}
}

func TestStopEndsTheApplicationAsASignalWould(t *testing.T) {
	app, s := newApp()
	client := waketest.Start(t, app)
	client.Post("/note/a", nil)
	if err := client.Stop(); err != nil {
		t.Error(err)
	}
	if err := client.Stop(); err != nil {
		t.Errorf("again: %v", err)
	}
	if len(s.all()) != 2 {
		t.Errorf("did %q", s.all())
	}
	if res, err := client.HTTP().Get(client.URL("/")); err == nil {
		res.Body.Close()
		t.Error("it still answers")
	}
}

func TestAnEventStreamIsHandedOverAsItComes(t *testing.T) {
	app, _ := newApp()
	wake.Stream(app, "/events", func(ctx context.Context, _ *struct{}, c wake.StreamCall[*state]) error {
		if err := c.Send("first"); err != nil {
			return err
		}
		<-ctx.Done()
		return ctx.Err()
	})
	client := waketest.Start(t, app)
	res, err := client.HTTP().Get(client.URL("/events"))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	buf := make([]byte, 64)
	if n, err := res.Body.Read(buf); err != nil || string(buf[:n]) != "data: \"first\"\n\n" {
		t.Errorf("read %q, %v", buf[:n], err)
	}
	if err := client.Stop(); err != nil {
		t.Error(err)
	}
	if rest, err := io.ReadAll(res.Body); err != nil || len(rest) != 0 {
		t.Errorf("after the stop: %q, %v", rest, err)
	}
}

func TestHoursPassInNoTimeInABubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		app, s := newApp()
		wake.Post(app, "/hour", func(_ context.Context, _ *struct{}, c wake.Call[*state]) (string, error) {
			c.Tasks.Add(hour.With())
			return "soon", nil
		})
		client := waketest.Start(t, app)
		began := time.Now()
		client.Post("/hour", nil)
		if took := time.Since(began); took < time.Hour || took > time.Hour+time.Minute {
			t.Errorf("the request returned after %v", took)
		}
		if !slices.Equal(s.all(), []string{"an hour later"}) {
			t.Errorf("did %q", s.all())
		}
		if err := client.Stop(); err != nil {
			t.Error(err)
		}
	})
}

func TestEveryMethodSendsWhatItSays(t *testing.T) {
	app, _ := newApp()
	echo := func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		fmt.Fprint(w, r.Method, " ", r.Header.Get("Content-Type"), " ", string(body), " ", r.Header.Get("X-A"), err)
	}
	app.Handle("/echo", http.HandlerFunc(echo))
	client := waketest.Start(t, app)
	for got, want := range map[*waketest.Response]string{
		client.Get("/echo", "X-A", "1"):                  "GET   1<nil>",
		client.Post("/echo", "text"):                     "POST  text <nil>",
		client.Put("/echo", []byte("bytes")):             "PUT  bytes <nil>",
		client.Patch("/echo", strings.NewReader("read")): "PATCH  read <nil>",
		client.Post("/echo", map[string]int{"n": 1}):     "POST application/json {\"n\":1} <nil>",
		client.Delete("/echo"):                           "DELETE   <nil>",
	} {
		if string(got.Body) != want {
			t.Errorf("got %q, want %q", got.Body, want)
		}
	}
	got := record(t, func(t testing.TB) { waketest.Start(t, mustNewApp()).Get("/livez").JSON(new(int)) })
	if !strings.Contains(got, "not what was expected") || !strings.Contains(got, `200 OK: {"status":"ok"}`) {
		t.Errorf("failed with %q", got)
	}
}

func mustNewApp() *wake.App[*state] { app, _ := newApp(); return app }

func TestOptionsOfTheApplicationForOneTest(t *testing.T) {
	app, _ := newApp()
	var finished []string
	client := waketest.Start(t, app, waketest.With(wake.OnTask(func(e background.Event) {
		if f, ok := e.(background.TaskFinished); ok {
			finished = append(finished, f.Name)
		}
	})))
	client.Post("/note/a", nil)
	if err := client.Stop(); err != nil || !slices.Equal(finished, []string{"note", "note"}) {
		t.Errorf("%v, %q", err, finished)
	}
}
