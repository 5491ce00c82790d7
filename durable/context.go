package durable

import (
	"context"
	"time"
)

type (
	taskKey    struct{} // finds the *run of a task
	queueKey   struct{} // finds a *Queue
	metaKey    struct{} // finds a Meta
	pendingKey struct{} // finds a func(ID) bool
	joinKey    struct{} // finds a *joined
)

// Keys for a context that answers for itself what [WithQueue], [WithMeta] and
// [WithPending] would put around it: a *Queue, a Meta, a func(ID) bool.
type (
	QueueKey   = queueKey
	MetaKey    = metaKey
	PendingKey = pendingKey
)

// Info is what a task may know of itself.
type Info struct {
	ID          ID
	Kind        string // as it is stored: an earlier name if it was added under that
	Queue       string
	Attempt     int // the first is 1
	MaxAttempts int
	Crashes     int // processes that died running it
	Key         string
	Tags        []string
	CreatedAt   time.Time
	Meta        Meta
	Node        string // that runs it
}

// InfoFrom returns what is known of the task whose context ctx is, or belongs
// to.
func InfoFrom(ctx context.Context) (Info, bool) {
	if r := runFrom(ctx); r != nil {
		return r.info(), true
	}
	return Info{}, false
}

func runFrom(ctx context.Context) *run {
	r, _ := ctx.Value(taskKey{}).(*run)
	return r
}

// QueueFrom returns the queue of the task, or of whatever [WithQueue] was
// called for, that ctx belongs to; nil if there is none.
func QueueFrom(ctx context.Context) *Queue {
	q, _ := ctx.Value(queueKey{}).(*Queue)
	return q
}

// WithQueue returns a context in which [QueueFrom] finds q.
func WithQueue(ctx context.Context, q *Queue) context.Context {
	return context.WithValue(ctx, queueKey{}, q)
}

// WithMeta returns a context with which tasks are added with m, except for the
// fields that they set themselves. In a running task, those that it adds have
// its request and its trace.
func WithMeta(ctx context.Context, m Meta) context.Context {
	return context.WithValue(ctx, metaKey{}, m)
}

func metaFrom(ctx context.Context) Meta {
	m, _ := ctx.Value(metaKey{}).(Meta)
	return m
}

// withMeta fills the empty fields of m.
func withMeta(m, more Meta) Meta {
	if m.RequestID == "" {
		m.RequestID = more.RequestID
	}
	if m.TraceParent == "" {
		m.TraceParent = more.TraceParent
	}
	if m.Owner == "" {
		m.Owner = more.Owner
	}
	return m
}

// WithPending returns a context with which waiting for a task that has not
// been committed returns [ErrNotCommitted] instead of hanging: pending reports
// whether an id is that of such a task. It may be called by several
// goroutines.
func WithPending(ctx context.Context, pending func(ID) bool) context.Context {
	if outer, ok := ctx.Value(pendingKey{}).(func(ID) bool); ok {
		inner := pending
		pending = func(id ID) bool { return inner(id) || outer(id) }
	}
	return context.WithValue(ctx, pendingKey{}, pending)
}

func isPending(ctx context.Context, q *Queue, id ID) bool {
	if j := joinedIn(ctx, q); j != nil && j.tx.has(id) {
		return true
	}
	pending, ok := ctx.Value(pendingKey{}).(func(ID) bool)
	return ok && pending(id)
}

// A taskContext is the context of a running task.
type taskContext struct {
	context.Context
	run *run
}

func (c *taskContext) Value(key any) any {
	switch key.(type) {
	case taskKey:
		return c.run
	case queueKey:
		return c.run.engine.q
	case metaKey:
		return Meta{RequestID: c.run.claimed.Meta.RequestID, TraceParent: c.run.claimed.Meta.TraceParent}
	}
	return c.Context.Value(key)
}
