package catcher

import (
	"errors"
	"net"
	"sync"
)

// listener remembers the connections it accepted, to bound their number and to close them with itself.
type listener struct {
	net.Listener

	mu     sync.Mutex
	open   map[*conn]struct{}
	closed bool
}

func newListener(l net.Listener) *listener {
	return &listener{Listener: l, open: make(map[*conn]struct{})}
}

func (l *listener) Accept() (net.Conn, error) {
	for {
		tcp, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if c := l.admit(tcp); c != nil {
			return c, nil
		}
		tcp.Close()
	}
}

func (l *listener) admit(tcp net.Conn) *conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || len(l.open) >= maxConnections {
		return nil
	}
	c := &conn{Conn: tcp, listener: l}
	l.open[c] = struct{}{}
	return c
}

// Close closes the listener and every connection. A second Close does nothing: the SMTP server calls it too.
func (l *listener) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	open := l.open
	l.open = nil
	l.mu.Unlock()

	errs := []error{l.Listener.Close()}
	for c := range open {
		if err := c.Conn.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

type conn struct {
	net.Conn
	listener *listener
}

func (c *conn) Close() error {
	c.listener.mu.Lock()
	delete(c.listener.open, c)
	c.listener.mu.Unlock()
	return c.Conn.Close()
}
