package background

import (
	"context"
	"fmt"
)

// Lend runs f on a worker of a lane as soon as one is free, in turn with the
// lane's tasks: for an owner of work that has bounds, time limits and reports of
// its own, and wants the lane's threads. It returns at once. F takes a place
// even when the lane is full, so the owner must bound how many it asks for.
//
// The owner waits for f; a drain does too, but does not cancel it and does not
// report it. What a drain does not find a worker for, and what is lent
// afterwards, runs on a goroutine of its own. An unknown lane panics.
func (r *Runner) Lend(lane string, f func()) {
	l := r.lanes[lane]
	if l == nil {
		panic(fmt.Sprintf("background: Lend asks for the lane %q; add it to Config.Lanes", lane))
	}
	r.mu.Lock()
	closed := r.closed.Load()
	if !closed {
		r.loans++
	}
	r.mu.Unlock()
	if closed {
		go f()
		return
	}
	l.places.Add(1)
	l.push(&loan{lane: l, f: f})
}

// Within returns a context for work in a lane: [Offload] called with it, in the
// lane "cpu", runs its function in place instead of waiting for another worker.
func (r *Runner) Within(ctx context.Context, lane string) context.Context {
	if l := r.lanes[lane]; l != nil {
		return context.WithValue(ctx, laneKey{}, l)
	}
	return ctx
}

// A loan is somebody else's work on a lane's worker.
type loan struct {
	lane *lane
	f    func()
}

func (*loan) info() Info { return Info{} }

func (o *loan) runIn(w *worker) {
	w.begin(&run{of: o})
	defer func() {
		w.end()
		o.over()
	}()
	o.f()
}

// giveUp finds o another place to run.
func (o *loan) giveUp() {
	o.lane.giveBack()
	go func() {
		defer o.over()
		o.f()
	}()
}

func (o *loan) over() {
	r := o.lane.runner
	r.mu.Lock()
	defer r.mu.Unlock()
	r.loans--
	r.settle()
}
