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
	refuseNew(l.TCPListener)
	now := time.Now()
	limit := now.Add(settleLimit)
	l.closeBy.Store(&limit)
	_ = l.SetDeadline(now.Add(settleTime)) // it fails if the listener is closed: no harm
}

// Accept returns the next connection.
func (l *gentleListener) Accept() (net.Conn, error) {
	for tries := 0; ; tries++ {
		conn, err := l.TCPListener.Accept()
		closeBy := l.closeBy.Load()
		if closeBy == nil {
			return conn, err
		}
		now := time.Now()
		if timedOut := errors.Is(err, os.ErrDeadlineExceeded); timedOut && (tries > 0 || now.After(*closeBy)) {
			return nil, net.ErrClosed
		} else if err != nil && !timedOut {
			return nil, err
		}
		// Nobody has looked for connections after the deadline, which may have
		// passed while this goroutine waited for a processor.
		_ = l.SetDeadline(now.Add(settleTime))
		if err == nil {
			return conn, nil
		}
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
