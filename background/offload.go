package background

import (
	"context"
	"time"
)

// Offload runs fn in the lane "cpu" of the runner and returns its result: the
// way for a handler to compute something its answer needs without making other
// requests wait.
//
// When ctx ends, Offload returns its cause at once: a function that has not
// started does not start, one that runs goes on with a cancelled context, and
// a drain waits for it. A panic of fn is returned as a [*PanicError]. When the
// lane is full Offload returns an error that matches [ErrFull]; the handler
// should answer 503. Called from a task or another offloaded function of the
// lane "cpu", it runs fn in place.
//
// An offloaded function is no task: it is in the lane's figures, but not in
// the other counters, and sends an event only if a drain abandons it, under
// the name "offload".
func Offload[T any](ctx context.Context, r *Runner, fn func(context.Context) (T, error)) (T, error) {
	var result, zero T
	run := func(ctx context.Context) (err error) {
		result, err = fn(ctx)
		return err
	}
	cpu := r.lanes[CPULane]
	if in, _ := ctx.Value(laneKey{}).(*lane); in == cpu {
		err := call(ctx, run)
		return result, err
	}
	if ctx.Err() != nil {
		return zero, context.Cause(ctx)
	}
	o := &offload{runner: r, lane: cpu, ctx: ctx, fn: run, done: make(chan struct{})}
	if err := r.offload(o); err != nil {
		return zero, err
	}
	select {
	case <-o.done:
		return result, o.err
	case <-ctx.Done():
		// If it is running its result is not to be touched.
		if cpu.withdraw(o) {
			o.end(nil)
		}
		return zero, context.Cause(ctx)
	}
}

// An offload is a function that a handler waits for.
type offload struct {
	runner   *Runner
	lane     *lane
	ctx      context.Context
	fn       func(context.Context) error
	accepted time.Duration
	done     chan struct{}
	err      error
}

func (r *Runner) offload(o *offload) error {
	if r.closed.Load() {
		return ErrClosed
	}
	if !o.lane.reserve() {
		return &FullError{Lane: o.lane.name, Task: offloadName, Capacity: int(o.lane.capacity())}
	}
	if err := r.acceptOffload(o); err != nil {
		o.lane.giveBack()
		return err
	}
	o.lane.push(o)
	return nil
}

const offloadName = "offload"

func (o *offload) info() Info {
	return Info{Name: offloadName, RequestID: RequestID(o.ctx), Lane: o.lane.name}
}

// abandoned says that o was accepted and did not end well in time.
func (o *offload) abandoned(started bool, err error) AbandonedTask {
	return AbandonedTask{Info: o.info(), Age: o.runner.since(o.accepted), Started: started, Err: err}
}

func (o *offload) runIn(w *worker) {
	r := o.runner
	if r.cut.Load() {
		o.giveUp()
		return
	}
	if o.ctx.Err() != nil {
		o.end(context.Cause(o.ctx))
		return
	}
	ctx, cancel := context.WithCancelCause(context.WithValue(o.ctx, laneKey{}, o.lane))
	stop := context.AfterFunc(r.base, func() { cancel(context.Cause(r.base)) })
	w.begin(&run{of: o, accepted: o.accepted})
	err := ErrGoexit
	defer func() {
		stop()
		cancel(nil)
		if w.end() && err != nil && r.cut.Load() {
			r.record(o.abandoned(true, err))
		}
		o.finish(err)
	}()
	err = call(ctx, o.fn)
}

// giveUp ends a function that a cut drain found waiting.
func (o *offload) giveUp() {
	o.runner.record(o.abandoned(false, nil))
	o.end(context.Cause(o.runner.base))
}

// end ends a function that has not started.
func (o *offload) end(err error) {
	o.lane.giveBack()
	o.finish(err)
}

func (o *offload) finish(err error) {
	o.err = err
	close(o.done)
	o.runner.removeOffload(o)
}
