package wake_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wake-go/wake"
	"github.com/wake-go/wake/background"
	"github.com/wake-go/wake/durable"
	"github.com/wake-go/wake/lifespan"
	"github.com/wake-go/wake/waketest"
)

// A busyLane is an application whose one worker in memory is busy.
type busyLane struct {
	*wake.App[*world]
	world   *world
	store   *flakyStore
	logs    logbook
	started chan struct{}
	release chan struct{}
}

// keptOpen lets a test look at a store after the application has ended.
type keptOpen struct{ *flakyStore }

func (keptOpen) Close() error { return nil }

func newBusyLane(waiting int) *busyLane {
	b := &busyLane{store: newFlakyStore(), started: make(chan struct{}), release: make(chan struct{})}
	b.App, b.world = newWorld(wake.Background(background.Config{Lanes: map[string]background.Lane{
		"default": {Running: 1, Waiting: waiting},
	}}))
	b.Tasks(noted)
	b.operation("/occupy", func(c wake.Call[*world]) {
		c.Tasks.Func("occupier", func(ctx context.Context) error {
			close(b.started)
			select {
			case <-b.release:
			case <-ctx.Done():
			}
			return ctx.Err()
		})
	})
	return b
}

func (b *busyLane) operation(path string, f func(wake.Call[*world])) {
	wake.Post(b.App, path, func(_ context.Context, _ *none, c wake.Call[*world]) (none, error) {
		f(c)
		return none{}, nil
	})
}

// start starts the application and occupies its worker.
func (b *busyLane) start(t *testing.T, opts ...wake.Option) *waketest.Client {
	t.Helper()
	client := waketest.Start(t, b.App, waketest.Store(keptOpen{b.store}), waketest.AllowTaskErrors(),
		waketest.With(append(opts, b.logs.option())...))
	b.post(t, "/occupy")
	<-b.started
	return client
}

// post sends a request and does not wait for its tasks.
func (b *busyLane) post(t *testing.T, path string) int {
	t.Helper()
	rec := httptest.NewRecorder()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, path, nil)
	r.Header.Set("X-Request-Id", "r"+strings.ReplaceAll(path, "/", "-"))
	b.ServeHTTP(rec, r)
	return rec.Code
}

// queued returns what is in the store, with the requests it comes from.
func (b *busyLane) queued(t *testing.T) (tasks []string) {
	t.Helper()
	listed, err := b.store.List(t.Context(), durable.Filter{}, durable.Page{})
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range listed {
		full, err := b.store.Get(t.Context(), task.ID)
		if err != nil {
			t.Fatal(err)
		}
		tasks = append(tasks, fmt.Sprintf("%s(%s) of %s", full.Kind, full.Payload, full.Meta.RequestID))
	}
	slices.Sort(tasks)
	return tasks
}

func (b *busyLane) wantQueued(t *testing.T, want ...string) {
	t.Helper()
	if got := b.queued(t); !slices.Equal(got, want) {
		t.Errorf("in the store: %q, want %q", got, want)
	}
}

// stopWhile stops the application, calls f meanwhile, and returns its error.
func (b *busyLane) stopWhile(t *testing.T, client *waketest.Client, f func()) error {
	t.Helper()
	ended := make(chan error, 1)
	go func() { ended <- client.Stop() }()
	f()
	return <-ended
}

// eventually waits for something that another goroutine does.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func TestWhatHasNotStartedWhenTheDrainBeginsMovesToTheQueue(t *testing.T) {
	b := newBusyLane(100)
	b.operation("/several", func(c wake.Call[*world]) {
		c.Tasks.Add(noted.With("1"))
		c.Tasks.Func("closure", func(context.Context) error { b.world.note("closure"); return nil })
		c.Tasks.Group(noted.With("2"), noted.With("3"))
		c.Tasks.Always(noted.With("4"))
		c.Tasks.Add(unlisted.With("not given to app.Tasks"), channels.With(nil))
	})
	client := b.start(t)
	b.post(t, "/several")
	err := b.stopWhile(t, client, func() {
		eventually(t, "the tasks to move", func() bool { return len(b.queued(t)) == 4 })
		close(b.release)
	})
	if err != nil {
		t.Errorf("the application ended with %v", err)
	}
	b.wantQueued(t, `noted("1") of r-several`, `noted("2") of r-several`, `noted("3") of r-several`, `noted("4") of r-several`)
	b.world.expect(t, "closure")
	if n := b.store.commits.Load(); n != 1 {
		t.Errorf("%d commits, want one batch", n)
	}
	if record := b.logs.line(t, "tasks moved to the queue"); record["number"] != 4.0 {
		t.Errorf("logged %v", record)
	}
}

func TestTasksThatTheQueueDoesNotTakeRunInTheDrain(t *testing.T) {
	b := newBusyLane(100)
	b.operation("/one", func(c wake.Call[*world]) { c.Tasks.Add(noted.With("1")) })
	client := b.start(t, wake.QueueConfig(durable.QueueConfig{CommitTimeout: 50 * time.Millisecond}))
	b.post(t, "/one")
	b.store.fail(durable.ErrUnavailable)
	err := b.stopWhile(t, client, func() {
		eventually(t, "the queue to fail", func() bool { return strings.Contains(b.logs.String(), "tasks stay in memory") })
		close(b.release)
	})
	if err != nil {
		t.Errorf("the application ended with %v", err)
	}
	b.world.expect(t, "1")
	b.store.mend()
	b.wantQueued(t)
}

func TestATaskWhoseArgumentCannotBeEncodedStaysInMemory(t *testing.T) {
	b := newBusyLane(100)
	anything := wake.Define("anything", func(_ context.Context, w *world, v any) error {
		w.note(fmt.Sprintf("%T", v))
		return nil
	})
	b.Tasks(anything)
	b.operation("/two", func(c wake.Call[*world]) {
		c.Tasks.Add(anything.With(func() {}), anything.With("text"))
	})
	client := b.start(t)
	b.post(t, "/two")
	err := b.stopWhile(t, client, func() {
		eventually(t, "the tasks to move", func() bool { return len(b.queued(t)) == 1 })
		close(b.release)
	})
	if err != nil {
		t.Errorf("the application ended with %v", err)
	}
	b.wantQueued(t, `anything("text") of r-two`)
	b.world.expect(t, "func()")
}

// At the deadline what has not started, and what was cut short and may run
// twice, goes to the queue; the rest is reported by name.
func TestWhatTheDeadlineCutsShortIsQueuedIfItsDefinitionSaysSo(t *testing.T) {
	b := newBusyLane(100)
	waits := func(ctx context.Context, w *world, name string) error {
		w.note(name)
		<-ctx.Done()
		return ctx.Err()
	}
	again := wake.Define("again", waits, wake.Requeue(), wake.Lane("cpu"))
	never := wake.Define("never", waits, wake.Lane("cpu"))
	b.Tasks(again, never)
	b.operation("/two", func(c wake.Call[*world]) { c.Tasks.Group(again.With("a"), never.With("b")) })
	client := b.start(t, wake.DrainTimeout(200*time.Millisecond), wake.Grace(time.Second),
		wake.Background(background.Config{Lanes: map[string]background.Lane{"default": {Running: 1}, "cpu": {Running: 2}}}))
	b.post(t, "/two")
	eventually(t, "both tasks to start", func() bool { return len(b.world.all()) == 2 })
	err := client.Stop()
	if lifespan.ExitCode(err) != lifespan.ExitAbandoned {
		t.Fatalf("the application ended with %v", err)
	}
	var abandoned *background.AbandonedError
	if !errors.As(err, &abandoned) || len(abandoned.Tasks) != 2 {
		t.Fatalf("abandoned: %v", err)
	}
	for _, task := range abandoned.Tasks {
		if task.Name == "again" {
			t.Errorf("%v was queued, and is reported as abandoned", task)
		}
	}
	b.wantQueued(t, `again("a") of r-two`)
	if strings.Count(b.logs.String(), "task abandoned") != 2 {
		t.Errorf("the log has another number of abandoned tasks:\n%s", &b.logs)
	}
}

func TestADrainWhoseWorkIsAllHandedOverAbandonsNothing(t *testing.T) {
	b := newBusyLane(100)
	again := wake.Define0("again", func(ctx context.Context, w *world) error {
		w.note("started")
		<-ctx.Done()
		return ctx.Err()
	}, wake.Requeue(), wake.Lane("cpu"))
	b.Tasks(again)
	b.operation("/one", func(c wake.Call[*world]) { c.Tasks.Add(again.With()) })
	client := b.start(t, wake.DrainTimeout(100*time.Millisecond))
	close(b.release)
	b.post(t, "/one")
	eventually(t, "the task to start", func() bool { return len(b.world.all()) == 1 })
	if err := client.Stop(); err != nil {
		t.Errorf("the application ended with %v", err)
	}
	b.wantQueued(t, `again({}) of r-one`)
}

// With the store gone, names go to the log, and the exit code says that work
// was abandoned.
func TestWhatNobodyTakesIsReportedByName(t *testing.T) {
	b := newBusyLane(100)
	b.operation("/one", func(c wake.Call[*world]) { c.Tasks.Add(noted.With("1")) })
	client := b.start(t, wake.DrainTimeout(200*time.Millisecond), wake.Grace(200*time.Millisecond),
		wake.QueueConfig(durable.QueueConfig{CommitTimeout: 50 * time.Millisecond}))
	b.post(t, "/one")
	b.store.fail(durable.ErrUnavailable)
	err := client.Stop()
	if lifespan.ExitCode(err) != lifespan.ExitAbandoned || !strings.Contains(err.Error(), `"noted" (request r-one`) {
		t.Errorf("the application ended with %v", err)
	}
	found := false
	for line := range strings.Lines(b.logs.String()) {
		found = found || strings.Contains(line, "task abandoned") && strings.Contains(line, `"noted"`)
	}
	if !found {
		t.Errorf("the log does not name the task:\n%s", &b.logs)
	}
	b.world.expect(t)
}

func TestAFullLaneOverflowsIntoTheQueue(t *testing.T) {
	b := newBusyLane(1)
	b.operation("/add", func(c wake.Call[*world]) { c.Tasks.Add(noted.With("a")) })
	b.operation("/group", func(c wake.Call[*world]) { c.Tasks.Group(noted.With("b"), noted.With("c")) })
	b.operation("/closure", func(c wake.Call[*world]) { c.Tasks.Func("closure", func(context.Context) error { return nil }) })
	b.operation("/try", func(c wake.Call[*world]) {
		if err := c.Tasks.TryAdd(noted.With("never")); !errors.Is(err, background.ErrFull) {
			t.Errorf("TryAdd: %v", err)
		}
	})
	wake.Post(b.App, "/fails", func(_ context.Context, _ *none, c wake.Call[*world]) (none, error) {
		c.Tasks.Add(noted.With("never"))
		return none{}, wake.Errorf(http.StatusConflict, "no")
	})
	b.start(t)
	defer close(b.release)
	for _, step := range []struct {
		path string
		want int
	}{
		{"/add", 204}, // takes the last place
		{"/add", 204}, {"/group", 204}, {"/fails", 409}, {"/try", 204},
		{"/closure", 503}, // has nowhere to go, and makes the operation shed
		{"/add", 204},
	} {
		if got := b.post(t, step.path); got != step.want {
			t.Errorf("%s is answered %d, want %d", step.path, got, step.want)
		}
	}
	b.wantQueued(t, `noted("a") of r-add`, `noted("a") of r-add`, `noted("b") of r-group`, `noted("c") of r-group`)
}

func TestARunningTaskThatFindsItsLaneFullAddsToTheQueue(t *testing.T) {
	b := newBusyLane(1)
	b.operation("/one", func(c wake.Call[*world]) { c.Tasks.Add(noted.With("waits")) })
	b.operation("/adds", func(c wake.Call[*world]) {
		c.Tasks.Add(addsMore.With("more"))
	})
	b.Tasks(addsMore)
	b.start(t, wake.Background(background.Config{Lanes: map[string]background.Lane{"default": {Running: 1, Waiting: 1}, "cpu": {Running: 1}}}))
	b.post(t, "/one")
	b.post(t, "/adds")
	eventually(t, "the task to be queued", func() bool { return len(b.queued(t)) == 1 })
	b.wantQueued(t, `noted("more") of r-adds`)
	close(b.release)
}

var addsMore = wake.Define("adds_more", func(ctx context.Context, _ *world, what string) error {
	wake.From[*world](ctx).Tasks.Add(noted.With(what))
	return nil
}, wake.Lane("cpu"))
