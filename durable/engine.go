package durable

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// An EngineLane bounds the tasks of handlers whose Policy.Lane names it.
type EngineLane struct {
	// Workers is how many of its tasks run at once, over all queues. Defaults
	// to 100.
	Workers int

	// Go starts a function that runs a task: exactly once, soon, and
	// somewhere else. Defaults to a goroutine.
	Go func(run func())
}

// EngineConfig configures an [Engine]. The zero value is ready to use.
type EngineConfig struct {
	// Queues says how many tasks of each queue run at once in this process.
	// Queues that a handler's policy names and this does not have 100. Tasks
	// put into any other queue wait for an engine that has it. Defaults to 100
	// for the queue "default".
	Queues map[string]int

	// Lanes are what Policy.Lane chooses from. A handler without a lane runs
	// in a goroutine, bounded by its queue alone. Defaults to none.
	Lanes map[string]EngineLane

	// Node is the name of this process, the same after a restart and
	// different from that of every other process. Defaults to what the store
	// makes of the machine.
	Node string

	// Version is the program's, shown with the node. Defaults to none.
	Version string

	// Lease is how long a process that is not heard of keeps its tasks. A beat
	// is sent every third of it. At least a second; defaults to 30 seconds.
	Lease time.Duration

	// Poll is how often ready tasks are looked for when nothing says that
	// there are some. At least 10 ms; defaults to a second.
	Poll time.Duration

	// DrainTimeout is how long [Engine.Run] lets running tasks end before it
	// cancels them. Defaults to 30 seconds.
	DrainTimeout time.Duration

	// Grace is how long a drain waits for tasks to return after it has
	// cancelled them. Defaults to 2 seconds.
	Grace time.Duration

	// Retention says how long finished tasks of a queue are kept; that of the
	// queue "" is that of all others. Defaults to that of [Retention].
	Retention map[string]Retention

	// Schedules are fired as long as the engine runs. Defaults to none.
	Schedules []Schedule

	// OnEvent is told what happens. It is called from the engine's goroutines,
	// several at a time, and must not block. A panic in it is logged. Defaults
	// to nothing.
	OnEvent func(Event)

	// Logger is told what a person should look at: failed and lost tasks,
	// recoveries, lost leases, the begin and the end of a store's outage.
	// Defaults to slog.Default().
	Logger *slog.Logger

	// Context adds values to the context of a task before it runs. What it
	// returns must be derived from ctx. Defaults to nothing.
	Context func(ctx context.Context, t *Claimed) context.Context
}

const (
	defaultWorkers = 100
	minLease       = time.Second
	minPoll        = 10 * time.Millisecond
)

func (c EngineConfig) withDefaults() EngineConfig {
	if len(c.Queues) == 0 {
		c.Queues = map[string]int{DefaultQueue: defaultWorkers}
	}
	c.Queues, c.Lanes = maps.Clone(c.Queues), maps.Clone(c.Lanes)
	for name, lane := range c.Lanes {
		if lane.Workers == 0 {
			lane.Workers = defaultWorkers
		}
		if lane.Go == nil {
			lane.Go = func(run func()) { go run() }
		}
		c.Lanes[name] = lane
	}
	for _, f := range []struct {
		value    *time.Duration
		standard time.Duration
	}{{&c.Lease, 30 * time.Second}, {&c.Poll, time.Second}, {&c.DrainTimeout, 30 * time.Second}, {&c.Grace, 2 * time.Second}} {
		if *f.value == 0 {
			*f.value = f.standard
		}
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	keep := map[string]Retention{"": Retention{}.WithDefaults()}
	for queue, r := range c.Retention {
		keep[queue] = r.WithDefaults()
	}
	c.Retention = keep
	return c
}

// validate checks a configuration with its defaults.
func (c EngineConfig) validate() error {
	for _, name := range slices.Sorted(maps.Keys(c.Queues)) {
		if err := checkName("queue", name); err != nil {
			return fmt.Errorf("%w (EngineConfig.Queues)", err)
		}
		if n := c.Queues[name]; n < 1 {
			return fmt.Errorf("durable: EngineConfig.Queues[%q] is %d; it must be positive: leave the queue out if it is not to be worked on", name, n)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.Lanes)) {
		if err := checkName("lane", name); err != nil {
			return fmt.Errorf("%w (EngineConfig.Lanes)", err)
		}
		if n := c.Lanes[name].Workers; n < 1 {
			return fmt.Errorf("durable: EngineConfig.Lanes[%q].Workers is %d; it must be positive, or 0 for its default", name, n)
		}
	}
	for _, f := range []struct {
		name        string
		value, most time.Duration
	}{{"Lease", c.Lease, minLease}, {"Poll", c.Poll, minPoll}, {"DrainTimeout", c.DrainTimeout, 1}, {"Grace", c.Grace, 1}} {
		if f.value < f.most {
			return fmt.Errorf("durable: EngineConfig.%s is %v; it must be at least %v, or 0 for its default", f.name, f.value, f.most)
		}
	}
	if c.Node != "" {
		return checkName("node", c.Node)
	}
	return nil
}

// An Engine runs tasks: it claims them from the queue's store, calls their
// handlers, and records what became of them. Its methods may be called by
// several goroutines. A queue has at most one running engine in a process;
// processes that share a store share its tasks.
type Engine struct {
	q         *Queue
	cfg       EngineConfig
	log       *slog.Logger
	handlers  map[string]*Handler // by kind and by alias
	scheduler *scheduler
	slots     *slots
	node      Node

	end   context.CancelFunc // of the engine's own goroutines
	life  context.Context
	loops sync.WaitGroup

	// Words for the loops, with room for one.
	poke         chan struct{} // the next due time may have changed
	beatNow      chan struct{}
	reconcileNow chan struct{}

	made      time.Time
	lastRound atomic.Int64 // since made, in nanoseconds
	counters  counters

	mu         sync.Mutex
	phase      phase
	boot       Boot
	name       string // the node's, as registered
	leaseless  bool   // between a lost lease and the next one: nothing is claimed
	running    map[Ref]*run
	stuck      map[*run]struct{} // given up, but not returned
	quarantine quarantine
	empty      chan struct{} // made by a drain, closed when nothing runs
	due        time.Time     // when the next scheduled task is
	leaseEnd   *time.Timer
}

type phase int

const (
	created phase = iota
	working
	draining
	stopped
)

// NewEngine makes an engine with the defaults of [EngineConfig]. Mistakes of
// the program panic: two handlers of a kind, a handler without Run, a lane.
func NewEngine(q *Queue, handlers ...Handler) *Engine {
	e, err := EngineConfig{}.NewEngine(q, handlers...)
	if err != nil {
		panic(err.Error())
	}
	return e
}

// NewEngine makes an engine, or returns an error that names the mistake and
// the way out of it. Nothing happens before [Engine.Start] or [Engine.Run].
func (c EngineConfig) NewEngine(q *Queue, handlers ...Handler) (*Engine, error) {
	if q == nil {
		return nil, errors.New("durable: an engine needs a queue; make one with NewQueue")
	}
	c = c.withDefaults()
	if err := c.validate(); err != nil {
		return nil, err
	}
	e := &Engine{
		q: q, cfg: c, log: c.Logger, handlers: map[string]*Handler{}, made: time.Now(),
		poke: make(chan struct{}, 1), beatNow: make(chan struct{}, 1), reconcileNow: make(chan struct{}, 1),
		running: map[Ref]*run{}, stuck: map[*run]struct{}{},
	}
	e.life, e.end = context.WithCancel(context.Background())
	for _, h := range handlers {
		if err := e.register(h); err != nil {
			return nil, err
		}
	}
	e.slots = newSlots(c, e.handlers)
	var err error
	if e.scheduler, err = newScheduler(q, c.Schedules, c.Logger); err != nil {
		return nil, err
	}
	host, _ := os.Hostname()
	e.node = Node{
		Name: c.Node, Host: host, PID: os.Getpid(), Version: c.Version, Worker: true,
		Kinds: slices.Sorted(maps.Keys(e.handlers)), Schedules: e.scheduler.names(), Lease: c.Lease,
	}
	return e, nil
}

func (e *Engine) register(h Handler) error {
	if h.Run == nil {
		return fmt.Errorf("durable: the handler of %q has no Run; make it with the kind's Run", h.Kind)
	}
	h.Policy = h.Policy.withDefaults()
	h.Policy.Aliases = h.Aliases
	if err := h.Policy.validate(h.Kind); err != nil {
		return err
	}
	if _, ok := e.cfg.Lanes[h.Policy.Lane]; h.Policy.Lane != "" && !ok {
		return fmt.Errorf("durable: kind %q asks for lane %q; there are %q; add it to EngineConfig.Lanes", h.Kind, h.Policy.Lane, slices.Sorted(maps.Keys(e.cfg.Lanes)))
	}
	if _, ok := e.cfg.Queues[h.Policy.Queue]; !ok {
		e.cfg.Queues[h.Policy.Queue] = defaultWorkers
	}
	for _, name := range append([]string{h.Kind}, h.Aliases...) {
		if other := e.handlers[name]; other != nil {
			return fmt.Errorf("durable: %q is a name of two handlers, %q and %q; a kind has one handler, and an alias one kind", name, other.Kind, h.Kind)
		}
		e.handlers[name] = &h
	}
	return nil
}

// Node returns the name of the node, as it is registered; "" before Start.
func (e *Engine) Node() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.name
}

// currentBoot returns the boot that claims are made for.
func (e *Engine) currentBoot() Boot {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.boot
}

// comeRound notes that the loop that claims tasks is alive.
func (e *Engine) comeRound() { e.lastRound.Store(int64(time.Since(e.made))) }

// Healthy returns why the engine is not: it does not run, the loop that claims
// tasks has not come round for longer than three times Poll and ten seconds, or
// the store does not commit.
func (e *Engine) Healthy() error {
	e.mu.Lock()
	phase := e.phase
	e.mu.Unlock()
	switch phase {
	case created:
		return errors.New("durable: the engine has not been started")
	case stopped:
		return errors.New("durable: the engine has stopped")
	case draining:
		return nil
	}
	if err := e.q.batcher.failing(); err != nil {
		return err
	}
	limit := max(3*e.cfg.Poll, 10*time.Second)
	if still := time.Since(e.made) - time.Duration(e.lastRound.Load()); still > limit {
		return fmt.Errorf("durable: the loop that claims tasks has been stuck for %v; more than %v is not healthy", still.Round(time.Second), limit)
	}
	return nil
}
