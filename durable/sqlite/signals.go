package sqlite

import (
	"context"
	"database/sql"
	"maps"
	"slices"
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

func (b *boots) list() []durable.Boot {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.SortedFunc(maps.Keys(b.all), func(a, b durable.Boot) int { return slices.Compare(a[:], b[:]) })
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
	for err != nil { // too many files are open, perhaps
		select {
		case <-s.ended.Done():
			return
		case <-presence.C:
		}
		conn, err = s.reads.Conn(s.ended)
	}
	defer conn.Close()
	l := lookout{conn: conn, boots: &s.boots}
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
			if what := l.look(s.ended); what != 0 {
				s.signals.send(what)
			}
		}
	}
}

// A lookout finds out what others have changed. It must not take everything
// for something: what one process writes to say that it lives would make all
// others write, and that the first one again.
type lookout struct {
	conn  *sql.Conn
	boots *boots

	version   string // of the file
	schedules string // of all, added up
	finished  string // when the last task was
	paused    string // queues
	progress  string // how often there was any
	cancelled string // tasks of this process that run
}

// look returns what may have changed since the last time.
func (l *lookout) look(ctx context.Context) (what durable.Signal) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	version, err := l.ask(ctx, `PRAGMA data_version`)
	if err != nil || version == l.version {
		return 0
	}
	l.version = version
	changed := func(bit durable.Signal, known *string, query string) {
		if answer, err := l.ask(ctx, query); err == nil && answer != *known {
			*known = answer
			what |= bit
		}
	}
	changed(durable.SignalSchedules, &l.schedules, `SELECT coalesce(sum(version), 0) + count(*) FROM wake_schedule`)
	changed(durable.SignalFinished, &l.finished, `SELECT max(coalesce((SELECT max(finished_at) FROM wake_done WHERE state = 6), 0),
		coalesce((SELECT max(finished_at) FROM wake_done WHERE state = 7), 0), coalesce((SELECT max(finished_at) FROM wake_done WHERE state = 8), 0))`)
	changed(durable.SignalFinished, &l.progress, `SELECT value FROM wake_meta WHERE key = 'progress'`)
	changed(durable.SignalTasks, &l.paused, `SELECT coalesce(group_concat(name, char(0)), '') FROM wake_queue WHERE paused`)
	if ready, err := l.ask(ctx, `SELECT EXISTS (SELECT 1 FROM wake_task WHERE state = 1)`); err == nil && ready == "1" {
		what |= durable.SignalTasks
	}
	cancelled := ""
	for _, boot := range l.boots.list() {
		seqs, err := l.ask(ctx, `SELECT coalesce(group_concat(seq), '') FROM wake_task WHERE cancel_at IS NOT NULL AND state = 2 AND boot = ?`, boot[:])
		if err == nil && seqs != "" {
			cancelled += boot.String() + " " + seqs + " "
		}
	}
	// One that takes its time to end is told once: telling makes the process
	// write, and that is a change again.
	if cancelled != "" && cancelled != l.cancelled {
		what |= durable.SignalCancelled
	}
	l.cancelled = cancelled
	return what
}

func (l *lookout) ask(ctx context.Context, query string, args ...any) (answer string, err error) {
	err = l.conn.QueryRowContext(ctx, query, args...).Scan(&answer)
	return answer, err
}
