package sqlite

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/wake-go/wake/durable"
)

// A gate lets one writer at a time write, in this process. SQLite has one lock
// and lets those who wait for it try again now and then, so that a busy writer
// keeps others out for seconds. Here they queue. The engine, which works for
// many callers at a time, gets every other turn.
type gate struct {
	mu      sync.Mutex
	held    bool
	engine  bool // the turn is the engine's
	since   time.Time
	engines []*turn
	users   []*turn
}

// A turn is somebody who waits.
type turn struct {
	given chan struct{}
	gone  bool
}

// lock waits for a turn.
func (g *gate) lock(ctx context.Context, engine bool) error {
	g.mu.Lock()
	if !g.held {
		g.take(engine)
		g.mu.Unlock()
		return nil
	}
	t := &turn{given: make(chan struct{})}
	if engine {
		g.engines = append(g.engines, t)
	} else {
		g.users = append(g.users, t)
	}
	g.mu.Unlock()
	select {
	case <-t.given:
		return nil
	case <-ctx.Done():
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-t.given: // in this very moment
		return nil
	default:
	}
	t.gone = true
	return fmt.Errorf("durable: sqlite: %w: another transaction has held the write lock for %v: %w",
		durable.ErrUnavailable, time.Since(g.since).Round(time.Millisecond), context.Cause(ctx))
}

// take is called with mu held.
func (g *gate) take(engine bool) {
	g.held, g.engine, g.since = true, engine, time.Now()
}

// unlock gives the turn to the next.
func (g *gate) unlock() {
	g.mu.Lock()
	defer g.mu.Unlock()
	first, second := &g.engines, &g.users
	if g.engine {
		first, second = second, first
	}
	engineFirst := !g.engine
	if t := pop(first); t != nil {
		g.take(engineFirst)
		close(t.given)
	} else if t := pop(second); t != nil {
		g.take(!engineFirst)
		close(t.given)
	} else {
		g.held = false
	}
}

func pop(queue *[]*turn) *turn {
	for len(*queue) > 0 {
		t := (*queue)[0]
		(*queue)[0] = nil
		*queue = (*queue)[1:]
		if !t.gone {
			return t
		}
	}
	return nil
}
