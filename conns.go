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
	// lingerTime is how long connections without a request in progress stay
	// open when the drain has begun. Their clients may have sent a request just
	// before they learnt of anything: it is answered, with Connection: close.
	// Closing such connections at once cuts requests on every deployment.
	lingerTime = 250 * time.Millisecond

	// restTime is how long such a connection stays open after its last request,
	// or after it was made: a client that asks more often than that is told
	// that the connection will close before it does.
	restTime = time.Second

	// lingerPoll is how often the drain looks at the connections.
	lingerPoll = 5 * time.Millisecond
)

// conns are the open connections of a server, without those that a handler has
// taken over.
type conns struct {
	all   sync.Map // net.Conn → *conn
	began time.Time
}

// A conn is what the drain knows of one connection.
type conn struct {
	rests   atomic.Int64 // since when it has no request in progress, see conns.now; 0: it has one
	overdue int64        // rests, when it was first found overdue; the drain's own
}

// watch follows the connections of srv. It chains the hook that is there.
func (cs *conns) watch(srv *http.Server) {
	cs.began = time.Now()
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
		known := &conn{}
		known.rests.Store(cs.now())
		cs.all.Store(c, known)
	case http.StateHijacked, http.StateClosed:
		cs.all.Delete(c)
	case http.StateActive:
		if known, ok := cs.all.Load(c); ok {
			known.(*conn).rests.Store(0)
		}
	case http.StateIdle:
		if known, ok := cs.all.Load(c); ok {
			known.(*conn).rests.Store(cs.now())
		}
	}
}

// now is the time since the server began, in nanoseconds and never 0.
func (cs *conns) now() int64 { return int64(time.Since(cs.began)) + 1 }

// wait waits until no connection is left, and reports whether it has come to
// that before ctx ended. After the time linger it closes each connection that
// has rested for the time rest.
func (cs *conns) wait(ctx context.Context, linger, rest time.Duration) bool {
	poll := time.NewTimer(lingerPoll)
	defer poll.Stop()
	for began := cs.now(); ; {
		left := false
		now := cs.now()
		cs.all.Range(func(key, known any) bool {
			left = true
			if c := key.(net.Conn); now-began >= int64(linger) && known.(*conn).over(c, now-int64(rest)) {
				c.Close()
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

// over reports whether a connection has rested since a time, and nothing has
// arrived on it. It is asked twice: between, net/http has a moment to see what
// it has just read.
func (c *conn) over(of net.Conn, since int64) bool {
	rests := c.rests.Load()
	if rests == 0 || rests > since || hasUnread(of) {
		return false
	}
	again := c.overdue == rests
	c.overdue = rests
	return again
}

// busy counts the connections with a request or an answer in progress.
func (cs *conns) busy() (n int) {
	cs.all.Range(func(_, known any) bool {
		if known.(*conn).rests.Load() == 0 {
			n++
		}
		return true
	})
	return n
}
