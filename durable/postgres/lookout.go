package postgres

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/wake-go/wake/durable"
)

// A lookout looks for the end of users' transactions, of which the server tells
// nobody: it asks for what they have written, more and more seldom.
type lookout struct {
	mu      sync.Mutex
	waiting []expected
	running bool
}

// An expected task is one that a user's transaction adds or finishes.
type expected struct {
	id       durable.ID
	finished bool
	next     time.Time
	pause    time.Duration
	until    time.Time
}

const (
	lookFirst = 2 * time.Millisecond
	lookMost  = time.Second
	lookLong  = time.Minute // then a worker's own poll finds what there is
	lookMany  = 1000
)

// expect looks out for a task.
func (l *lookout) expect(s *Store, id durable.ID, finished bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.waiting) >= lookMany {
		return
	}
	now := time.Now()
	l.waiting = append(l.waiting, expected{id, finished, now.Add(lookFirst), lookFirst, now.Add(lookLong)})
	if !l.running {
		l.running = s.help(func() { l.run(s) })
	}
}

func (l *lookout) run(s *Store) {
	for {
		due, wait, ok := l.due()
		if !ok {
			return
		}
		if len(due) > 0 {
			if found := s.look(due); len(found) > 0 {
				l.remove(found)
				s.cursors.forget()
				s.tell(durable.SignalTasks | durable.SignalFinished)
			}
			continue
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-s.ended.Done():
			timer.Stop()
			return
		}
	}
}

// due returns what is to be looked for now, or how long to wait. It reports
// false, and the lookout has ended, if there is nothing left.
func (l *lookout) due() (now []expected, wait time.Duration, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	at := time.Now()
	l.waiting = slices.DeleteFunc(l.waiting, func(e expected) bool { return e.until.Before(at) })
	wait = lookMost
	for i := range l.waiting {
		e := &l.waiting[i]
		if e.next.After(at) {
			wait = min(wait, e.next.Sub(at))
			continue
		}
		now = append(now, *e)
		e.pause = min(2*e.pause, lookMost)
		e.next = at.Add(e.pause)
	}
	l.running = len(l.waiting) > 0
	return now, wait, l.running
}

func (l *lookout) remove(found []durable.ID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waiting = slices.DeleteFunc(l.waiting, func(e expected) bool { return slices.Contains(found, e.id) })
}

// look returns those that are there.
func (s *Store) look(due []expected) (found []durable.ID) {
	var added, finished [][16]byte
	for _, e := range due {
		if e.finished {
			finished = append(finished, e.id)
		} else {
			added = append(added, e.id)
		}
	}
	ctx, cancel := context.WithTimeout(s.ended, lineTimeout)
	defer cancel()
	_ = tx{s, s.pool}.run(ctx, func(row row) error { // else it is looked for again
		id, err := scanID(row)
		found = append(found, id)
		return err
	}, `SELECT id::text FROM wake.task WHERE id = ANY($1::uuid[])
		UNION SELECT id::text FROM wake.done WHERE id = ANY($1::uuid[]) OR id = ANY($2::uuid[])`, added, finished)
	return found
}
