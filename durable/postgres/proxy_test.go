package postgres_test

import (
	"encoding/binary"
	"io"
	"net"
	"net/url"
	"sync"
	"testing"
)

// A proxy is a network between a store and its server, which can fail.
type proxy struct {
	listener net.Listener
	server   string
	pooler   bool // it answers with session numbers of its own, as poolers do

	mu    sync.Mutex
	conns map[net.Conn]bool
	mute  bool          // what the server answers is lost, and the connection ends
	muted chan struct{} // closed when an answer has been lost
	down  bool
	ended sync.WaitGroup
}

// newProxy makes a proxy and the URL that leads through it.
func newProxy(t testing.TB, server string) (*proxy, string) {
	t.Helper()
	u, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: listener, server: u.Host, conns: map[net.Conn]bool{}}
	p.ended.Go(p.accept)
	t.Cleanup(func() {
		listener.Close()
		p.cut()
		p.ended.Wait()
	})
	u.Host = listener.Addr().String()
	return p, u.String()
}

func (p *proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", p.server)
		p.mu.Lock()
		if err != nil || p.down {
			p.mu.Unlock()
			client.Close()
			if server != nil {
				server.Close()
			}
			continue
		}
		p.conns[client], p.conns[server] = true, true
		p.mu.Unlock()
		p.ended.Go(func() { p.requests(client, server) })
		p.ended.Go(func() { p.answers(client, server) })
	}
}

func (p *proxy) requests(client, server net.Conn) {
	defer p.end(client, server)
	_, _ = io.Copy(server, client)
}

func (p *proxy) answers(client, server net.Conn) {
	defer p.end(client, server)
	buf := make([]byte, 64<<10)
	for begun := true; ; {
		n, err := server.Read(buf)
		if err != nil {
			return
		}
		if begun && p.pooler {
			begun = !renumber(buf[:n])
		}
		p.mu.Lock()
		mute := p.mute
		if mute && p.muted != nil {
			close(p.muted)
			p.muted = nil
		}
		p.mu.Unlock()
		if mute {
			return
		}
		if _, err := client.Write(buf[:n]); err != nil {
			return
		}
	}
}

// renumber changes the number of a session in the server's greeting.
func renumber(answer []byte) bool {
	for len(answer) >= 5 {
		size := int(binary.BigEndian.Uint32(answer[1:])) + 1
		if answer[0] == 'K' && size == 13 && len(answer) >= size {
			binary.BigEndian.PutUint32(answer[5:], binary.BigEndian.Uint32(answer[5:])^0x1234567)
			return true
		}
		if size > len(answer) {
			return false
		}
		answer = answer[size:]
	}
	return false
}

func (p *proxy) end(conns ...net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		c.Close()
		delete(p.conns, c)
	}
}

// cut ends all connections.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		c.Close()
	}
}

// loseAnswers lets everything reach the server and nothing come back. What it
// returns is closed when something has been lost.
func (p *proxy) loseAnswers() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mute, p.muted = true, make(chan struct{})
	return p.muted
}

func (p *proxy) answer() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mute = false
}

// setDown lets nobody through, or everybody again.
func (p *proxy) setDown(down bool) {
	p.mu.Lock()
	p.down = down
	p.mu.Unlock()
	if down {
		p.cut()
	}
}
