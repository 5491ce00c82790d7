package waketest

import (
	"bytes"
	"io"
	"sync"
)

// A pump reads a body ahead of its reader, as a socket's buffer does: the
// application's writes do not wait for a test that looks elsewhere.
type pump struct {
	body io.ReadCloser
	mu   sync.Mutex
	more sync.Cond
	read bytes.Buffer
	err  error // of the body's end
}

func newPump(body io.ReadCloser) *pump {
	p := &pump{body: body}
	p.more.L = &p.mu
	go func() {
		for buf := make([]byte, 4096); ; {
			n, err := body.Read(buf)
			p.mu.Lock()
			p.read.Write(buf[:n])
			p.err = err
			p.mu.Unlock()
			p.more.Broadcast()
			if err != nil {
				return
			}
		}
	}()
	return p
}

func (p *pump) Read(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.read.Len() == 0 && p.err == nil {
		p.more.Wait()
	}
	if p.read.Len() == 0 {
		return 0, p.err
	}
	return p.read.Read(b)
}

func (p *pump) Close() error { return p.body.Close() }
