package waketest

import (
	"bytes"
	"io"
	"sync"
)

// maxAhead is how far a pump reads ahead. Beyond it the application's writes
// wait, as they do for a client that does not read.
const maxAhead = 1 << 20

// A pump reads a body ahead of its reader, as a socket's buffer does: the
// application's writes do not wait for a test that looks elsewhere.
type pump struct {
	body   io.ReadCloser
	ended  chan struct{} // closed when nothing is read any more
	mu     sync.Mutex
	change sync.Cond // of what follows
	read   bytes.Buffer
	closed bool
	err    error // of the body's end
}

func newPump(body io.ReadCloser) *pump {
	p := &pump{body: body, ended: make(chan struct{})}
	p.change.L = &p.mu
	go p.run()
	return p
}

func (p *pump) run() {
	defer close(p.ended)
	for buf := make([]byte, 4096); ; {
		n, err := p.body.Read(buf)
		p.mu.Lock()
		p.read.Write(buf[:n])
		p.err = err
		p.change.Broadcast()
		for p.read.Len() >= maxAhead && !p.closed {
			p.change.Wait()
		}
		p.mu.Unlock()
		if err != nil {
			return
		}
	}
}

func (p *pump) Read(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.read.Len() == 0 && p.err == nil {
		p.change.Wait()
	}
	if p.read.Len() == 0 {
		return 0, p.err
	}
	defer p.change.Broadcast()
	return p.read.Read(b)
}

func (p *pump) Close() error {
	p.mu.Lock()
	p.closed = true
	p.change.Broadcast()
	p.mu.Unlock()
	err := p.body.Close()
	<-p.ended // a closed body's Read returns
	return err
}
