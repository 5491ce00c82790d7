package postgres

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
	timer    *time.Timer // for what is to be said later
	said     durable.Signal
}

func (s *signals) send(what durable.Signal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sendLocked(what)
}

func (s *signals) sendLocked(what durable.Signal) {
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

// later says something after a while.
func (s *signals) later(d time.Duration, what durable.Signal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.said != 0 {
		s.said |= what
		return
	}
	s.said = what
	s.timer = time.AfterFunc(d, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.sendLocked(s.said)
		s.said = 0
	})
}

// stop gives up what was to be said later.
func (s *signals) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.timer != nil {
		s.timer.Stop()
	}
}

// tell says something to this process and to all others.
func (s *Store) tell(what durable.Signal) {
	s.signals.send(what)
	s.line.notify(what)
}

// Watch calls f when somebody else changes something. Through a pooler, and
// while the database cannot be reached, it looks four times a second.
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
	poll := time.NewTicker(pollPause)
	defer poll.Stop()
	for {
		select {
		case what := <-w:
			f(what)
		case <-poll.C:
			if !s.line.listens() {
				f(durable.SignalTasks | durable.SignalCancelled | durable.SignalSchedules | durable.SignalFinished)
			}
		case <-ctx.Done():
			return nil
		case <-s.ended.Done():
			return durable.ErrClosed
		}
	}
}

// pollPause is how often everything is looked at where nothing is heard.
const pollPause = 250 * time.Millisecond
