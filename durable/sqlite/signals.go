package sqlite

import (
	"context"
	"sync"
	"time"

	"github.com/wake-go/wake/durable"
)

// signals tell those who watch what has happened.
type signals struct {
	mu       sync.Mutex
	watchers map[chan durable.Signal]struct{}
}

func (s *signals) send(what durable.Signal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for w := range s.watchers {
		for {
			select {
			case w <- what:
			case old := <-w: // it holds one: the two become one
				what |= old
				continue
			}
			break
		}
	}
}

// Watch calls f when somebody else changes something.
func (s *Store) Watch(ctx context.Context, f func(durable.Signal)) error {
	w := make(chan durable.Signal, 1)
	s.signals.mu.Lock()
	if s.signals.watchers == nil {
		s.signals.watchers = map[chan durable.Signal]struct{}{}
	}
	s.signals.watchers[w] = struct{}{}
	s.signals.mu.Unlock()
	defer func() {
		s.signals.mu.Lock()
		delete(s.signals.watchers, w)
		s.signals.mu.Unlock()
	}()
	for {
		select {
		case what := <-w:
			f(what)
		case <-ctx.Done():
			return nil
		case <-s.ended.Done():
			return durable.ErrClosed
		}
	}
}

// everything is what another process may have done.
const everything = durable.SignalTasks | durable.SignalCancelled | durable.SignalSchedules | durable.SignalFinished

// boots are the runs that this process has registered and not ended.
type boots struct {
	mu  sync.Mutex
	all map[durable.Boot]bool
}

func (b *boots) add(boot durable.Boot) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.all == nil {
		b.all = map[durable.Boot]bool{}
	}
	b.all[boot] = true
}

func (b *boots) remove(boot durable.Boot) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.all, boot)
}

func (b *boots) has(boot durable.Boot) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.all[boot]
}

// userCommitted is called when a user's transaction that has added or finished
// tasks is committed.
func (s *Store) userCommitted() { s.signals.send(durable.SignalTasks | durable.SignalFinished) }

const (
	presencePoll = 250 * time.Millisecond // for other processes
	changePoll   = time.Millisecond       // for what they have done, while there are any
)

// watchOthers looks for other processes and, while there are any, for what
// they have committed: SQLite counts that, and tells for four microseconds.
func (s *Store) watchOthers() {
	presence := time.NewTicker(presencePoll)
	defer presence.Stop()
	pause := time.NewTimer(changePoll)
	defer pause.Stop()
	conn, err := s.reads.Conn(s.ended)
	if err != nil {
		return // the store is closed
	}
	defer conn.Close()
	var version int64
	for {
		var change <-chan time.Time
		if s.others.Load() {
			pause.Reset(changePoll)
			change = pause.C
		}
		select {
		case <-s.ended.Done():
			return
		case <-presence.C:
			s.others.Store(s.slot.others())
		case <-change:
			if now, err := changes(s.ended, conn); err == nil && now != version {
				version = now
				s.signals.send(everything)
			}
		}
	}
}
