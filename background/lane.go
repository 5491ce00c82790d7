package background

import (
	"maps"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
)

// A unit is what a lane's workers take from its queue: a request's list, a
// member of a group, a function that a handler waits for.
type unit interface {
	// runIn runs what is to run in the worker's lane and passes the rest on.
	runIn(w *worker)

	// giveUp ends what a drain found waiting.
	giveUp()
}

// A lane is a queue, its workers and their bounds. A place in it is reserved
// when a task is added and given back when the task has ended or is given up,
// so pushing a unit never waits and never fails.
type lane struct {
	name    string
	chosen  int // the most that run, if the configuration says
	waiting int // the most that wait
	keep    int // idle workers that stay for the next task
	runner  *Runner

	running atomic.Int64 // the most that run
	places  atomic.Int64 // reserved: waiting and running
	busy    atomic.Int64 // running now

	open func() // starts what the lane needs, when it is first used

	mu      sync.Mutex
	threads bool // workers own operating system threads of low priority
	queue   fifo // empty as long as a worker is idle
	workers map[*worker]struct{}
	idle    []*worker
	closed  bool
	ended   bool
	gone    chan struct{} // closed when the lane is closed and its workers have ended
}

func newLane(r *Runner, name string, cfg Lane) *lane {
	l := &lane{
		name: name, chosen: cfg.Running, waiting: cfg.Waiting, keep: 2 * runtime.GOMAXPROCS(0), runner: r,
		threads: cfg.Threads, workers: map[*worker]struct{}{}, gone: make(chan struct{}),
	}
	l.open = func() {}
	running := cfg.Running
	if l.threads {
		l.open = sync.OnceFunc(l.startThreads)
		if running == 0 { // until it is known
			running = workersFor(runtime.GOMAXPROCS(0), runtime.NumCPU())
		}
	}
	l.running.Store(int64(running))
	return l
}

func (l *lane) capacity() int64 { return l.running.Load() + int64(l.waiting) }

func (l *lane) reserve() bool {
	if l.places.Add(1) > l.capacity() {
		l.places.Add(-1)
		return false
	}
	return true
}

func (l *lane) giveBack() { l.places.Add(-1) }

// push queues u, for which a place has been reserved.
func (l *lane) push(u unit) {
	l.open()
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := len(l.idle); n > 0 {
		w := l.idle[n-1]
		l.idle = l.idle[:n-1]
		w.hand <- u
		return
	}
	l.queue.push(u)
	l.startWorkers()
}

// startWorkers starts a worker for each unit that waits, as far as the bound
// allows. It is called with mu held.
func (l *lane) startWorkers() {
	for range min(l.queue.len(), int(l.running.Load())-len(l.workers)) {
		w := &worker{lane: l, threads: l.threads, hand: make(chan unit, 1)}
		l.workers[w] = struct{}{}
		w.hand <- l.queue.pop()
		go w.work()
	}
}

// next waits for w's next unit; nil tells the worker to end.
func (l *lane) next(w *worker) unit {
	l.mu.Lock()
	if len(l.workers) <= int(l.running.Load()) {
		if u := l.queue.pop(); u != nil {
			l.mu.Unlock()
			return u
		}
		if !l.closed && (l.threads || len(l.idle) < l.keep) {
			l.idle = append(l.idle, w)
			l.mu.Unlock()
			return <-w.hand
		}
	}
	l.remove(w)
	l.mu.Unlock()
	return nil
}

// remove is called with mu held.
func (l *lane) remove(w *worker) {
	delete(l.workers, w)
	l.settle()
}

// settle is called with mu held.
func (l *lane) settle() {
	if l.closed && !l.ended && len(l.workers) == 0 {
		l.ended = true
		close(l.gone)
	}
}

// sendHome ends idle workers until no more than keep are left of all. It is
// called with mu held.
func (l *lane) sendHome(keep int) {
	for n := len(l.idle); n > 0 && len(l.workers) > keep; n-- {
		w := l.idle[n-1]
		l.idle = l.idle[:n-1]
		l.remove(w)
		w.hand <- nil
	}
}

// resize changes how many tasks run at once.
func (l *lane) resize(running int) {
	l.running.Store(int64(running))
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sendHome(running)
	l.startWorkers()
}

// replace takes the place of a worker whose goroutine was ended by its task.
func (l *lane) replace(w *worker) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.workers, w)
	l.startWorkers()
	l.settle()
}

// withdraw takes a unit out of the queue again; false if it is not there.
func (l *lane) withdraw(u unit) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.queue.remove(u)
}

// clear takes all units out of the queue.
func (l *lane) clear() []unit {
	l.mu.Lock()
	defer l.mu.Unlock()
	units := l.queue.items[l.queue.head:]
	l.queue = fifo{}
	return units
}

// all returns the lane's workers.
func (l *lane) all() []*worker {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Collect(maps.Keys(l.workers))
}

// close lets the workers end once the queue is empty. The channel says when.
func (l *lane) close() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	l.sendHome(0)
	l.settle()
	return l.gone
}

// A fifo is a queue that keeps its memory.
type fifo struct {
	items []unit
	head  int
}

func (q *fifo) len() int { return len(q.items) - q.head }

func (q *fifo) push(u unit) {
	if q.head > 32 && q.head*2 > len(q.items) {
		n := copy(q.items, q.items[q.head:])
		clear(q.items[n:])
		q.items, q.head = q.items[:n], 0
	}
	q.items = append(q.items, u)
}

func (q *fifo) pop() unit {
	if q.len() == 0 {
		return nil
	}
	u := q.items[q.head]
	q.items[q.head] = nil
	q.head++
	return u
}

func (q *fifo) remove(u unit) bool {
	i := slices.Index(q.items[q.head:], u)
	if i < 0 {
		return false
	}
	q.items = slices.Delete(q.items, q.head+i, q.head+i+1)
	return true
}
