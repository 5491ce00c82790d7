package background

import (
	"context"
	"fmt"
	"time"
)

// A Task is a named piece of work.
type Task struct {
	// Name names the task in events, logs and reports. It must not be empty.
	Name string

	// Run does the work. Its context keeps the values of the context that the
	// task was added with, but not its cancellation: it ends at the task's time
	// limit, when a drain runs out of time, and when Run returns.
	Run func(context.Context) error

	// Lane is the lane the task runs in. Defaults to [DefaultLane].
	Lane string

	// Timeout is the task's time limit, after which its context is cancelled
	// with cause [ErrTimeout]. Defaults to Config.Timeout; negative: none.
	Timeout time.Duration

	// Handoff is what its owner needs to run the task elsewhere: what
	// [Runner.Withdraw] gives back, and an [AbandonedTask] has. The runner does
	// not look at it. Defaults to nil: the task runs here or nowhere.
	Handoff any
}

// Tasks is the list of one request's tasks. They run one after another in the
// order they were added, once the response has been sent; lists of different
// requests run beside each other. It may be used by several goroutines.
//
// Get it from [From].
type Tasks struct {
	scope  *scope       // of the request being handled, or
	task   *taskContext // of the task running; or neither
	values context.Context
}

// Add adds a task to run in the default lane, see [Tasks.AddTask].
func (t *Tasks) Add(name string, run func(context.Context) error) {
	t.AddTask(Task{Name: name, Run: run})
}

// AddTask adds tasks to run after the response and after the tasks that were
// added before.
//
// When a lane is full, or the runner has been drained, none of them is added,
// the request's context is cancelled with a cause that matches [ErrFull] or
// [ErrClosed], and the request's tasks are dropped: the operation should fail
// with 503. A running task to which this happens has its own context cancelled
// and fails. Use [Tasks.TryAdd] to decide yourself.
//
// After the request has ended, or the task that adds has, the tasks are
// refused with a [TaskRefused] event. A nil function, an empty name or an
// unknown lane panics.
func (t *Tasks) AddTask(tasks ...Task) {
	var buf [1]entry
	t.add(t.entries(buf[:0], tasks))
}

// Group adds tasks that run beside each other; what is added later waits for
// all of them.
func (t *Tasks) Group(tasks ...Task) {
	if len(tasks) > 0 {
		group := t.entries(nil, tasks)
		t.add([]entry{{group: &group}})
	}
}

// Always adds tasks that also run when the operation fails: an audit record, a
// compensation. They run in their order with the others.
func (t *Tasks) Always(tasks ...Task) {
	entries := t.entries(nil, tasks)
	for i := range entries {
		entries[i].always = true
	}
	t.add(entries)
}

// TryAdd is AddTask that tells: it adds all tasks or none, and returns an
// error that matches [ErrFull], [ErrSealed] or [ErrClosed].
func (t *Tasks) TryAdd(tasks ...Task) error {
	var buf [1]entry
	return t.try(t.entries(buf[:0], tasks))
}

// TryGroup is Group that tells, as TryAdd does.
func (t *Tasks) TryGroup(tasks ...Task) error {
	if len(tasks) == 0 {
		return nil
	}
	group := t.entries(nil, tasks)
	return t.try([]entry{{group: &group}})
}

func (t *Tasks) entries(buf []entry, tasks []Task) []entry {
	return t.runner().entries(buf, t.values, tasks)
}

func (t *Tasks) try(entries []entry) error {
	err := ErrSealed
	switch {
	case t.scope != nil:
		err = t.scope.add(entries)
	case t.task != nil:
		err = t.task.add(entries)
	}
	if err == nil {
		t.runner().added.Add(uint64(count(entries)))
	}
	return err
}

func (t *Tasks) add(entries []entry) {
	err := t.try(entries)
	if err == nil {
		return
	}
	left := flat(entries)
	if t.runner() == nil && len(left) > 0 {
		// Without a runner there is no event to send, and losing work in
		// silence is the one thing this package must not do.
		panic(fmt.Sprintf("background: task %q was added with a context that belongs to no request; is Runner.Middleware installed?", left[0].name))
	}
	switch {
	case t.scope != nil:
		t.scope.runner.reportRefused(left, t.scope.requestID(), err)
		if err != ErrSealed {
			t.scope.refuse(err)
		}
	case t.task != nil:
		t.task.list.runner.reportRefused(left, t.task.list.requestID(), err)
		if err != ErrSealed {
			t.task.refuse(err)
		}
	}
}

// Hold makes the tasks wait for a decision: they run only if [Tasks.Commit] is
// called before the outermost handler returns. For frameworks whose operations
// return an error; a plain handler's tasks run when it returns.
func (t *Tasks) Hold() { t.change(func(s *scope) { s.held = true }) }

// Commit settles that the tasks run. It returns an error if they will not: one
// that matches [ErrFull] or [ErrClosed] when a task was refused, [ErrSealed]
// when the outermost handler has returned already, as it does when
// http.TimeoutHandler gives up on an operation.
func (t *Tasks) Commit() error {
	if t.scope == nil {
		return ErrSealed
	}
	return t.scope.commit()
}

// Discard gives up the tasks added so far and later ones, except those added
// by [Tasks.Always]: the operation has failed.
func (t *Tasks) Discard() { t.change(func(s *scope) { s.discarded = true }) }

// Defer makes the request's tasks take their places in their lanes when the
// handler returns instead of when they are added: a stream that is open for
// hours must not hold them. There is nobody to answer 503 then, so such tasks
// are taken even by a full lane. It has no effect once a task has been added.
func (t *Tasks) Defer() {
	t.change(func(s *scope) { s.late = s.late || s.list == nil })
}

// OnEnd calls f once when the request's tasks have all ended, or have been
// given up. When they have ended already, f is called at once. A drain waits
// for f.
func (t *Tasks) OnEnd(f func()) {
	ended := true
	switch {
	case t.scope != nil:
		ended = t.scope.ending(f)
	case t.task != nil:
		ended = t.task.list.ending(f)
	}
	if ended {
		f()
	}
}

// Refuse does what a full lane does: it cancels the context of the request, or
// of the running task, with err as its cause, and the request's tasks are
// dropped, or the task fails. For what belongs to an operation as its tasks do.
// Once the request or the task has ended it does nothing.
func (t *Tasks) Refuse(err error) {
	switch {
	case t.scope != nil:
		t.scope.refuse(err)
	case t.task != nil:
		t.task.refuse(err)
	}
}

// None reports whether t is no list: that of a context that belongs neither to
// a request nor to a task.
func (t *Tasks) None() bool { return t.runner() == nil }

// Sealed reports whether the outermost handler has returned, or the task: what
// is added is refused.
func (t *Tasks) Sealed() bool {
	sealed := t.scope == nil
	t.change(func(s *scope) { sealed = s.sealed })
	if t.task != nil {
		t.task.list.mu.Lock()
		defer t.task.list.mu.Unlock()
		return t.task.returned
	}
	return sealed
}

// Err returns the error of a task that was refused, in the handler or in the
// running task that [From] was called in, or nil.
func (t *Tasks) Err() (err error) {
	if t.task != nil {
		t.task.list.mu.Lock()
		defer t.task.list.mu.Unlock()
		return t.task.refused
	}
	t.change(func(s *scope) { err = s.refused })
	return err
}

func (t *Tasks) change(f func(*scope)) {
	if t.scope == nil {
		return
	}
	t.scope.mu.Lock()
	defer t.scope.mu.Unlock()
	f(t.scope)
}

func (t *Tasks) runner() *Runner {
	switch {
	case t.scope != nil:
		return t.scope.runner
	case t.task != nil:
		return t.task.list.runner
	}
	return nil
}
