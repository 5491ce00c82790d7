package background

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// DefaultLane is the lane for tasks that wait: for a network, a disk, a lock.
	DefaultLane = "default"

	// CPULane is the lane for tasks that compute.
	CPULane = "cpu"
)

// A Lane bounds the tasks of one kind of work.
type Lane struct {
	// Running is the most tasks that run at once. Defaults to 256; with
	// Threads, to the number of processors the process may use.
	Running int

	// Waiting is the most tasks that wait, counted from their being added.
	// Defaults to 8,192; with Threads, to 1,024.
	Waiting int

	// Threads runs each worker on an operating system thread of its own with
	// the lowest priority, and gives Go as many more processors, so that tasks
	// that compute do not hold up requests. Under a CPU quota, as in a
	// container, it runs one worker fewer than the quota allows, since a
	// process that uses up its quota is stopped as a whole; the quota is
	// looked at again every 30 seconds. (Go sees a quota as a GOMAXPROCS below
	// the number of processors, and never goes below two: on a machine with two
	// processors a quota is not noticed; set Running there.) Where threads have no priorities (on
	// systems other than Linux, or where it is forbidden) it runs one ordinary
	// worker fewer than there are processors. Defaults to false, and to true
	// for the lane "cpu" unless its Running is set.
	Threads bool
}

// Config configures a [Runner]. The zero value is ready to use.
type Config struct {
	// Lanes sets the bounds of the lanes "default" and "cpu" and adds further
	// lanes. Defaults to these two with the defaults of [Lane].
	Lanes map[string]Lane

	// Timeout is the time limit of a task that sets none of its own.
	// Defaults to 15 minutes; negative: none.
	Timeout time.Duration

	// Grace is how long a drain that is out of time waits for tasks to return
	// after their contexts have been cancelled. Defaults to 2 seconds.
	Grace time.Duration

	// RequestID returns a request's id for events and reports. Defaults to the
	// header X-Request-Id where it is at most 128 letters, digits and "-._:/+=",
	// else a random one.
	RequestID func(*http.Request) string

	// OnEvent is told what happens to tasks. It is called from the goroutines
	// that run them, several at a time, and must not block. A panic in it is
	// logged with package slog. Defaults to nothing.
	OnEvent func(Event)

	// FailuresOnly leaves out the [TaskFinished] events of tasks without an
	// error, which are most events and cost an allocation each.
	// Defaults to false.
	FailuresOnly bool
}

func (c Config) withDefaults() Config {
	lanes := map[string]Lane{DefaultLane: {}, CPULane: {Threads: true}}
	for name, lane := range c.Lanes {
		if name == CPULane && lane == (Lane{Running: lane.Running, Waiting: lane.Waiting}) && lane.Running == 0 {
			lane.Threads = true
		}
		lanes[name] = lane
	}
	for name, lane := range lanes {
		if lane.Waiting == 0 {
			lane.Waiting = 8192
			if lane.Threads {
				lane.Waiting = 1024
			}
		}
		if lane.Running == 0 && !lane.Threads { // else it follows the processors
			lane.Running = 256
		}
		lanes[name] = lane
	}
	c.Lanes = lanes
	if c.Timeout == 0 {
		c.Timeout = 15 * time.Minute
	}
	if c.Grace == 0 {
		c.Grace = 2 * time.Second
	}
	return c
}

func (c Config) validate() error {
	for _, name := range slices.Sorted(maps.Keys(c.Lanes)) {
		lane := c.Lanes[name]
		if name == "" {
			return fmt.Errorf("background: Config.Lanes has a lane without a name; name it")
		}
		if lane.Running < 0 {
			return fmt.Errorf("background: Config.Lanes[%q].Running is %d; it must be positive, or 0 for its default", name, lane.Running)
		}
		if lane.Waiting < 0 {
			return fmt.Errorf("background: Config.Lanes[%q].Waiting is %d; it must be positive, or 0 for its default", name, lane.Waiting)
		}
	}
	if c.Grace < 0 {
		return fmt.Errorf("background: Config.Grace is %v; it must be positive, or 0 for its default", c.Grace)
	}
	return nil
}

// A Runner runs tasks. Make it with [New], end it with [Runner.Drain]. Its
// methods may be called by several goroutines.
type Runner struct {
	cfg   Config
	lanes map[string]*lane
	conns sync.Map // net.Conn → *tracker

	base    context.Context // of all tasks; cancelled when a drain is cut
	cancel  context.CancelCauseFunc
	started time.Time
	cut     atomic.Bool   // a drain has run out of time
	closed  atomic.Bool   // nothing is accepted any more; changed with mu held
	ended   chan struct{} // closed when the drain is over: what serves the runner itself ends
	helpers sync.WaitGroup

	mu        sync.Mutex
	ring      list // the head of the ring of accepted lists
	offloads  map[*offload]struct{}
	loans     int
	empty     chan struct{} // made by a drain, closed when there is no work left
	abandoned []AbandonedTask

	added, finishedOK, failed, refused, dropped, lost, withdrawn atomic.Uint64
}

// New makes a runner, or returns an error that names the configuration's
// field and the rule it breaks. It starts no goroutine until a task runs.
func New(cfg Config) (*Runner, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	r := &Runner{
		cfg: cfg, lanes: map[string]*lane{}, started: time.Now(),
		offloads: map[*offload]struct{}{}, ended: make(chan struct{}),
	}
	r.base, r.cancel = context.WithCancelCause(context.Background())
	r.ring.prev, r.ring.next = &r.ring, &r.ring
	for name, lane := range cfg.Lanes {
		r.lanes[name] = newLane(r, name, lane)
	}
	return r, nil
}

func (r *Runner) lane(task, name string) *lane {
	if name == "" {
		name = DefaultLane
	}
	l := r.lanes[name]
	if l == nil {
		panic(fmt.Sprintf("background: task %q asks for lane %q; there are %q; add it to Config.Lanes", task, name, slices.Sorted(maps.Keys(r.lanes))))
	}
	return l
}

// Add runs a task outside of any request: it starts as soon as its lane has
// room. Values of ctx are passed on, its cancellation is not. It returns an
// error that matches [ErrFull] or [ErrClosed].
func (r *Runner) Add(ctx context.Context, t Task) error { return r.AddAll(ctx, t) }

// AddAll adds several tasks, all or none, that run one after another.
func (r *Runner) AddAll(ctx context.Context, tasks ...Task) error {
	var buf [1]entry
	entries := r.entries(buf[:0], ctx, tasks)
	if r.closed.Load() {
		return ErrClosed
	}
	if err := reserve(entries); err != nil {
		return err
	}
	l := newList(r)
	l.id = RequestID(ctx)
	l.append(entries)
	if err := r.accept(l); err != nil {
		giveBack(entries)
		return err
	}
	r.added.Add(uint64(len(entries)))
	l.release()
	return nil
}

// accept puts a list into the ring, what a drain waits for. It starts to age.
func (r *Runner) accept(l *list) error {
	l.accepted = r.since(0)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed.Load() {
		return ErrClosed
	}
	last := r.ring.prev
	l.prev, l.next = last, &r.ring
	last.next, r.ring.prev = l, l
	return nil
}

func (r *Runner) remove(l *list) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if l.next == nil {
		return
	}
	l.prev.next, l.next.prev = l.next, l.prev
	l.prev, l.next = nil, nil
	r.settle()
}

func (r *Runner) acceptOffload(o *offload) error {
	o.accepted = r.since(0)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed.Load() {
		return ErrClosed
	}
	r.offloads[o] = struct{}{}
	return nil
}

func (r *Runner) removeOffload(o *offload) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.offloads, o)
	r.settle()
}

// settle closes the runner when a drain waits and there is no work left. It is
// called with mu held.
func (r *Runner) settle() {
	if r.empty != nil && !r.closed.Load() && r.ring.next == &r.ring && len(r.offloads) == 0 && r.loans == 0 {
		r.closed.Store(true)
		close(r.empty)
	}
}

// help runs f in a goroutine that a drain waits for; false if it has ended.
func (r *Runner) help(f func()) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed.Load() {
		return false
	}
	r.helpers.Go(f)
	return true
}

// since returns the time since a moment that is itself counted from the start
// of the runner.
func (r *Runner) since(moment time.Duration) time.Duration { return time.Since(r.started) - moment }

func (r *Runner) finished(l *list, t *entry, err error, started time.Time, took time.Duration) {
	if err != nil {
		r.failed.Add(1)
	} else {
		r.finishedOK.Add(1)
	}
	if r.cfg.OnEvent != nil && (err != nil || !r.cfg.FailuresOnly) {
		waited := started.Sub(r.started) - l.accepted
		e := TaskFinished{Info: l.info(t), Err: err, Waited: max(0, waited), Took: took}
		callHook("OnEvent", func() { r.cfg.OnEvent(e) })
	}
}

func (r *Runner) report(e Event) {
	if r.cfg.OnEvent != nil {
		callHook("OnEvent", func() { r.cfg.OnEvent(e) })
	}
}

// callHook calls a user's function on a goroutine that other tasks need: its
// panic is logged, as there is nobody to return it to, and stops nothing.
func callHook(name string, f func()) {
	defer func() {
		if v := recover(); v != nil {
			slog.Error("background: "+name+" panicked", "panic", v, "stack", string(debug.Stack()))
		}
	}()
	f()
}

func (r *Runner) reportRefused(tasks []entry, id string, err error) {
	for i := range tasks {
		r.refused.Add(1)
		r.report(TaskRefused{Info{tasks[i].name, id, tasks[i].lane.name}, err})
	}
}

func (r *Runner) reportDropped(entries []entry, id string, why error) {
	for _, t := range flat(entries) {
		r.dropped.Add(1)
		r.report(TaskDropped{Info{t.name, id, t.lane.name}, why})
	}
}

// abandon reports a task that a drain did not finish.
func (r *Runner) abandon(t AbandonedTask) {
	r.lost.Add(1)
	r.record(t)
}

func (r *Runner) record(t AbandonedTask) {
	r.mu.Lock()
	r.abandoned = append(r.abandoned, t)
	r.mu.Unlock()
	r.report(TaskAbandoned{t})
}

// Stats are a runner's counters since it was made, and its lanes as they are.
// Each task added is, in the end, in exactly one of Finished, Failed, Dropped,
// Withdrawn and Abandoned.
type Stats struct {
	Added     uint64      `json:"added"`     // accepted by a list or by Runner.Add
	Finished  uint64      `json:"finished"`  // ran without an error
	Failed    uint64      `json:"failed"`    // ran with an error or a panic
	Dropped   uint64      `json:"dropped"`   // given up because their operation failed
	Abandoned uint64      `json:"abandoned"` // not finished by a drain
	Withdrawn uint64      `json:"withdrawn"` // taken back to run elsewhere
	Refused   uint64      `json:"refused"`   // not accepted, with an event: see TaskRefused
	Lanes     []LaneStats `json:"lanes"`
}

// LaneStats is a lane's state.
type LaneStats struct {
	Name     string `json:"name"`
	Running  int    `json:"running"`  // tasks running
	Waiting  int    `json:"waiting"`  // places taken by tasks that do not run yet
	Capacity int    `json:"capacity"` // tasks the lane takes, running and waiting
	Workers  int    `json:"workers"`  // tasks it can run at once
}

// Stats returns the counters.
func (r *Runner) Stats() Stats {
	s := Stats{
		Added: r.added.Load(), Finished: r.finishedOK.Load(), Failed: r.failed.Load(),
		Dropped: r.dropped.Load(), Abandoned: r.lost.Load(), Withdrawn: r.withdrawn.Load(), Refused: r.refused.Load(),
	}
	for _, name := range slices.Sorted(maps.Keys(r.lanes)) {
		l := r.lanes[name]
		busy := int(l.busy.Load())
		s.Lanes = append(s.Lanes, LaneStats{
			Name: name, Running: busy, Waiting: max(0, int(l.places.Load())-busy),
			Capacity: int(l.capacity()), Workers: int(l.running.Load()),
		})
	}
	return s
}

// Full reports whether a lane has no place left. A front door that knows a
// request would add a task to it can shed the request before its side effects.
func (r *Runner) Full(lane string) bool {
	l := r.lane("", lane)
	return l.places.Load() >= l.capacity()
}

// requestID returns the id that req has; "" if one is to be made up when it is
// needed.
func (c *Config) requestID(req *http.Request) string {
	if c.RequestID != nil {
		return c.RequestID(req)
	}
	if id := req.Header.Get("X-Request-Id"); len(id) <= 128 && strings.IndexFunc(id, notInID) < 0 {
		return id
	}
	return ""
}

func randomID() string { return strconv.FormatUint(rand.Uint64()|1<<63, 16) }

func notInID(c rune) bool {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		return false
	}
	return !strings.ContainsRune("-._:/+=", c)
}

// goroutineID returns the number of the calling goroutine, as stack dumps
// print it.
func goroutineID() string {
	var buf [64]byte
	s := string(buf[:runtime.Stack(buf[:], false)])
	s, _, _ = strings.Cut(strings.TrimPrefix(s, "goroutine "), " ")
	return s
}
