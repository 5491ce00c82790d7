package durable_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wake-go/wake/durable"
	"github.com/wake-go/wake/durable/memory"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// events collects what an engine tells.
type events struct {
	mu  sync.Mutex
	all []durable.Event
}

func (e *events) add(ev durable.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, ev)
}

// of returns the events of one type.
func of[E durable.Event](e *events) (some []E) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, ev := range e.all {
		if one, ok := ev.(E); ok {
			some = append(some, one)
		}
	}
	return some
}

// A log is what a logger has written.
type log struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *log) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func newLogger(l *log) *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// A bed is a store, a queue and an engine in a bubble of fake time.
type bed struct {
	t      *testing.T
	ctx    context.Context
	memory *memory.Store
	faults *faults
	q      *durable.Queue
	e      *durable.Engine
	events *events
	log    *log
}

// inBubble runs f in fake time.
func inBubble(t *testing.T, f func(b *bed)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		store := memory.New(memory.Config{})
		b := &bed{t: t, ctx: t.Context(), memory: store, faults: &faults{Store: store}, events: &events{}, log: &log{}}
		b.q = durable.NewQueue(b.faults)
		t.Cleanup(func() {
			b.q.Close(context.Background())
			if err := store.Close(); err != nil {
				t.Error(err)
			}
		})
		f(b)
	})
}

// queue replaces the queue, for a configuration of its own.
func (b *bed) queue(c durable.QueueConfig, traits func(*durable.Traits)) {
	b.t.Helper()
	b.faults.traits = traits
	var err error
	if b.q, err = c.NewQueue(b.faults); err != nil {
		b.t.Fatal(err)
	}
	q := b.q
	b.t.Cleanup(func() { q.Close(context.Background()) })
}

// run starts an engine that is drained when the test ends.
func (b *bed) run(cfg durable.EngineConfig, handlers ...durable.Handler) {
	b.t.Helper()
	b.start(cfg, handlers...)
	b.t.Cleanup(func() {
		if err := b.e.Drain(context.Background()); err != nil && !errors.Is(err, durable.ErrClosed) {
			b.t.Errorf("drain: %v", err)
		}
		for _, p := range b.e.Stats().Queues {
			if p.Running != 0 {
				b.t.Errorf("queue %q keeps %d places of tasks that have ended", p.Name, p.Running)
			}
		}
	})
}

func (b *bed) start(cfg durable.EngineConfig, handlers ...durable.Handler) {
	b.t.Helper()
	cfg.OnEvent = b.events.add
	cfg.Logger = newLogger(b.log)
	var err error
	if b.e, err = cfg.NewEngine(b.q, handlers...); err != nil {
		b.t.Fatal(err)
	}
	if err := b.e.Start(b.ctx); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bed) add(job durable.Queueable) durable.ID {
	b.t.Helper()
	id, err := b.q.Add(b.ctx, job)
	if err != nil {
		b.t.Fatal(err)
	}
	return id
}

// get returns the task as it is when all is quiet.
func (b *bed) get(id durable.ID) *durable.Task {
	b.t.Helper()
	synctest.Wait()
	task, err := b.q.Get(b.ctx, id)
	if err != nil {
		b.t.Fatal(err)
	}
	return task
}

func (b *bed) wantState(id durable.ID, want durable.State) *durable.Task {
	b.t.Helper()
	task := b.get(id)
	if task.State != want {
		b.t.Fatalf("task is %v with errors %+v, want %v", task.State, task.Errors, want)
	}
	return task
}

// faults is a store whose Commit can be made to fail.
type faults struct {
	durable.Store
	mu      sync.Mutex
	commit  func(*durable.Batch) error // before the store's; nil: none
	after   func(*durable.Batch) error // after it: the answer is lost
	beat    func() error
	batches []durable.Batch
	traits  func(*durable.Traits)
	apart   bool // functions have to run by themselves
	held    int  // tasks that ran when the process signed off
	deaf    bool // nothing is heard from Watch, as where there is none
}

func (f *faults) Watch(ctx context.Context, tell func(durable.Signal)) error {
	if !f.deaf {
		return f.Store.Watch(ctx, tell)
	}
	<-ctx.Done()
	return nil
}

func (f *faults) Traits() durable.Traits {
	traits := f.Store.Traits()
	if f.traits != nil {
		f.traits(&traits)
	}
	return traits
}

func (f *faults) set(commit, after func(*durable.Batch) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.commit, f.after = commit, after
}

func (f *faults) setBeat(beat func() error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.beat = beat
}

func (f *faults) seen() []durable.Batch {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]durable.Batch(nil), f.batches...)
}

func (f *faults) Commit(ctx context.Context, b *durable.Batch) (*durable.BatchResult, error) {
	f.mu.Lock()
	before, after := f.commit, f.after
	copied := *b
	copied.Inserts = append([]durable.Insert(nil), b.Inserts...)
	copied.Finishes = append([]durable.Finish(nil), b.Finishes...)
	copied.Claims = append([]durable.Claim(nil), b.Claims...)
	copied.Progress = append([]durable.ProgressUpdate(nil), b.Progress...)
	f.batches = append(f.batches, copied)
	f.mu.Unlock()
	if before != nil {
		if err := before(b); err != nil {
			return nil, err
		}
	}
	for _, fn := range b.Funcs {
		if fn.Err = durable.ErrApart; !f.apart {
			fn.Err = f.InTx(ctx, fn)
		}
	}
	inner := *b
	inner.Funcs = nil
	res, err := f.Store.Commit(ctx, &inner)
	if err == nil && after != nil {
		if err := after(b); err != nil {
			return nil, err
		}
	}
	return res, err
}

func (f *faults) Unregister(ctx context.Context, boot durable.Boot) error {
	running, err := f.List(ctx, durable.Filter{States: []durable.State{durable.Running}}, durable.Page{})
	f.mu.Lock()
	f.held = len(running)
	f.mu.Unlock()
	return errors.Join(err, f.Store.Unregister(ctx, boot))
}

func (f *faults) Beat(ctx context.Context, boot durable.Boot) (durable.BeatResult, error) {
	f.mu.Lock()
	beat := f.beat
	f.mu.Unlock()
	if beat != nil {
		if err := beat(); err != nil {
			return durable.BeatResult{}, err
		}
	}
	return f.Store.Beat(ctx, boot)
}

var work = durable.Declare[string]("work")

// handler makes the handler of "work".
func handler(run func(ctx context.Context, arg string) error) durable.Handler { return work.Run(run) }

func nothing(context.Context, string) error { return nil }

// rest lets fake time pass.
func rest(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}
