package waketest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/wake-go/wake"
	"github.com/wake-go/wake/durable"
	"github.com/wake-go/wake/durable/memory"
	"github.com/wake-go/wake/durable/sqlite"
)

// Store gives the application a queue in a store of the test's, also if it has
// none by itself. The application closes it when it ends.
//
// Without this option, an application that has a queue gets a new SQLite file
// of the test's, without waiting for the disk; inside a testing/synctest bubble
// a store in memory.
func Store(s durable.Store) Option { return func(o *options) { o.store = s } }

// Workers lets queued tasks run by themselves, as in production. Without it
// they wait for [Client.RunQueue].
func Workers() Option { return func(o *options) { o.workers = true } }

// queueOptions are what a test's application is given for its queue.
func (o *options) queueOptions(t testing.TB) []wake.Option {
	var opts []wake.Option
	if o.store != nil {
		opts = append(opts, wake.OpenStore(func(context.Context) (durable.Store, error) { return o.store, nil }))
	} else {
		opts = append(opts, wake.ReplaceStore(func(ctx context.Context) (durable.Store, error) { return newStore(ctx, t) }))
	}
	if !o.workers {
		opts = append(opts, wake.NoWorkers())
	}
	return append(opts, wake.OnQueueEvent(func(e durable.Event) {
		if f, ok := e.(durable.TaskFinished); ok && f.Err != nil && failed(f.Move) && !o.allowTaskErrors {
			t.Errorf("queued task %q failed in attempt %d of %d: %v", f.Kind, f.Attempt, f.MaxAttempts, f.Err)
		}
	}))
}

func failed(m durable.Move) bool { return m == durable.MoveFail || m == durable.MoveExhaust }

func newStore(ctx context.Context, t testing.TB) (durable.Store, error) {
	if inBubble() {
		return memory.New(memory.Config{}), nil
	}
	store, err := sqlite.Open(ctx, sqlite.Config{Path: filepath.Join(t.TempDir(), "queue.db"), Relaxed: true, Ballast: -1})
	if err != nil {
		return nil, err
	}
	return store, nil
}

// Queue returns the application's queue; nil if it has none.
func (c *Client) Queue() *durable.Queue { return c.queue() }

// RunQueue runs queued tasks until none is ready: those that wait for their
// time, a retry among them, wait for [Client.Advance]. A task that fails fails
// the test, unless [AllowTaskErrors] is given.
func (c *Client) RunQueue() {
	c.t.Helper()
	ctx := context.Background()
	if c.patience > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, c.patience, errors.New("waketest: Patience is over"))
		defer cancel()
	}
	if err := c.runQueue(ctx); err != nil {
		c.t.Errorf("waketest: %v", err)
	}
}

// Advance moves the store's time, which decides when tasks are due and
// schedules tick. Call [Client.RunQueue] to have them run.
func (c *Client) Advance(d time.Duration) {
	c.t.Helper()
	q := c.queue()
	if q == nil {
		c.t.Fatalf("waketest: Advance: the application has no queue, or has ended")
	}
	s, ok := q.Store().(interface{ Advance(time.Duration) })
	if !ok {
		c.t.Fatalf("waketest: Advance: a %T cannot move its time", q.Store())
	}
	s.Advance(d)
}

// queued returns the arguments of a kind's tasks, as they are stored, oldest
// first.
func (c *Client) queued(kind string) (args [][]byte) {
	c.t.Helper()
	q := c.queue()
	if q == nil {
		c.t.Fatalf("waketest: Queued: the application has no queue, or has ended")
	}
	page := durable.Page{Limit: 1000}
	for {
		tasks, err := q.List(c.t.Context(), durable.Filter{Kind: kind}, page)
		if err != nil {
			c.t.Fatalf("waketest: Queued: %v", err)
		}
		for _, listed := range tasks {
			task, err := q.Get(c.t.Context(), listed.ID)
			if err != nil {
				c.t.Fatalf("waketest: Queued: %v", err)
			}
			args = append(args, task.Payload)
		}
		if len(tasks) < page.Limit {
			slices.Reverse(args)
			return args
		}
		page.After = tasks[len(tasks)-1].ID
	}
}

// queued returns the arguments that a handler has added to its queue.
func (r *Recorder[S]) queued(kind string) (args [][]byte) {
	r.t.Helper()
	for _, job := range r.queue() {
		if job.Kind() != kind {
			continue
		}
		arg, err := json.Marshal(job.Arg())
		if err != nil {
			r.t.Fatalf("waketest: the argument of task %q cannot be queued: %v", kind, err)
		}
		args = append(args, arg)
	}
	return args
}

// A Queuer has had tasks added to its queue: a [Client], or a [Recorder].
type Queuer interface {
	queued(kind string) [][]byte
}

// Queued returns the arguments with which a task was added to the queue, in
// their order to the millisecond, in whatever state the tasks are: those that have finished are there as
// long as the store keeps them.
func Queued[S, A any](from Queuer, task *wake.Task[S, A]) []A {
	return QueuedKind(from, task.Kind())
}

// QueuedKind is [Queued] for a kind: of a task with a result, or one that
// another program runs.
func QueuedKind[A any](from Queuer, kind *wake.Kind[A]) []A {
	var args []A
	for _, stored := range from.queued(kind.Name()) {
		var arg A
		if err := json.Unmarshal(stored, &arg); err != nil {
			panic(fmt.Sprintf("waketest: an argument of task %q does not fit %T: %v", kind.Name(), arg, err))
		}
		args = append(args, arg)
	}
	return args
}
