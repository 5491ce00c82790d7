// Package memory has a store that keeps tasks in memory: for tests, and for
// trying things out. It passes the same suite as the stores on disk, and
// forgets everything when the process ends.
package memory

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/wake-go/wake/durable"
)

// Config configures a [Store].
type Config struct {
	// Now is the clock. Defaults to time.Now. It must be safe for use by
	// several goroutines.
	Now func() time.Time

	// MaxTasks is how many tasks there can be, finished ones included. One
	// more is refused with an error that matches [durable.ErrFull]. Defaults
	// to 1,000,000.
	MaxTasks int
}

func (c Config) withDefaults() Config {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.MaxTasks == 0 {
		c.MaxTasks = 1_000_000
	}
	return c
}

func (c Config) validate() error {
	if c.MaxTasks < 1 {
		return fmt.Errorf("durable: MaxTasks of the memory store is %d; it must be positive, or 0 for the default", c.MaxTasks)
	}
	return nil
}

// Store keeps tasks in memory. Several queues and engines may share one, each
// with a boot of its own, as processes share a database. Its transactions are
// critical sections: they cannot fail half-way, and none is ever unknown.
//
// It has no SQL: a function that [Store.InTx] runs can add tasks, and its
// statements are refused.
type Store struct {
	cfg Config

	mu       sync.Mutex
	closed   bool
	done     chan struct{} // closed by Close
	offset   time.Duration // by which Advance has moved the time
	at       time.Time     // of the transaction in progress
	raised   durable.Signal
	watchers map[*watcher]struct{}

	seq       int64
	tasks     map[durable.ID]*record
	aliases   map[durable.ID]*record
	keys      map[uniqueKey]*record
	ordered   []*record // by id
	ready     map[lane]*queue
	scheduled *queue
	running   map[durable.Boot]map[*record]struct{}
	paused    map[string]bool

	nodes     map[durable.Boot]*node
	schedules map[string]*durable.ScheduleRow
}

var _ durable.Store = (*Store)(nil)

// New makes an empty store. A configuration that breaks a rule panics.
func New(cfg Config) *Store {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		panic(err.Error())
	}
	return &Store{
		cfg:       cfg,
		done:      make(chan struct{}),
		watchers:  map[*watcher]struct{}{},
		tasks:     map[durable.ID]*record{},
		aliases:   map[durable.ID]*record{},
		keys:      map[uniqueKey]*record{},
		ready:     map[lane]*queue{},
		scheduled: newQueue(dueFirst),
		running:   map[durable.Boot]map[*record]struct{}{},
		paused:    map[string]bool{},
		nodes:     map[durable.Boot]*node{},
		schedules: map[string]*durable.ScheduleRow{},
	}
}

// Traits implements [durable.Store].
func (s *Store) Traits() durable.Traits {
	return durable.Traits{Name: "memory", Committers: 1, MaxBatch: 1000}
}

// Advance moves the store's time forward by d, as if so much had passed, and
// tells those who watch.
func (s *Store) Advance(d time.Duration) {
	s.mu.Lock()
	s.offset += d
	s.raised |= durable.SignalTasks | durable.SignalSchedules
	s.end()
}

// Now implements [durable.Store].
func (s *Store) Now(ctx context.Context) (time.Time, error) {
	if err := s.begin(ctx); err != nil {
		return time.Time{}, err
	}
	defer s.end()
	return s.at, nil
}

// Ping implements [durable.Store].
func (s *Store) Ping(ctx context.Context) error {
	if err := s.begin(ctx); err != nil {
		return err
	}
	s.end()
	return nil
}

// Close implements [durable.Store]: every other method fails from now on, with
// an error that matches [durable.ErrClosed], and those that watch return.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.closed = true
		close(s.done)
	}
	return nil
}

// begin starts a transaction, which end ends.
func (s *Store) begin(ctx context.Context) error {
	if ctx.Err() != nil {
		return fmt.Errorf("durable: the memory store was not asked: %w", context.Cause(ctx))
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return fmt.Errorf("durable: the memory store: %w", durable.ErrClosed)
	}
	// Without its monotonic reading, which no store on disk has either.
	s.at = s.cfg.Now().Round(0).UTC().Add(s.offset)
	return nil
}

// end lets the watchers know of what has happened since begin.
func (s *Store) end() {
	if s.raised != 0 {
		for w := range s.watchers {
			w.pending |= s.raised
			select {
			case w.wake <- struct{}{}:
			default: // it is about to look
			}
		}
		s.raised = 0
	}
	s.mu.Unlock()
}

// watcher is one call of Watch. Its signals add up while it is busy.
type watcher struct {
	pending durable.Signal // guarded by the store
	wake    chan struct{}
}

// Watch implements [durable.Store]. As the queues that share a memory store
// are told apart by nothing, each also hears of what it has done itself.
func (s *Store) Watch(ctx context.Context, f func(durable.Signal)) error {
	w := &watcher{wake: make(chan struct{}, 1)}
	if err := s.begin(ctx); err != nil {
		return err
	}
	s.watchers[w] = struct{}{}
	s.end()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.watchers, w)
	}()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.done:
			return nil
		case <-w.wake:
			s.mu.Lock()
			signal := w.pending
			w.pending = 0
			s.mu.Unlock()
			f(signal)
		}
	}
}
