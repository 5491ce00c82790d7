package postgres

import (
	"context"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/wake-go/wake/durable"
)

// A line is the session on which a process hears of others and is heard, and
// that proves that it lives: it holds an advisory lock for each of its boots,
// which the server gives up when the session ends. It has a connection of its
// own, so that no NOTIFY makes a commit wait, and gets another one whenever
// that is lost. Through a pooler it has none: it speaks, and hears nothing.
type line struct {
	s       *Store
	channel string

	mu        sync.Mutex
	unsaid    durable.Signal
	next      time.Time // not before this is anything said
	boots     map[durable.Boot]*bool
	listening bool
	wake      context.CancelFunc // of the wait in progress
}

const (
	// sayPause is the least time between two notifications.
	sayPause = 2 * time.Millisecond

	// linePing is how often a silent line is tried, as a connection can be
	// gone without anybody saying so.
	linePing    = 10 * time.Second
	lineTimeout = 5 * time.Second

	lineFirst = 20 * time.Millisecond // back-off of a line that is lost, doubling
	lineMost  = time.Second
)

func newLine(s *Store) *line {
	return &line{s: s, channel: "wake:" + s.cfg.Schema, boots: map[durable.Boot]*bool{}}
}

// notify says something to other processes, soon.
func (l *line) notify(what durable.Signal) {
	if what == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.unsaid |= what
	l.interrupt()
}

// interrupt ends the wait in progress. The caller holds the lock.
func (l *line) interrupt() {
	if l.wake != nil {
		l.wake()
	}
}

// hold begins to prove that a boot lives.
func (l *line) hold(boot durable.Boot) {
	if l.s.pooled {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.boots[boot] = new(bool)
	l.interrupt()
}

// drop ends that.
func (l *line) drop(boot durable.Boot) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.boots, boot)
	l.interrupt()
}

// holds reports whether the session proves that a boot lives.
func (l *line) holds(boot durable.Boot) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	held := l.boots[boot]
	return held != nil && *held
}

// listens reports whether others are heard.
func (l *line) listens() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.listening
}

// run keeps the line until the store is closed.
func (l *line) run() {
	wait := lineFirst
	for l.s.ended.Err() == nil {
		if l.s.pooled {
			l.speak()
			return
		}
		if l.session() {
			wait = lineFirst
		}
		pause(l.s.ended, wait)
		wait = min(2*wait, lineMost)
	}
}

// session is the time of one connection. It reports whether there was one.
func (l *line) session() bool {
	ctx, cancel := context.WithTimeout(l.s.ended, lineTimeout)
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, l.s.pool.Config().ConnConfig)
	if err != nil {
		return false
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), lineTimeout)
		defer cancel()
		_ = conn.Close(ctx) // it may be gone
	}()
	if _, err := conn.Exec(ctx, `LISTEN `+pgx.Identifier{l.channel}.Sanitize()); err != nil {
		return false
	}
	l.mu.Lock()
	l.listening = true
	for boot := range l.boots {
		l.boots[boot] = new(bool)
	}
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.listening = false
		for boot := range l.boots {
			l.boots[boot] = new(bool)
		}
	}()
	// Nobody knows what was said meanwhile.
	l.s.signals.send(durable.SignalTasks | durable.SignalCancelled | durable.SignalSchedules | durable.SignalFinished)
	held := map[durable.Boot]bool{}
	for l.work(conn, held) == nil {
		if l.listen(conn) != nil {
			break
		}
	}
	return true
}

// listen waits until there is something to do on the connection, and passes on
// what is heard meanwhile.
func (l *line) listen(conn *pgx.Conn) error {
	ctx, cancel := l.wait(linePing)
	defer cancel()
	heard, err := conn.WaitForNotification(ctx)
	switch {
	case heard != nil:
		if heard.PID != conn.PgConn().PID() {
			what, _ := strconv.Atoi(heard.Payload)
			l.hear(durable.Signal(what))
		}
		return nil
	case l.s.ended.Err() != nil:
		return l.s.ended.Err()
	case ctx.Err() == nil:
		return err // the connection's
	case context.Cause(ctx) == context.DeadlineExceeded:
		ping, cancel := context.WithTimeout(l.s.ended, lineTimeout)
		defer cancel()
		return conn.Ping(ping)
	}
	return nil
}

func (l *line) hear(what durable.Signal) {
	l.s.signals.send(what)
}

// wait makes a context that ends when there is something to do, or after a
// while.
func (l *line) wait(most time.Duration) (context.Context, context.CancelFunc) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if l.unsaid != 0 && l.next.After(now) { // what comes meanwhile is said with it
		l.wake = nil
		return context.WithDeadline(l.s.ended, l.next)
	}
	ctx, cancel := context.WithTimeout(l.s.ended, most)
	l.wake = cancel
	if l.unsaid != 0 {
		cancel()
	}
	return ctx, cancel
}

// take returns what is to be said now.
func (l *line) take() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if l.unsaid == 0 || now.Before(l.next) {
		return ""
	}
	what := l.unsaid
	l.unsaid, l.next = 0, now.Add(sayPause)
	return strconv.Itoa(int(what))
}

// work says what is to be said, and takes and gives up locks.
func (l *line) work(conn *pgx.Conn, held map[durable.Boot]bool) error {
	ctx, cancel := context.WithTimeout(l.s.ended, lineTimeout)
	defer cancel()
	if what := l.take(); what != "" {
		if _, err := conn.Exec(ctx, `SELECT pg_notify($1, $2)`, l.channel, what); err != nil {
			return err
		}
	}
	l.mu.Lock()
	boots := make(map[durable.Boot]*bool, len(l.boots))
	for boot, flag := range l.boots {
		boots[boot] = flag
	}
	l.mu.Unlock()
	for boot := range held {
		if boots[boot] == nil {
			if _, err := conn.Exec(ctx, `SELECT pg_advisory_unlock($1)`, lockKey(boot)); err != nil {
				return err
			}
			delete(held, boot)
		}
	}
	for boot, flag := range boots {
		if held[boot] {
			continue
		}
		if _, err := conn.Exec(ctx, `SELECT pg_advisory_lock($1)`, lockKey(boot)); err != nil {
			return err
		}
		held[boot] = true
		if _, err := conn.Exec(ctx, l.s.sql(`UPDATE wake.node SET lock_key = $2 WHERE boot = $1::uuid AND lease_until IS NOT NULL`), boot[:], lockKey(boot)); err != nil {
			return err
		}
		l.mu.Lock()
		*flag = true
		l.mu.Unlock()
	}
	return nil
}

// speak says what is to be said on any connection.
func (l *line) speak() {
	for l.s.ended.Err() == nil {
		ctx, cancel := l.wait(linePing)
		<-ctx.Done()
		cancel()
		if what := l.take(); what != "" {
			ctx, cancel := context.WithTimeout(l.s.ended, lineTimeout)
			_, _ = l.s.pool.Exec(ctx, `SELECT pg_notify($1, $2)`, l.channel, what) // others poll as well
			cancel()
		}
	}
}
