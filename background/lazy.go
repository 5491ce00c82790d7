package background

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// A lazyContext makes its cancellable context when somebody first asks for it:
// most requests and many tasks never do, and it is most of what a context costs.
//
// Package context finds a context's cancellation, and so its cause, by a value
// with a private key. It asks for it only after Done or a non-nil Err, which
// have made the context that knows it.
type lazyContext struct {
	base     context.Context // where the cancellation comes from
	deadline *time.Time      // nil: none

	over atomic.Bool // has been ended: what is made later is made cancelled
	mu   sync.Mutex
	made atomic.Pointer[madeContext]
}

type madeContext struct {
	context.Context
	cancel context.CancelCauseFunc
	stop   context.CancelFunc // frees the deadline's timer
}

func (c *lazyContext) make() *madeContext {
	if m := c.made.Load(); m != nil {
		return m
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if m := c.made.Load(); m != nil {
		return m
	}
	m := &madeContext{}
	m.Context, m.cancel = context.WithCancelCause(c.base)
	if c.deadline != nil {
		m.Context, m.stop = context.WithDeadlineCause(m.Context, *c.deadline, ErrTimeout)
	}
	c.made.Store(m)
	if c.over.Load() { // looked at after the store, as end does it the other way round
		m.end(nil)
	}
	return m
}

func (m *madeContext) end(cause error) {
	m.cancel(cause)
	if m.stop != nil {
		m.stop()
	}
}

// end cancels the context for good and frees what it holds.
func (c *lazyContext) end(cause error) {
	if cause != nil {
		c.make()
	}
	c.over.Store(true)
	if m := c.made.Load(); m != nil {
		m.end(cause)
	}
}

func (c *lazyContext) Deadline() (time.Time, bool) {
	if c.deadline != nil {
		return *c.deadline, true
	}
	return c.base.Deadline()
}

func (c *lazyContext) Done() <-chan struct{} { return c.make().Done() }

func (c *lazyContext) Err() error {
	if m := c.made.Load(); m != nil {
		return m.Err()
	}
	if c.over.Load() || c.base.Err() != nil || c.deadline != nil && !time.Now().Before(*c.deadline) {
		return c.make().Err()
	}
	return nil
}

func (c *lazyContext) Value(key any) any {
	if m := c.made.Load(); m != nil {
		return m.Value(key)
	}
	return c.base.Value(key)
}
