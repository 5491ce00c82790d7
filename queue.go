package wake

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/wake-go/wake/durable"
	"github.com/wake-go/wake/lifespan"
)

// Queue gives the application a durable queue, in the store that url names:
// "sqlite:app.db" for an SQLite file, which is made if it does not exist. [Main]
// lets --queue and WAKE_QUEUE override it. Defaults to no queue.
//
// The store is opened before set-up and closed after clean-up. The contexts of
// the lifespan, of requests and of tasks have the queue, see [QueueFrom], and
// with SQLite the database, see [DB].
func Queue(url string) Option {
	return OpenStore(func(ctx context.Context) (durable.Store, error) { return openURL(ctx, url) })
}

// OpenStore is [Queue] for a store that open opens; the application closes it.
func OpenStore(open func(ctx context.Context) (durable.Store, error)) Option {
	return func(c *config) { c.openStore = open }
}

// ReplaceStore is [OpenStore] for an application that has a queue, and nothing
// for one that has none: for tests.
func ReplaceStore(open func(ctx context.Context) (durable.Store, error)) Option {
	return func(c *config) {
		if c.openStore != nil {
			c.openStore = open
		}
	}
}

// OnQueueEvent is told what happens to queued tasks in this process and to what
// runs them, besides the log and the OnEvent of [EngineConfig]. It is called
// from several goroutines and must not block.
func OnQueueEvent(f func(durable.Event)) Option {
	return func(c *config) { c.onQueueEvent = append(slices.Clip(c.onQueueEvent), f) }
}

// Lease sets how long a process that is not heard of keeps the queued tasks it
// runs, before others take them. [Main] lets --lease and WAKE_LEASE override it.
// At least a second. Defaults to 30 seconds.
func Lease(d time.Duration) Option { return func(c *config) { c.engine.Lease = d } }

// Workers sets how many tasks of a queue run at once in this process. Defaults
// to 100 for each queue that a task of the application names.
func Workers(queue string, n int) Option {
	return func(c *config) {
		c.engine.Queues = maps.Clone(c.engine.Queues)
		if c.engine.Queues == nil {
			c.engine.Queues = map[string]int{}
		}
		c.engine.Queues[queue] = n
	}
}

// NoWorkers leaves queued tasks to other processes: see [App.Work].
func NoWorkers() Option { return func(c *config) { c.role = RoleWeb } }

// QueueConfig configures the queue: limits, encryption.
func QueueConfig(cfg durable.QueueConfig) Option { return func(c *config) { c.queue = cfg } }

// EngineConfig configures what runs queued tasks: retention, events, the node's
// name. Of its fields, Version, Grace, DrainTimeout and Logger are the
// application's, the lanes are those of [Background] besides it, and the
// schedules those of [Router.Every]. Give it before [Lease] and [Workers].
func EngineConfig(cfg durable.EngineConfig) Option { return func(c *config) { c.engine = cfg } }

// A ProcessRole says what a process of the application does.
type ProcessRole string

// The roles of processes.
const (
	RoleServe  ProcessRole = "serve"  // serves requests and, if there is a queue, runs its tasks
	RoleWeb    ProcessRole = "web"    // serves requests
	RoleWorker ProcessRole = "worker" // runs queued tasks
)

// Role returns what the process does, for a lifespan that sets up less for one
// role than for another. Outside an application it returns "".
func Role(ctx context.Context) ProcessRole {
	if in := applicationOf(ctx); in != nil {
		return in.cfg.role
	}
	return ""
}

// QueueFrom returns the application's queue, in all its contexts: of the
// lifespan, requests, tasks. What is added to it is committed when its Add
// returns; an operation's [Call].Queue commits with the operation instead.
// Without a queue it returns nil.
func QueueFrom(ctx context.Context) *durable.Queue {
	if in := applicationOf(ctx); in != nil {
		return in.queue
	}
	return durable.QueueFrom(ctx)
}

// DB returns the database that the queue is in, if it is SQLite's, in all
// contexts of the application: for the application's own tables, which
// [Outbox.AddTx] and [Outbox.InTx] then write together with tasks. Do not open
// the file in another way: two SQLite libraries on one file lose data. Other
// stores have none: it returns nil.
func DB(ctx context.Context) *sql.DB {
	q := QueueFrom(ctx)
	if q == nil {
		return nil
	}
	if s, ok := q.Store().(interface{ DB() *sql.DB }); ok {
		return s.DB()
	}
	return nil
}

// Queue returns the queue of the running application; nil if it does not run or
// has none.
func (a *App[S]) Queue() *durable.Queue { return a.host.queue.Load() }

// withStore makes a lifespan that opens the queue's store before life and
// closes it after.
func withStore[S any](in *instance, life lifespan.Func[S]) lifespan.Func[S] {
	if in.cfg.openStore == nil {
		return life
	}
	return lifespan.Then(in.storeLife, func(ctx context.Context, q *durable.Queue, yield func(S) error) error {
		return life(durable.WithQueue(ctx, q), yield)
	})
}

func (in *instance) storeLife(ctx context.Context, yield func(*durable.Queue) error) (err error) {
	store, err := in.cfg.openStore(ctx)
	if err != nil {
		return fmt.Errorf("open the queue: %w", err)
	}
	if store == nil {
		return errors.New("open the queue: the function given to wake.OpenStore returned no store and no error")
	}
	defer func() {
		if closing := store.Close(); closing != nil {
			err = errors.Join(err, fmt.Errorf("close the queue's store: %w", closing))
		}
	}()
	cfg := in.cfg.queue
	cfg.Admit = func(job durable.Job) error {
		if err := in.admit(job); err != nil || in.cfg.queue.Admit == nil {
			return err
		}
		return in.cfg.queue.Admit(job)
	}
	q, err := cfg.NewQueue(store)
	if err != nil {
		return err
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), in.cfg.stopTimeout/2)
		defer cancel()
		if late := q.Close(closing); late != nil {
			err = errors.Join(err, fmt.Errorf("close the queue: %w", late))
		}
	}()
	in.queue = q
	if !in.host.queue.CompareAndSwap(nil, q) {
		return errRunning
	}
	defer in.host.queue.Store(nil)
	in.checks.add("queue", store.Ping)
	return yield(q)
}

// checkQueue finds what can never run, before anything is served.
func (in *instance) checkQueue() error {
	for _, host := range in.hosts() {
		for _, s := range host.schedules {
			if in.queue == nil {
				return fmt.Errorf("wake: schedule %q: %w", s.Name, errNoQueue)
			}
			if job := durable.AsJob(s.Job); job.Policy().Local && !in.runs(job.Kind()) {
				return fmt.Errorf("wake: schedule %q adds the task %q, which this program cannot run: give the task to app.Tasks", s.Name, job.Kind())
			}
		}
	}
	return nil
}

// memoryOnly returns the tasks that cannot be queued, if there is a queue.
func (in *instance) memoryOnly() (tasks []boundTask) {
	if in.queue == nil {
		return nil
	}
	for _, h := range in.hosts() {
		for _, name := range slices.Sorted(maps.Keys(h.kinds)) {
			if t := h.kinds[name]; t.unstorable != nil {
				tasks = append(tasks, t)
			}
		}
	}
	return tasks
}

// hosts are the application's and those of the applications mounted in it.
func (in *instance) hosts() []*host {
	hosts := []*host{in.host}
	for _, m := range in.mounted {
		hosts = append(hosts, m.hosts()...)
	}
	return hosts
}

// runs reports whether the application, or one mounted in it, or the one that
// it is mounted in, can run a kind of task.
func (in *instance) runs(kind string) bool {
	for in.outer != nil {
		in = in.outer
	}
	for _, h := range in.hosts() {
		if t, ok := h.kinds[kind]; ok && t.unstorable == nil {
			return true
		}
	}
	return false
}

// kind returns a task of the application by its name.
func (in *instance) kind(name string) boundTask { return in.host.kinds[name] }
