package lifespan

import "sync"

// A mailbox passes functions to the one goroutine that may change an
// application's state. It has no limit, so that putting never waits, not even
// in an event handler that runs on that goroutine itself.
type mailbox struct {
	ready chan struct{} // holds a token while there is mail

	mu     sync.Mutex
	mail   []func()
	closed bool
}

func newMailbox() *mailbox { return &mailbox{ready: make(chan struct{}, 1)} }

// put tells whether fn was accepted; after close it is not.
func (m *mailbox) put(fn func()) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return false
	}
	m.mail = append(m.mail, fn)
	select {
	case m.ready <- struct{}{}:
	default:
	}
	return true
}

func (m *mailbox) take() []func() {
	m.mu.Lock()
	defer m.mu.Unlock()
	mail := m.mail
	m.mail = nil
	return mail
}

func (m *mailbox) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	m.mail = nil
}
