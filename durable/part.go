package durable

import (
	"fmt"
	"sync/atomic"
	"time"
)

// A part is what one caller wants of a batch: inserts, a function, or a tick.
type part struct {
	inserts []Insert
	group   *Func // runs the inserts as one where there are several
	fn      *Func
	fire    *Fire

	state    atomic.Int32
	inserted []Inserted
	fired    FireResult
	err      error
	done     chan struct{} // has room for one
	timer    *time.Timer
	tries    int // commits nobody knows the end of
}

// The states of a part.
const (
	partWaiting int32 = iota
	partFlying        // in a batch
	partDone
	partLeft // its caller has not waited
)

func (p *part) begin(timeout time.Duration) {
	p.state.Store(partWaiting)
	p.err, p.tries = nil, 0
	if p.timer == nil {
		p.timer = time.NewTimer(timeout)
	} else {
		p.timer.Reset(timeout)
	}
}

// board takes the part into a batch. It reports false if its caller has left.
func (p *part) board() bool { return p.state.CompareAndSwap(partWaiting, partFlying) }

// gone reports whether nobody waits for the part any more.
func (p *part) gone() bool { return p.state.Load() == partLeft }

// settle tells the caller how it went.
func (p *part) settle(err error) {
	p.err = err
	if p.state.CompareAndSwap(partFlying, partDone) || p.state.CompareAndSwap(partWaiting, partDone) {
		p.done <- struct{}{}
	}
}

// leave ends the caller's wait for a reason.
func (p *part) leave(why error) error {
	if p.state.CompareAndSwap(partWaiting, partLeft) {
		return why
	}
	if p.fn != nil { // it may be running, with what belongs to the caller
		<-p.done
		return p.err
	}
	if p.state.CompareAndSwap(partFlying, partLeft) {
		return fmt.Errorf("%w: %w", why, ErrUnknown)
	}
	<-p.done // it has ended in this very moment
	return p.err
}

// A fifo is a queue without a bound of its own; callers see to one.
type fifo[T any] struct {
	items []T
	head  int
}

func (f *fifo[T]) len() int { return len(f.items) - f.head }

func (f *fifo[T]) push(v T) {
	if f.head > 64 && f.head*2 > len(f.items) {
		n := copy(f.items, f.items[f.head:])
		clear(f.items[n:])
		f.items, f.head = f.items[:n], 0
	}
	f.items = append(f.items, v)
}

func (f *fifo[T]) peek() T { return f.items[f.head] }

func (f *fifo[T]) pop() T {
	var none T
	v := f.items[f.head]
	f.items[f.head] = none
	if f.head++; f.head == len(f.items) {
		f.items, f.head = f.items[:0], 0
	}
	return v
}
