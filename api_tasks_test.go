package wake_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/humatest"

	"github.com/wake-go/wake"
	"github.com/wake-go/wake/background"
	"github.com/wake-go/wake/waketest"
)

func TestEveryWayToAddATask(t *testing.T) {
	app, w := newWorld()
	plain := wake.Define0("plain", func(_ context.Context, w *world) error { w.note("plain"); return nil })
	var met sync.WaitGroup
	met.Add(2)
	meets := wake.Define0("meets", func(_ context.Context, w *world) error {
		met.Done()
		met.Wait() // ends only if both run beside each other
		w.note("met")
		return nil
	})
	wake.Post(app, "/", func(_ context.Context, _ *none, c wake.Call[*world]) (none, error) {
		c.Tasks.Add(plain.With())
		c.Tasks.Group(meets.With(), meets.With())
		c.Tasks.Group()
		c.Tasks.Always(noted.With("always"))
		c.Tasks.Func("func", func(ctx context.Context) error {
			w.note("func of " + background.RequestID(ctx))
			return nil
		})
		return none{}, c.Tasks.TryAdd(noted.With("try"))
	})
	waketest.Start(t, app).Post("/", nil, "X-Request-Id", "r-1")
	w.expect(t, "plain", "met", "met", "always", "func of r-1", "try")
}

func TestOnlyAlwaysTasksOfAFailedOperationRun(t *testing.T) {
	app, w := newWorld()
	wake.Post(app, "/", func(_ context.Context, _ *none, c wake.Call[*world]) (none, error) {
		c.Tasks.Add(noted.With("never"))
		c.Tasks.Always(noted.With("audit"))
		return none{}, wake.Errorf(http.StatusConflict, "no")
	})
	wake.Post(app, "/panic", func(_ context.Context, _ *none, c wake.Call[*world]) (none, error) {
		c.Tasks.Always(noted.With("audit of a panic"))
		panic("no")
	})
	client := waketest.Start(t, app)
	client.Post("/", nil)
	client.Post("/panic", nil)
	w.expect(t, "audit", "audit of a panic")
}

func TestARunningTaskAddsMore(t *testing.T) {
	app, w := newWorld()
	var more *wake.Task[*world, int]
	more = wake.Define("more", func(ctx context.Context, w *world, n int) error {
		c := wake.From[*world](ctx)
		if c.Request != nil || c.Response != nil {
			return errors.New("a task has a request")
		}
		w.note(fmt.Sprint("more ", n))
		if n > 0 {
			c.Tasks.Add(more.With(n - 1))
		}
		return nil
	})
	wake.Post(app, "/", func(ctx context.Context, _ *none, _ wake.Call[*world]) (none, error) {
		wake.From[*world](ctx).Tasks.Add(more.With(2), noted.With("other"))
		return none{}, nil
	})
	waketest.Start(t, app).Post("/", nil)
	w.expect(t, "more 2", "other", "more 1", "more 0")
}

var unboundKind = wake.Declare[string]("unbound")

func TestAJobOfAKindThatNothingIsBoundToFailsTheOperation(t *testing.T) {
	app, w := newWorld()
	var logs logbook
	job := wake.JobOf[*world](unboundKind, "x")
	wake.Post(app, "/add", func(_ context.Context, _ *none, c wake.Call[*world]) (none, error) {
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() { c.Tasks.Add(noted.With("never"), job) })
		}
		wg.Wait()
		return none{}, nil
	})
	wake.Post(app, "/try", func(_ context.Context, _ *none, c wake.Call[*world]) (string, error) {
		return fmt.Sprint(c.Tasks.TryAdd(noted.With("never"), job)), nil
	})
	wake.Post(app, "/task", func(_ context.Context, _ *none, c wake.Call[*world]) (none, error) {
		c.Tasks.Func("adds", func(ctx context.Context) error {
			wake.From[*world](ctx).Tasks.Add(job)
			return nil
		})
		return none{}, nil
	})
	client := waketest.Start(t, app, waketest.With(logs.option()), waketest.AllowTaskErrors())
	problemOf(t, client.Post("/add", nil), http.StatusInternalServerError)
	if got := logs.line(t, "operation failed")["error"]; got != `task "unbound": no task is bound to this kind: give wake.Bind(kind, function) to app.Tasks` {
		t.Errorf("logged %q", got)
	}
	if res := client.Post("/try", nil); res.Status != http.StatusOK || !strings.Contains(res.String(), "no task is bound to this kind") {
		t.Errorf("TryAdd: %v", res)
	}
	expectStatus(t, client.Post("/task", nil), http.StatusNoContent)
	record := logs.line(t, "task failed")
	if record["task"] != "unbound" || !strings.Contains(fmt.Sprint(record["error"]), "no task is bound") {
		t.Errorf("the task that cannot run is logged as %v", record)
	}
	w.expect(t)
}

func smallLane(running, waiting int) wake.Option {
	return wake.Background(background.Config{Lanes: map[string]background.Lane{"small": {Running: running, Waiting: waiting}}})
}

// A full lane cancels the operation, is answered 503, and sheds at the door
// until there is room again.
func TestAFullLaneRefusesBeforeThereAreSideEffects(t *testing.T) {
	app, w := newWorld(smallLane(1, 1))
	release := make(chan struct{})
	started := make(chan struct{}, 8)
	slow := wake.Define0("slow", func(context.Context, *world) error {
		started <- struct{}{}
		<-release
		return nil
	}, wake.Lane("small"))
	app.Tasks(slow)
	wake.Post(app, "/", func(ctx context.Context, _ *none, c wake.Call[*world]) (none, error) {
		w.note("operation")
		c.Tasks.Add(slow.With())
		if cause := context.Cause(ctx); cause != nil {
			if !errors.Is(cause, background.ErrFull) {
				t.Errorf("cause %v", cause)
			}
			return none{}, wake.Errorf(http.StatusConflict, "what the operation makes of it: %w", ctx.Err())
		}
		return none{}, nil
	})
	wake.Get(app, "/other", func(context.Context, *none, wake.Call[*world]) (none, error) { return none{}, nil })
	srv := serveOnWire(t, app)
	send := func(request string) string { return srv.talk(request + " HTTP/1.1\nHost: x\nConnection: close\n\n") }
	for range 2 {
		if got := send("POST /"); !strings.HasPrefix(got, "HTTP/1.1 204 ") {
			t.Fatalf("got %s", got)
		}
	}
	wait(t, started, "the first task")
	for range 3 {
		if got := send("POST /"); !strings.HasPrefix(got, "HTTP/1.1 503 ") || !strings.Contains(got, "Retry-After: 1\r\n") {
			t.Errorf("a full lane: %s", got)
		}
	}
	w.expect(t, "operation", "operation", "operation") // the third found the lane full, the others were shed
	if got := send("GET /other"); !strings.HasPrefix(got, "HTTP/1.1 204 ") {
		t.Errorf("another operation: %s", got)
	}
	close(release)
	wait(t, started, "the second task")
	admitted := false
	for range 1000 {
		if admitted = strings.HasPrefix(send("POST /"), "HTTP/1.1 204 "); admitted {
			break
		}
	}
	if !admitted {
		t.Error("the lane has room and requests are still refused")
	}
}

func TestTryAddTellsOfAFullLaneAndAddsAllOrNone(t *testing.T) {
	app, w := newWorld(smallLane(1, 1))
	small := wake.Define("small", func(_ context.Context, w *world, what string) error { w.note(what); return nil }, wake.Lane("small"))
	wake.Post(app, "/", func(_ context.Context, _ *none, c wake.Call[*world]) (bool, error) {
		err := c.Tasks.TryAdd(small.With("a"), small.With("b"), small.With("c"))
		if err := c.Tasks.TryAdd(small.With("d")); err != nil {
			return false, err
		}
		return errors.Is(err, background.ErrFull), nil
	})
	if res := waketest.Start(t, app).Post("/", nil); string(res.Body) != "true\n" {
		t.Errorf("got %v", res)
	}
	w.expect(t, "d")
}

func TestOffloadReturnsResultsErrorsAndAFullLane(t *testing.T) {
	app, w := newWorld(wake.Background(background.Config{Lanes: map[string]background.Lane{"cpu": {Running: 1, Waiting: 1}}}))
	type input struct {
		How string `query:"how"`
	}
	wake.Post(app, "/", func(ctx context.Context, in *input, c wake.Call[*world]) (int, error) {
		c.Tasks.Add(noted.With(in.How))
		return wake.Offload(ctx, func(ctx context.Context) (int, error) {
			switch in.How {
			case "conflict":
				return 0, wake.Errorf(http.StatusConflict, "no")
			case "panic":
				panic("burst")
			case "nested":
				return wake.Offload(ctx, func(context.Context) (int, error) { return 7, nil })
			}
			return 42, nil
		})
	})
	release, busy := make(chan struct{}), make(chan struct{}, 2)
	wake.Post(app, "/hold", func(ctx context.Context, _ *none, _ wake.Call[*world]) (int, error) {
		return wake.Offload(ctx, func(context.Context) (int, error) {
			busy <- struct{}{}
			<-release
			return 0, nil
		})
	})
	client := waketest.Start(t, app)
	if res := client.Post("/?how=ok", nil); string(res.Body) != "42\n" {
		t.Errorf("result: %v", res)
	}
	if res := client.Post("/?how=nested", nil); string(res.Body) != "7\n" {
		t.Errorf("nested: %v", res)
	}
	problemOf(t, client.Post("/?how=conflict", nil), http.StatusConflict)
	problemOf(t, client.Post("/?how=panic", nil), http.StatusInternalServerError)
	answers := make(chan *waketest.Response, 3)
	for range 3 {
		go func() { answers <- client.Post("/hold", nil) }()
	}
	wait(t, busy, "the function")
	// One runs, one waits, and so one of the three is refused.
	full := wait(t, answers, "the refusal")
	if problemOf(t, full, http.StatusServiceUnavailable); full.Header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	close(release)
	for range 2 {
		expectStatus(t, wait(t, answers, "an answer"), http.StatusOK)
	}
	w.expect(t, "ok", "nested")
}

func TestOperationsRegisteredWithHumaTakePart(t *testing.T) {
	app, w := newWorld()
	type output struct{ Body textAnswer }
	huma.Post(app.Huma(), "/ok", func(ctx context.Context, _ *none) (*output, error) {
		wake.From[*world](ctx).Tasks.Add(noted.With("ok"))
		return &output{textAnswer{"ok"}}, nil
	})
	huma.Post(app.Huma(), "/conflict", func(ctx context.Context, _ *none) (*output, error) {
		wake.From[*world](ctx).Tasks.Add(noted.With("conflict"))
		return nil, huma.Error409Conflict("no")
	})
	huma.Post(app.Huma(), "/panic", func(ctx context.Context, _ *none) (*output, error) {
		wake.From[*world](ctx).Tasks.Add(noted.With("panic"))
		panic("no")
	})
	client := waketest.Start(t, app)
	expectStatus(t, client.Post("/ok", nil), http.StatusOK)
	problemOf(t, client.Post("/conflict", nil), http.StatusConflict)
	problemOf(t, client.Post("/panic", nil), http.StatusInternalServerError)
	w.expect(t, "ok")
}

func TestTasksRunUnderHumasOwnTestTools(t *testing.T) {
	app, w := newWorld()
	wake.Post(app, "/notes/{text}", func(_ context.Context, in *noteInput, c wake.Call[*world]) (textAnswer, error) {
		c.Tasks.Add(noted.With(in.Text))
		return textAnswer(*in), nil
	})
	client := waketest.Start(t, app)
	if rec := humatest.Wrap(t, app.Huma()).Post("/notes/a"); rec.Code != http.StatusOK || rec.Body.String() != `{"text":"a"}`+"\n" {
		t.Errorf("got %d %s", rec.Code, rec.Body)
	}
	if err := client.Stop(); err != nil {
		t.Error(err)
	}
	w.expect(t, "a")
}

func TestATaskAddedAfterTheRequestHasEndedIsRefusedLoudly(t *testing.T) {
	app, w := newWorld()
	var logs logbook
	calls := make(chan wake.Call[*world], 1)
	wake.Post(app, "/", func(_ context.Context, _ *none, c wake.Call[*world]) (none, error) {
		calls <- c
		return none{}, nil
	})
	client := waketest.Start(t, app, waketest.With(logs.option()))
	client.Post("/", nil, "X-Request-Id", "r-1")
	c := <-calls
	if err := c.Tasks.TryAdd(noted.With("late")); !errors.Is(err, background.ErrSealed) {
		t.Errorf("TryAdd: %v", err)
	}
	c.Tasks.Add(noted.With("late"))
	if record := logs.line(t, "task refused: it will not run"); record["task"] != "noted" || record["request"] != "r-1" {
		t.Errorf("logged %v", record)
	}
	w.expect(t)
}

func TestACallThatWakeDidNotMakePanicsWithASentence(t *testing.T) {
	var c wake.Call[*world]
	expectPanic(t, func() { c.Tasks.Add(noted.With("x")) }, "waketest.Call")
	c.Tasks = &wake.Tasks[*world]{}
	expectPanic(t, func() { c.Tasks.Add(noted.With("x")) }, "waketest.Call")
	expectPanic(t, func() { wake.From[*world](t.Context()) }, "From[*wake_test.world]", "request or a task")
	expectPanic(t, func() {
		_, _ = wake.Offload(t.Context(), func(context.Context) (int, error) { return 0, nil })
	}, "Offload needs the context")
	expectPanic(t, func() { wake.Check(t.Context(), "db", nil) }, `Check("db")`, "lifespan function")
	if wake.Draining(t.Context()) != nil {
		t.Error("outside an application Draining is not nil")
	}
	call, _ := waketest.Call(t, &world{})
	expectPanic(t, func() { call.Tasks.Add(wake.Job[*world]{}) }, "empty Job")
	expectPanic(t, func() { call.Tasks.Func("f", nil) }, `task "f"`, "no function")
}

func TestFromDuringSetUpPanicsBecauseThereIsNoStateYet(t *testing.T) {
	app := wake.New("App", "1.0", func(ctx context.Context, yield func(*world) error) error {
		expectPanic(t, func() { wake.From[*world](ctx) }, "request or a task")
		return yield(&world{})
	})
	wake.Get(app, "/", func(ctx context.Context, _ *none, _ wake.Call[*world]) (none, error) {
		expectPanic(t, func() { wake.From[int](ctx) }, "From[int]", "*wake_test.world")
		return none{}, nil
	})
	expectStatus(t, waketest.Start(t, app).Get("/"), http.StatusNoContent)
}

func TestARequestIdIsTakenOverOrMade(t *testing.T) {
	app, _ := newWorld()
	wake.Get(app, "/", func(ctx context.Context, _ *none, _ wake.Call[*world]) (string, error) {
		return background.RequestID(ctx), nil
	})
	client := waketest.Start(t, app)
	ask := func(id string) (got string) {
		client.Get("/", "X-Request-Id", id).JSON(&got)
		return got
	}
	if got := ask("abc-1/2:3"); got != "abc-1/2:3" {
		t.Errorf("the client's id became %q", got)
	}
	for _, bad := range []string{"", "two words", "a\tb", strings.Repeat("x", 129), "<b>"} {
		if got := ask(bad); got == bad || len(got) != 16 {
			t.Errorf("the id %q became %q, want a new one", bad, got)
		}
	}
	if one, other := ask(""), ask(""); one == other {
		t.Error("two requests share an id")
	}
}
