package background

import (
	"context"
	"maps"
	"runtime"
	"slices"
	"strings"
	"time"
)

// Drain waits until all accepted tasks have ended, then closes the runner: it
// refuses everything from then on, and its goroutines have ended. Tasks that
// running tasks add are waited for, and so are tasks that wait for their
// response to be sent. Call it when requests have ended, after
// [http.Server.Shutdown].
//
// When ctx ends first, the contexts of running tasks are cancelled with ctx's
// cause, waiting tasks are not started any more, and Drain waits another
// Config.Grace for the running ones to return. It then returns an
// [*AbandonedError] that names what was not started, what was cut short, and
// what has not returned, with that goroutine's stack: Go cannot end a goroutine
// from outside, so it goes on until the process ends.
//
// Drain waits for its own tasks only; it does not wait for requests. A second
// call returns an error that matches [ErrClosed].
func (r *Runner) Drain(ctx context.Context) error {
	r.mu.Lock()
	if r.empty != nil {
		r.mu.Unlock()
		return ErrClosed
	}
	r.empty = make(chan struct{})
	r.settle()
	r.mu.Unlock()

	ended := true
	select {
	case <-r.empty:
	default:
		select {
		case <-r.empty:
		case <-ctx.Done():
			ended = r.cutShort(context.Cause(ctx))
		}
	}
	r.close(ended)

	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.abandoned) > 0 {
		return &AbandonedError{Cause: context.Cause(r.base), Tasks: slices.Clone(r.abandoned)}
	}
	return nil
}

// cutShort reports whether everything has ended after all.
func (r *Runner) cutShort(cause error) bool {
	if cause == context.DeadlineExceeded {
		cause = ErrDrainDeadline
	}
	r.cut.Store(true)
	r.cancel(cause)
	r.releaseAll()
	grace := time.NewTimer(r.cfg.Grace)
	defer grace.Stop()
	select {
	case <-r.empty:
		return true
	case <-grace.C:
		return r.giveUp()
	}
}

// releaseAll lets lists that still wait for their response to be sent go
// through their lanes, where they are reported as not started.
func (r *Runner) releaseAll() {
	r.conns.Range(func(_, t any) bool {
		t.(*tracker).release()
		return true
	})
}

// giveUp closes the runner over what has not returned although its context was
// cancelled, and over what waits behind it. It reports whether there is nothing.
func (r *Runner) giveUp() bool {
	r.mu.Lock()
	if r.closed.Load() { // it has become empty in this very moment
		r.mu.Unlock()
		return true
	}
	r.closed.Store(true)
	var lists []*list
	for l := r.ring.next; l != &r.ring; l = l.next {
		lists = append(lists, l)
	}
	r.mu.Unlock()

	r.abandonRunning()
	for _, l := range lists {
		l.abandonWaiting()
	}
	for _, l := range r.lanes {
		for _, u := range l.clear() {
			u.giveUp()
		}
	}
	return false
}

// abandonRunning reports what has not returned, with its stack.
func (r *Runner) abandonRunning() {
	stacks := goroutineStacks()
	for _, name := range slices.Sorted(maps.Keys(r.lanes)) {
		for _, w := range r.lanes[name].all() {
			c := w.current.Load()
			if c == nil || !c.reported.CompareAndSwap(false, true) {
				continue
			}
			t := AbandonedTask{Info: c.of.info(), Age: r.since(c.accepted), Started: true, Stack: stacks[w.id]}
			switch of := c.of.(type) {
			case *taskContext:
				t.Handoff, t.Values = of.handoff, of.tasks.values
				r.abandon(t)
			case *offload:
				r.record(t)
			} // a loan is its owner's to report
		}
	}
}

// abandoned says of a task that it has not started.
func (l *list) abandoned(t *entry) AbandonedTask {
	return AbandonedTask{Info: l.info(t), Age: l.runner.since(l.accepted), Handoff: t.handoff, Values: t.values}
}

// abandonWaiting reports the tasks of a list that have not started.
func (l *list) abandonWaiting() {
	l.mu.Lock()
	left := l.take()
	l.mu.Unlock()
	for _, t := range flat(left) {
		l.runner.abandon(l.abandoned(&t))
	}
}

// giveUp ends a list that waited in its lane; abandonWaiting has emptied it.
func (l *list) giveUp() { l.advance() }

func (m *member) giveUp() {
	l := m.list
	m.task.lane.giveBack()
	l.runner.abandon(l.abandoned(m.task))
	m.end()
}

// close ends the runner's own goroutines. With a worker stuck in a task it
// does not wait: that worker has been reported.
func (r *Runner) close(wait bool) {
	close(r.ended)
	r.cancel(ErrClosed)
	for _, l := range r.lanes {
		if gone := l.close(); wait {
			<-gone
		}
	}
	r.helpers.Wait()
}

// goroutineStacks returns the stacks of all goroutines by number.
func goroutineStacks() map[string]string {
	const most = 16 << 20
	buf := make([]byte, 1<<20)
	for {
		n := runtime.Stack(buf, true)
		if n < len(buf) || len(buf) >= most {
			buf = buf[:n]
			break
		}
		buf = make([]byte, 2*len(buf))
	}
	stacks := map[string]string{}
	for s := range strings.SplitSeq(string(buf), "\n\n") {
		if id, _, ok := strings.Cut(strings.TrimPrefix(s, "goroutine "), " "); ok {
			stacks[id] = s
		}
	}
	return stacks
}
