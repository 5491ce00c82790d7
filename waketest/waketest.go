package waketest

import (
	"context"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/wake-go/wake"
	"github.com/wake-go/wake/background"
	"github.com/wake-go/wake/durable"
	"github.com/wake-go/wake/lifespan"
)

// An Option configures [Start].
type Option func(*options)

type options struct {
	allowTaskErrors bool
	patience        time.Duration
	workers         bool
	store           durable.Store
	app             []wake.Option
}

// AllowTaskErrors lets tasks fail without failing the test.
func AllowTaskErrors() Option { return func(o *options) { o.allowTaskErrors = true } }

// Patience sets how long the application may take to start, and the tasks of a
// request to end, before the test fails. Defaults to 10 seconds, and to no
// limit inside a testing/synctest bubble, where waiting takes no time and a
// program that is stuck is found out at once.
func Patience(d time.Duration) Option { return func(o *options) { o.patience = d } }

// With sets options of the application for this test.
func With(opts ...wake.Option) Option {
	return func(o *options) { o.app = append(o.app, opts...) }
}

// Start runs the application until the test ends, and returns a client for it.
// The test fails if set-up, serving or clean-up does.
func Start[S any](t testing.TB, app *wake.App[S], opts ...Option) *Client {
	t.Helper()
	o := options{patience: 10 * time.Second}
	if inBubble() {
		o.patience = 0
	}
	for _, set := range opts {
		set(&o)
	}
	c := newClient(t, o.patience)
	c.queue, c.runQueue = app.Queue, app.RunQueue
	ready := make(chan struct{})
	runOpts := slices.Concat([]wake.Option{
		wake.Logger(slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))),
	}, o.queueOptions(t), o.app, []wake.Option{
		wake.Listener(c.listener),
		wake.AdminAddr("off"),
		wake.HTTPServer(func(s *http.Server) { s.Handler = c.receive(s.Handler) }),
		wake.Middleware(watch),
		wake.OnEvent(func(e lifespan.Event) {
			if p, ok := e.(lifespan.PhaseChanged); ok && p.To == lifespan.Ready {
				close(ready)
			}
		}),
		wake.OnTask(func(e background.Event) {
			if f, ok := e.(background.TaskFinished); ok && f.Err != nil && !o.allowTaskErrors {
				t.Errorf("task %q of request %s failed: %v", f.Name, f.RequestID, f.Err)
			}
		}),
	})
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- app.Run(ctx, runOpts...) }()
	c.stop = sync.OnceValue(func() error {
		c.http.CloseIdleConnections() // the drain would wait for them
		stop()
		err := <-ended
		c.http.CloseIdleConnections()
		return err
	})
	select {
	case <-ready:
	case err := <-ended:
		stop()
		t.Fatalf("waketest: the application did not start: %v", err)
	case <-after(o.patience):
		stop()
		t.Fatalf("waketest: the application is not ready after %v; it ended with: %v", o.patience, <-ended)
	}
	t.Cleanup(func() {
		if err := c.stop(); err != nil && !c.stopped.Load() {
			t.Errorf("waketest: the application ended with an error: %v", err)
		}
	})
	return c
}

// inBubble reports whether the test runs in a testing/synctest bubble: its clock
// begins in the year 2000, which no other clock shows any more.
func inBubble() bool { return time.Now().Year() < 2020 }

// StartWith is [Start] with another lifespan, such as
// lifespan.Fixed(&State{Mail: fakeMailer}).
func StartWith[S any](t testing.TB, app *wake.App[S], life lifespan.Func[S], opts ...Option) *Client {
	t.Helper()
	return Start(t, app.WithLifespan(life), opts...)
}

// Lifespan runs a lifespan without an application: it sets up, returns the
// state, and cleans up when the test ends. An error of either fails the test.
func Lifespan[S any](t testing.TB, life lifespan.Func[S]) S {
	t.Helper()
	yielded := make(chan S, 1)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- lifespan.Run(ctx, life, func(ctx context.Context, state S) error {
			lifespan.MarkReady(ctx)
			yielded <- state
			<-ctx.Done()
			return nil
		}, lifespan.Config{})
	}()
	select {
	case state := <-yielded:
		t.Cleanup(func() {
			stop()
			if err := <-ended; err != nil {
				t.Errorf("waketest: the lifespan ended with an error: %v", err)
			}
		})
		return state
	case err := <-ended:
		stop()
		t.Fatalf("waketest: the lifespan did not start: %v", err)
	}
	panic("unreachable: Fatalf does not return")
}

// Call returns a call to try one handler with, and what records the tasks that
// the handler adds to Tasks, see [Added], and to Queue, see [Queued]:
//
//	call, tasks := waketest.Call(t, &State{})
//	message, err := register(t.Context(), &RegisterInput{Username: "Ada"}, call)
//	names := waketest.Added(tasks, SendWelcomeEmail)
//
// The call's request is an empty GET; the caller may change it.
func Call[S any](t testing.TB, state S) (wake.Call[S], *Recorder[S]) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "/", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	call, jobs, queue := wake.Detached(state, r)
	return call, &Recorder[S]{t, state, jobs, queue}
}

// A Recorder keeps the tasks that a handler adds to a [Call]. Its methods are
// about those in memory.
type Recorder[S any] struct {
	t     testing.TB
	state S
	jobs  func() []wake.Job[S]
	queue func() []durable.Job
}

// Names returns the names of the tasks in the order they were added.
func (r *Recorder[S]) Names() []string {
	var names []string
	for _, j := range r.jobs() {
		names = append(names, j.Name())
	}
	return names
}

// Run runs the recorded tasks in order; one that fails fails the test.
func (r *Recorder[S]) Run(ctx context.Context) {
	r.t.Helper()
	for _, j := range r.jobs() {
		if err := j.Run(ctx, r.state); err != nil {
			r.t.Errorf("task %q failed: %v", j.Name(), err)
		}
	}
}

// Added returns the arguments with which a task was added, in order.
func Added[S, A any](r *Recorder[S], task *wake.Task[S, A]) []A {
	var args []A
	for _, j := range r.jobs() {
		if a, ok := j.Arg().(A); ok && j.Name() == task.Name() {
			args = append(args, a)
		}
	}
	return args
}
