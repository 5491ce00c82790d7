package wake_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wake-go/wake"
	"github.com/wake-go/wake/background"
	"github.com/wake-go/wake/durable"
	"github.com/wake-go/wake/durable/memory"
	"github.com/wake-go/wake/lifespan"
	"github.com/wake-go/wake/waketest"
)

func inMemory() waketest.Option { return waketest.Store(memory.New(memory.Config{})) }

// queueing registers an operation that adds jobs to the queue.
func queueing(app wake.Routes[*world], jobs ...durable.Queueable) {
	wake.Post(app, "/queue", func(_ context.Context, _ *none, c wake.Call[*world]) (none, error) {
		c.Queue.AddAll(jobs...)
		return none{}, nil
	})
}

func TestAQueuedTaskHasTheApplicationAndAddsMore(t *testing.T) {
	app, w := newWorld()
	chain := wake.Declare[int]("chain")
	bound := wake.Bind(chain, func(ctx context.Context, w *world, n int) error {
		c := wake.From[*world](ctx)
		if c.State != w || c.Request != nil || wake.QueueFrom(ctx) == nil || wake.Draining(ctx) == nil {
			return errors.New("this is not the application's context")
		}
		w.note(fmt.Sprint("chain ", n))
		if n == 0 {
			c.Tasks.Add(noted.With("in memory"))
			return nil
		}
		if id := c.Queue.Add(chain.With(n - 1)); id.IsZero() {
			return errors.New("no id")
		}
		return nil
	})
	app.Tasks(bound)
	queueing(app, chain.With(2))
	client := waketest.Start(t, app, inMemory())
	client.Post("/queue", nil, "X-Request-Id", "r-1")
	client.RunQueue()
	if err := client.Stop(); err != nil { // the tasks in memory have ended
		t.Fatal(err)
	}
	w.expect(t, "chain 2", "chain 1", "chain 0", "in memory")
}

func TestWhatAQueuedTaskCannotAddFailsIt(t *testing.T) {
	app, _ := newWorld()
	adds := wake.Define0("adds", func(ctx context.Context, _ *world) error {
		wake.From[*world](ctx).Queue.Add(unlisted.With("a"))
		return nil
	}, wake.MaxAttempts(1))
	app.Tasks(adds)
	queueing(app, adds.With())
	client := waketest.Start(t, app, inMemory(), waketest.AllowTaskErrors())
	client.Post("/queue", nil)
	client.RunQueue()
	tasks, err := client.Queue().List(t.Context(), durable.Filter{}, durable.Page{})
	if err != nil || len(tasks) != 1 || tasks[0].State != durable.Dead {
		t.Fatalf("%+v, %v", tasks, err)
	}
	task, err := client.Queue().Get(t.Context(), tasks[0].ID)
	if err != nil || len(task.Errors) != 1 || !strings.Contains(task.Errors[0].Message, "give the task to app.Tasks") {
		t.Errorf("%+v, %v", task, err)
	}
}

func TestATaskInMemoryAddsToTheQueueAtOnce(t *testing.T) {
	app, w := newWorld()
	app.Tasks(noted)
	wake.Post(app, "/", func(_ context.Context, _ *none, c wake.Call[*world]) (none, error) {
		c.Tasks.Func("good", func(ctx context.Context) error {
			wake.From[*world](ctx).Queue.Add(noted.With("queued"))
			return errors.New("the task fails, and what it has added stays")
		})
		c.Tasks.Func("bad", func(ctx context.Context) error {
			wake.From[*world](ctx).Queue.Add(unlisted.With("a"))
			return nil
		})
		return none{}, nil
	})
	var logs logbook
	client := waketest.Start(t, app, inMemory(), waketest.AllowTaskErrors(), waketest.With(logs.option()))
	client.Post("/", nil, "X-Request-Id", "r-1")
	if !strings.Contains(logs.String(), "give the task to app.Tasks") {
		t.Error("the task that cannot add does not fail")
	}
	tasks, err := client.Queue().List(t.Context(), durable.Filter{}, durable.Page{})
	if err != nil || len(tasks) != 1 || tasks[0].Meta.RequestID != "r-1" {
		t.Errorf("%+v, %v", tasks, err)
	}
	client.RunQueue()
	w.expect(t, "queued")
}

// A plain handler has no operation to commit with.
func TestAMountedHandlerAddsToTheQueueAtOnce(t *testing.T) {
	app, w := newWorld()
	app.Tasks(noted)
	app.Handle("POST /plain/{job}", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		c := wake.From[*world](r.Context())
		c.Tasks.Add(noted.With("memory"))
		if r.PathValue("job") == "good" {
			c.Queue.Add(noted.With("queued"))
		} else {
			c.Queue.Add(unlisted.With("a"))
		}
		if cause := context.Cause(r.Context()); cause != nil {
			rw.WriteHeader(http.StatusServiceUnavailable)
			fmt.Fprint(rw, cause)
		}
	}))
	client := waketest.Start(t, app, inMemory())
	expectStatus(t, client.Post("/plain/good", nil), http.StatusOK)
	w.expect(t, "memory")
	res := client.Post("/plain/bad", nil)
	expectStatus(t, res, http.StatusServiceUnavailable)
	if !strings.Contains(res.String(), "give the task to app.Tasks") {
		t.Errorf("%v", res)
	}
	client.RunQueue()
	w.expect(t, "memory", "queued") // the second request's task in memory was dropped
}

func TestFailedAttemptsAreRetriedWhenTheirTimeHasCome(t *testing.T) {
	stores(t, func(t *testing.T, with waketest.Option) {
		app, w := newWorld()
		flaky := wake.Define("flaky", func(ctx context.Context, w *world, _ string) error {
			info, _ := durable.InfoFrom(ctx)
			w.note(fmt.Sprint("attempt ", info.Attempt, " of ", info.MaxAttempts))
			if info.Attempt == 1 {
				return errors.New("not yet")
			}
			return nil
		}, wake.MaxAttempts(3), wake.Backoff(durable.Constant(time.Hour)))
		app.Tasks(flaky)
		queueing(app, flaky.With("a"))
		client := waketest.Start(t, app, with, waketest.AllowTaskErrors())
		client.Post("/queue", nil)
		client.RunQueue()
		client.RunQueue()
		w.expect(t, "attempt 1 of 3")
		client.Advance(time.Hour)
		client.RunQueue()
		w.expect(t, "attempt 1 of 3", "attempt 2 of 3")
	})
}

func TestOptionsOfAJob(t *testing.T) {
	app, w := newWorld()
	app.Tasks(noted)
	queueing(app, noted.With("later").In(time.Hour), noted.With("other").Queue("other"), noted.With("now").Tags("x"))
	client := waketest.Start(t, app, inMemory(), waketest.With(wake.Workers("other", 2), wake.Workers("default", 1)))
	client.Post("/queue", nil)
	client.RunQueue()
	got := w.all()
	slices.Sort(got)
	if !slices.Equal(got, []string{"now", "other"}) {
		t.Errorf("ran: %q", got)
	}
	client.Advance(time.Hour)
	client.RunQueue()
	if got := w.all(); len(got) != 3 || got[2] != "later" {
		t.Errorf("ran: %q", got)
	}
}

// A queued task of the lane "cpu" runs on that lane's workers, and can use
// Offload in place.
func TestAQueuedTaskRunsInItsLane(t *testing.T) {
	app, w := newWorld(wake.Background(background.Config{Lanes: map[string]background.Lane{"cpu": {Running: 1, Waiting: 1}}}))
	computes := wake.Define0("computes", func(ctx context.Context, w *world) error {
		n, err := wake.Offload(ctx, func(context.Context) (int, error) { return 7, nil })
		w.note(fmt.Sprint(n))
		return err
	}, wake.Lane("cpu"))
	app.Tasks(computes)
	queueing(app, computes.With(), computes.With(), computes.With())
	client := waketest.Start(t, app, inMemory())
	client.Post("/queue", nil)
	client.RunQueue()
	w.expect(t, "7", "7", "7")
}

type room struct {
	world *world
	name  string
}

func TestQueuedTasksOfIncludedAndMountedAndProjectedPackages(t *testing.T) {
	inPart := wake.Define("in_part", func(ctx context.Context, p *room, what string) error {
		if wake.From[*room](ctx).State.name != p.name {
			return errors.New("From finds another state")
		}
		p.world.note(p.name + ": " + what)
		return nil
	})
	adds := func(task *wake.Task[*room, string]) wake.Handler[*room, none, none] {
		return func(_ context.Context, _ *none, c wake.Call[*room]) (none, error) {
			c.Queue.Add(task.With("hello"))
			return none{}, nil
		}
	}
	app, w := newWorld()
	router := wake.NewRouter[*room]()
	router.Tasks(inPart)
	wake.Post(router, "/", adds(inPart))
	wake.Include(app, "/included", router, func(w *world) *room { return &room{w, "included"} })

	inMounted := wake.Define("in_mounted", func(ctx context.Context, p *room, what string) error {
		p.world.note(p.name + ": " + what)
		return nil
	})
	inner := wake.New("Inner", "1", lifespan.Fixed(&room{w, "mounted"}))
	inner.Tasks(inMounted)
	wake.Post(inner, "/add", adds(inMounted))
	wake.Mount(app, "/mounted", inner)

	projected := wake.Project(wake.Define("projected", func(_ context.Context, p *room, what string) error {
		p.world.note(p.name + ": " + what)
		return nil
	}), func(w *world) *room { return &room{w, "projected"} })
	app.Tasks(projected)
	queueing(app, projected.With("hello"))

	client := waketest.Start(t, app, inMemory())
	expectStatus(t, client.Post("/included/", nil), http.StatusNoContent)
	client.RunQueue()
	expectStatus(t, client.Post("/mounted/add", nil), http.StatusNoContent)
	client.RunQueue()
	expectStatus(t, client.Post("/queue", nil), http.StatusNoContent)
	client.RunQueue()
	w.expect(t, "included: hello", "mounted: hello", "projected: hello")
}

func TestAHandlerAloneAndItsQueue(t *testing.T) {
	call, recorder := waketest.Call(t, &world{})
	id := call.Queue.Add(noted.With("a"))
	second, err := call.Queue.Now(t.Context(), noted.With("b").Key("k"))
	if id.IsZero() || second.IsZero() || err != nil {
		t.Errorf("%v, %v, %v", id, second, err)
	}
	if got := waketest.Queued(recorder, noted); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("queued: %q", got)
	}
	if err := call.Queue.InTx(t.Context(), nil); err == nil {
		t.Error("there is a transaction without a store")
	}
}

func TestTheStoreIsOpenedBeforeSetUpAndItsErrorIsOfTheStart(t *testing.T) {
	for name, c := range map[string]struct {
		option wake.Option
		want   string
	}{
		"postgres":   {wake.Queue("postgres://user:secret@host/db"), "not supported in this version"},
		"unknown":    {wake.Queue("redis://user:secret@host"), "use sqlite:file.db"},
		"no file":    {wake.Queue("sqlite:" + filepath.Join(t.TempDir(), "missing", "queue.db")), "missing"},
		"own":        {wake.OpenStore(func(context.Context) (durable.Store, error) { return nil, errors.New("own reason") }), "own reason"},
		"no store":   {wake.OpenStore(func(context.Context) (durable.Store, error) { return nil, nil }), "no store and no error"},
		"bad config": {wake.EngineConfig(durable.EngineConfig{Poll: -1}), "Poll"},
		"bad limit":  {wake.QueueConfig(durable.QueueConfig{MaxPayload: -1}), "MaxPayload"},
		"bad lease":  {wake.Lease(time.Millisecond), "Lease"},
		"bad number": {wake.Workers("default", -1), `Queues["default"]`},
	} {
		t.Run(name, func(t *testing.T) {
			life := func(context.Context, func(*world) error) error {
				t.Error("set-up runs")
				return nil
			}
			opened := wake.OpenStore(func(context.Context) (durable.Store, error) { return memory.New(memory.Config{}), nil })
			if strings.HasPrefix(name, "bad") {
				life = lifespan.Fixed(&world{})
			}
			err := wake.New("World", "1", life, opened, c.option).Run(t.Context(), quiet, wake.Addr("127.0.0.1:0"), wake.AdminAddr("off"))
			if lifespan.ExitCode(err) != lifespan.ExitStart || !strings.Contains(fmt.Sprint(err), c.want) || strings.Contains(err.Error(), "secret") {
				t.Errorf("Run: %v", err)
			}
		})
	}
}

// The options of a job make it one for the queue alone.
func TestAJobWithOptionsIsNotForMemory(t *testing.T) {
	for name, c := range map[string]struct{ line, want string }{
		"without options": {`c.Tasks.Add(T.With("a"))`, ""},
		"for the queue":   {`c.Queue.Add(T.With("a").In(time.Hour))`, ""},
		"for memory":      {`c.Tasks.Add(T.With("a").In(time.Hour))`, "cannot use"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			source := `package main
import ("context"; "time"; "github.com/wake-go/wake")
var T = wake.Define("t", func(context.Context, *int, string) error { return nil })
func add(c wake.Call[*int]) { ` + c.line + ` }
func main() { add(wake.Call[*int]{}); _ = time.Hour }`
			file := filepath.Join(t.TempDir(), "main.go")
			if err := os.WriteFile(file, []byte(source), 0o600); err != nil {
				t.Fatal(err)
			}
			out, err := exec.CommandContext(t.Context(), "go", "vet", file).CombinedOutput()
			if c.want == "" && err != nil || c.want != "" && !strings.Contains(string(out), c.want) {
				t.Errorf("go vet: %v\n%s", err, out)
			}
		})
	}
}
