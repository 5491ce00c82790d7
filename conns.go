package wake

import (
	"context"
	"net"
	"net/http"
	"reflect"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// lingerTime is how long a connection without a request in progress stays
	// open during the drain. Its client may have sent a request just before it
	// learnt of anything: it is answered, with Connection: close. Closing such
	// connections at once cuts requests on every deployment.
	lingerTime = 250 * time.Millisecond

	// firstRequestTime is the same for a connection that is still to send its
	// first request, from when it was made: time for a handshake and the way.
	firstRequestTime = time.Second

	// lingerPoll is how often the drain looks at the connections.
	lingerPoll = 5 * time.Millisecond
)

// conns are the open connections of a server, without those that a handler has
// taken over.
type conns struct {
	all sync.Map // net.Conn → *conn
}

// A conn is what the drain knows of one connection.
type conn struct {
	made    time.Time
	changes atomic.Uint32 // how often it has become busy or quiet: odd is busy

	// These belong to the drain.
	seen  uint32 // changes, when it was last looked at
	since time.Time
}

// watch follows the connections of srv. It chains the hook that is there.
func (cs *conns) watch(srv *http.Server) {
	next := srv.ConnState
	srv.ConnState = func(c net.Conn, state http.ConnState) {
		if reflect.TypeOf(c).Comparable() {
			cs.see(c, state)
		}
		if next != nil {
			next(c, state)
		}
	}
}

func (cs *conns) see(c net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		cs.all.Store(c, &conn{made: time.Now()})
	case http.StateHijacked, http.StateClosed:
		cs.all.Delete(c)
	default:
		if known, ok := cs.all.Load(c); ok {
			known.(*conn).set(state == http.StateActive)
		}
	}
}

// set notes a change. Only net/http's goroutine for the connection calls it.
func (c *conn) set(busy bool) {
	if n := c.changes.Load(); n%2 == 1 != busy {
		c.changes.Store(n + 1)
	}
}

// linger waits until no connection is left, and closes each that has had no
// request for its time. It reports whether it has come to that before ctx ended.
func (cs *conns) linger(ctx context.Context) bool {
	poll := time.NewTimer(lingerPoll)
	defer poll.Stop()
	for began := time.Now(); ; {
		left := false
		now := time.Now()
		cs.all.Range(func(c, known any) bool {
			left = true
			if known.(*conn).overdue(began, now) {
				c.(net.Conn).Close()
			}
			return true
		})
		if !left {
			return true
		}
		select {
		case <-poll.C:
			poll.Reset(lingerPoll)
		case <-ctx.Done():
			return false
		}
	}
}

// overdue reports whether a connection has waited for a request long enough,
// in a drain that began then.
func (c *conn) overdue(began, now time.Time) bool {
	changes := c.changes.Load()
	if c.since.IsZero() || changes != c.seen {
		c.seen, c.since = changes, now
	}
	switch {
	case changes%2 == 1:
		return false
	case changes == 0:
		return now.Sub(c.made) >= firstRequestTime && now.Sub(began) >= lingerTime
	}
	return now.Sub(c.since) >= lingerTime
}

// busy counts the connections with a request or an answer in progress.
func (cs *conns) busy() (n int) {
	cs.all.Range(func(_, known any) bool {
		if known.(*conn).changes.Load()%2 == 1 {
			n++
		}
		return true
	})
	return n
}
