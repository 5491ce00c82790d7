package main

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
)

// What a mail server can be like.
type condition int

const (
	up    condition = iota
	away            // it hangs up
	stuck           // it accepts connections and says nothing
)

// A mailServer stands before another one and can get into a bad condition.
type mailServer struct {
	listener net.Listener
	behind   string
	called   chan struct{} // gets a value for each connection that is stuck

	mu        sync.Mutex
	condition condition
	open      []net.Conn
	closed    bool
	tasks     sync.WaitGroup
}

func newMailServer(t *testing.T, behind string) *mailServer {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &mailServer{listener: listener, behind: behind, called: make(chan struct{}, 1000)}
	s.tasks.Go(s.serve)
	return s
}

func (s *mailServer) addr() string { return s.listener.Addr().String() }

// be sets the condition for connections to come.
func (s *mailServer) be(c condition) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.condition = c
}

func (s *mailServer) serve() {
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		condition := s.condition
		if s.closed || condition == away {
			conn.Close()
			s.mu.Unlock()
			continue
		}
		s.open = append(s.open, conn)
		s.mu.Unlock()
		switch condition {
		case stuck:
			s.called <- struct{}{}
		case up:
			s.tasks.Go(func() { s.pass(conn) })
		}
	}
}

// pass lets the server behind do the talking.
func (s *mailServer) pass(conn net.Conn) {
	defer conn.Close()
	behind, err := net.Dial("tcp", s.behind)
	if err != nil {
		return
	}
	defer behind.Close()
	s.tasks.Go(func() {
		_, _ = io.Copy(behind, conn)
		behind.Close()
	})
	_, _ = io.Copy(conn, behind)
}

func (s *mailServer) close() {
	s.listener.Close()
	s.mu.Lock()
	s.closed = true
	for _, conn := range s.open {
		conn.Close()
	}
	s.mu.Unlock()
	s.tasks.Wait()
}

// newCRM returns the URL of a CRM.
func newCRM(t *testing.T, handler http.HandlerFunc) string {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return server.URL
}
