package background

import (
	"context"
	"time"
)

type (
	scopeKey struct{} // finds a *scope or a *taskContext
	laneKey  struct{} // finds the *lane that a task or an offloaded function runs in
)

// From returns the task list of the request that ctx belongs to. What is added
// sees the values of ctx, those that middleware has put there included. In a
// running task it is the same request's list; what is added runs after the
// tasks that are already there and sees the values that the task sees.
//
// Outside of requests and tasks there is no list: TryAdd of what it returns
// says [ErrSealed] and Add panics. [Runner.Add] is for work without a request.
func From(ctx context.Context) *Tasks {
	switch s := ctx.Value(scopeKey{}).(type) {
	case *scope:
		if ctx == context.Context(s) {
			return &s.tasks
		}
		return &Tasks{scope: s, values: ctx}
	case *taskContext:
		return &s.tasks
	}
	return &Tasks{}
}

// RequestID returns the id of the request that ctx belongs to, in its handler
// and in its tasks, or "".
func RequestID(ctx context.Context) string {
	switch s := ctx.Value(scopeKey{}).(type) {
	case *scope:
		return s.requestID()
	case *taskContext:
		return s.list.requestID()
	}
	return ""
}

// A taskContext is the context of one running task: the values of its request,
// the cancellation of the runner, a deadline of its own.
type taskContext struct {
	lazyContext
	values context.Context
	limit  time.Time // the deadline, if there is one
	list   *list
	name   string
	lane   *lane
	run    run
	tasks  Tasks

	handoff any

	// Both are guarded by the list's lock.
	returned bool
	refused  error // of a task it added with Add
}

func (l *list) taskContext(t *entry, now time.Time) *taskContext {
	ctx := &taskContext{list: l, name: t.name, lane: t.lane, handoff: t.handoff}
	ctx.run = run{of: ctx, accepted: l.accepted}
	ctx.base, ctx.values = l.runner.base, context.WithoutCancel(t.values)
	ctx.tasks = Tasks{task: ctx, values: t.values}
	if t.timeout > 0 {
		ctx.limit = now.Add(t.timeout)
		ctx.deadline = &ctx.limit
	}
	return ctx
}

func (t *taskContext) info() Info {
	return Info{Name: t.name, RequestID: t.list.requestID(), Lane: t.lane.name}
}

func (t *taskContext) Value(key any) any {
	switch key {
	case scopeKey{}:
		return t
	case laneKey{}:
		return t.lane
	}
	if m := t.made.Load(); m != nil {
		if v := m.Value(key); v != nil {
			return v
		}
	}
	return t.values.Value(key)
}

// add appends entries to the list of the running task, all or none.
func (t *taskContext) add(entries []entry) error {
	l := t.list
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case t.returned:
		return ErrSealed
	case l.runner.closed.Load():
		return ErrClosed // a drain has given up waiting for this task
	}
	if err := reserve(entries); err != nil {
		return err
	}
	l.append(entries)
	return nil
}

// refuse makes the task fail with the error of a task that it added.
func (t *taskContext) refuse(err error) {
	t.list.mu.Lock()
	if t.refused == nil {
		t.refused = err
	}
	t.list.mu.Unlock()
	t.lazyContext.end(err)
}

// end is called when the task has returned err.
func (t *taskContext) end(err error) error {
	t.list.mu.Lock()
	t.returned = true
	if err == nil {
		err = t.refused
	}
	t.list.mu.Unlock()
	t.lazyContext.end(nil)
	return err
}
