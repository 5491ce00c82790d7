package background

import (
	"context"
	"net"
	"net/http"
	"reflect"
	"sync"
)

// A trackerKey finds the tracker that a runner has given a connection.
type trackerKey struct{ runner *Runner }

// A tracker holds back the lists of one HTTP/1 connection until the response
// in progress has been written.
type tracker struct {
	mu      sync.Mutex
	waiting []*list
	idle    bool // no response is in progress
	over    bool // hijacked or closed: no further hook will tell
}

// hold takes l until the connection is idle or closed; false if it is.
func (t *tracker) hold(l *list) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.idle || t.over {
		return false
	}
	t.waiting = append(t.waiting, l)
	return true
}

func (t *tracker) change(f func()) {
	t.mu.Lock()
	f()
	waiting := t.waiting
	t.waiting = nil
	t.mu.Unlock()
	for _, l := range waiting {
		l.release()
	}
}

func (t *tracker) release() { t.change(func() {}) }

func (t *tracker) see(state http.ConnState) {
	switch state {
	case http.StateActive:
		t.mu.Lock()
		t.idle = false
		t.mu.Unlock()
	case http.StateIdle:
		t.change(func() { t.idle = true })
	case http.StateHijacked, http.StateClosed:
		t.change(func() { t.over = true })
	}
}

// Configure lets the runner see when srv has written a response. Without it,
// tasks of HTTP/1 requests start when the handler has returned, which for
// small answers is before they are sent. It chains hooks that srv has already
// and must be called before srv serves.
func (r *Runner) Configure(srv *http.Server) {
	connContext, connState := srv.ConnContext, srv.ConnState
	srv.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		if connContext != nil {
			ctx = connContext(ctx, c)
		}
		if !reflect.TypeOf(c).Comparable() {
			return ctx // the hook could not find it: its tasks start after the handler
		}
		t := &tracker{}
		r.conns.Store(c, t)
		return context.WithValue(ctx, trackerKey{r}, t)
	}
	srv.ConnState = func(c net.Conn, state http.ConnState) {
		if connState != nil {
			connState(c, state)
		}
		if !reflect.TypeOf(c).Comparable() {
			return
		}
		t, ok := r.conns.Load(c)
		if !ok {
			return
		}
		if state == http.StateHijacked || state == http.StateClosed {
			r.conns.Delete(c)
		}
		t.(*tracker).see(state)
	}
}

// releaseAfter releases l when the response has been written.
//
// On HTTP/1 the connection's state tells: it becomes idle, or is closed, after
// the last write. (The request's context tells too early: it ends before the
// final flush.) On HTTP/2 the state is the connection's, not the stream's;
// there the deprecated CloseNotify is what waits for the stream's end.
func (r *Runner) releaseAfter(w http.ResponseWriter, req *http.Request, l *list) {
	switch req.ProtoMajor {
	case 1:
		if t, ok := req.Context().Value(trackerKey{r}).(*tracker); ok && t.hold(l) {
			if r.cut.Load() {
				t.release() // the drain has looked at the connections already
			}
			return
		}
	case 2:
		if ended := streamEnd(w); ended != nil && r.help(func() {
			select {
			case <-ended:
			case <-r.base.Done():
			}
			l.release()
		}) {
			return
		}
	}
	l.release()
}

// streamEnd returns what tells the end of an HTTP/2 stream, nil if nothing does.
func streamEnd(w http.ResponseWriter) <-chan bool {
	for {
		//lint:ignore SA1019 it is deprecated for watching clients; nothing else tells when a stream has ended
		if n, ok := w.(http.CloseNotifier); ok {
			return n.CloseNotify()
		}
		u, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			return nil
		}
		w = u.Unwrap()
	}
}
