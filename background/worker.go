package background

import (
	"context"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"time"
)

// A worker is a goroutine that runs a lane's units one at a time.
type worker struct {
	lane    *lane
	threads bool
	hand    chan unit // given to it while it is idle: a unit, or nil to end
	id      string    // the goroutine's, to find its stack
	current atomic.Pointer[run]
}

// A run is one task being run, for reports.
type run struct {
	of       interface{ info() Info }
	accepted time.Duration
	reported atomic.Bool // its end, or that it has none in sight
}

func (w *worker) work() {
	ended := false
	defer func() {
		if !ended { // a task called runtime.Goexit
			w.lane.replace(w)
		}
	}()
	w.id = goroutineID()
	if w.threads {
		// The goroutine ends locked, so its thread ends with it: nobody else
		// inherits the low priority, which cannot be raised again.
		runtime.LockOSThread()
		lowerThreadPriority()
	}
	for u := <-w.hand; u != nil; u = w.lane.next(w) {
		u.runIn(w)
	}
	ended = true
}

// begin marks w as busy with a task, for reports and bounds.
func (w *worker) begin(r *run) {
	w.current.Store(r)
	w.lane.busy.Add(1)
}

// end gives the task's place back. It reports whether the end is still to be
// reported: a drain may have given the task up.
func (w *worker) end() bool {
	r := w.current.Swap(nil)
	w.lane.busy.Add(-1)
	w.lane.giveBack()
	return r.reported.CompareAndSwap(false, true)
}

// run runs one task and reports it. done is called in any case, also when the
// task ends its goroutine, with whether it did.
func (w *worker) run(l *list, t *entry, done func(goexit bool)) {
	r := l.runner
	if r.cut.Load() {
		t.lane.giveBack()
		r.abandon(l.abandoned(t))
		done(false)
		return
	}
	started := time.Now()
	ctx := l.taskContext(t, started)
	w.begin(&ctx.run)

	var err error
	returned := false
	defer func() {
		took := time.Since(started)
		if !returned {
			err = ErrGoexit
		}
		err = ctx.end(err)
		switch toReport := w.end(); {
		case !toReport:
		case err != nil && r.cut.Load():
			lost := l.abandoned(t)
			lost.Started, lost.Err = true, err
			r.abandon(lost)
		default:
			r.finished(l, t, err, started, took)
		}
		done(!returned)
	}()
	err = call(ctx, t.run)
	returned = true
}

// call runs fn and turns a panic into an error.
func call(ctx context.Context, fn func(context.Context) error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &PanicError{Value: v, Stack: debug.Stack()}
		}
	}()
	return fn(ctx)
}
