package durable

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// signals passes on what the store's Watch reports. Its goroutine starts with
// the first subscription.
type signals struct {
	store  Store
	cancel context.CancelFunc
	ctx    context.Context
	ended  sync.WaitGroup

	mu      sync.Mutex
	subs    map[*subscription]struct{}
	started bool
}

// A subscription collects signals until they are taken.
type subscription struct {
	C    chan struct{} // there is something to take
	mask Signal
	got  atomic.Uint32
}

// watchPause is how long a Watch that has failed is left alone.
const watchPause = time.Second

func newSignals(store Store) *signals {
	s := &signals{store: store, subs: map[*subscription]struct{}{}}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

func (s *signals) subscribe(mask Signal) *subscription {
	sub := &subscription{C: make(chan struct{}, 1), mask: mask}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.subs[sub] = struct{}{}
	if !s.started && s.ctx.Err() == nil {
		s.started = true
		s.ended.Go(s.run)
	}
	return sub
}

func (s *signals) unsubscribe(sub *subscription) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.subs, sub)
}

// run watches until the queue is closed. Everything is polled as well, so an
// error here is only a delay.
func (s *signals) run() {
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-pause.C:
		}
		_ = s.store.Watch(s.ctx, s.publish)
		pause.Reset(watchPause)
	}
}

func (s *signals) publish(sig Signal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for sub := range s.subs {
		sub.add(sig & sub.mask)
	}
}

func (s *signals) close() {
	s.mu.Lock()
	s.cancel()
	s.mu.Unlock()
	s.ended.Wait()
}

func (sub *subscription) add(sig Signal) {
	if sig == 0 {
		return
	}
	sub.got.Or(uint32(sig))
	select {
	case sub.C <- struct{}{}:
	default:
	}
}

// take returns what has come since the last time.
func (sub *subscription) take() Signal { return Signal(sub.got.Swap(0)) }
