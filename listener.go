package wake

import (
	"context"
	"errors"
	"net"
	"os"
	"sync/atomic"
	"time"
)

const (
	// settleTime is how long no connection must have arrived before a gentle
	// listener that refuses new ones closes.
	settleTime = 10 * time.Millisecond

	// settleLimit bounds that where new ones cannot be refused.
	settleLimit = 100 * time.Millisecond
)

// A gentleListener can close without a cut. To a client a connection is made
// before the program has accepted it: it may have sent its request already.
// The system resets all such connections when a listener closes.
type gentleListener struct {
	*net.TCPListener
	closeBy atomic.Pointer[time.Time] // set when no new connections are wanted
}

// listenGently opens a port.
func listenGently(ctx context.Context, addr string) (net.Listener, error) {
	var cfg net.ListenConfig
	cfg.SetMultipathTCP(false) // its sockets take no filter: see refuseNew
	l, err := cfg.Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return &gentleListener{TCPListener: l.(*net.TCPListener)}, nil
}

// closeGently makes Accept return the connections that have been made, and
// then an error, upon which net/http closes the listener.
func (l *gentleListener) closeGently() {
	now := time.Now()
	limit := now.Add(settleLimit)
	if refuseNew(l.TCPListener) {
		limit = now.Add(time.Hour) // what waits is finite
	}
	l.closeBy.Store(&limit)
	_ = l.SetDeadline(now.Add(settleTime)) // it fails if the listener is closed: no harm
}

// Accept returns the next connection.
func (l *gentleListener) Accept() (net.Conn, error) {
	for tries := 0; ; tries++ {
		conn, err := l.TCPListener.Accept()
		limit := l.closeBy.Load()
		if limit == nil {
			return conn, err
		}
		late := errors.Is(err, os.ErrDeadlineExceeded)
		if err != nil && !late {
			return nil, err
		}
		now := time.Now()
		if now.Before(*limit) {
			_ = l.SetDeadline(now.Add(settleTime))
		}
		switch {
		case err == nil:
			return conn, nil
		case tries > 0 || now.After(*limit):
			return nil, net.ErrClosed
		}
		// Once more: nobody looks for connections after the deadline, and it
		// may have passed while this goroutine waited for a processor.
	}
}

// closeAll closes listeners: those that can, gently.
func closeAll(listeners []net.Listener) {
	for _, l := range listeners {
		if gentle, ok := l.(*gentleListener); ok {
			gentle.closeGently()
		} else {
			l.Close()
		}
	}
}
