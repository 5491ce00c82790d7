package main

import (
	"bufio"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
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

// A front keeps one URL for programs that come after each other. It lets nobody hear that a registration was logged: as
// if every process were killed just before.
type front struct {
	url    string
	behind atomic.Pointer[url.URL]
}

func newFront(t *testing.T) *front {
	t.Helper()
	f := &front{}
	transport := &http.Transport{DisableKeepAlives: true}
	proxy := &httputil.ReverseProxy{
		Rewrite:        func(r *httputil.ProxyRequest) { r.SetURL(f.behind.Load()) },
		Transport:      transport,
		FlushInterval:  -1,
		ErrorLog:       log.New(io.Discard, "", 0), // nobody is behind for a while
		ModifyResponse: hideTheLog,
	}
	server := httptest.NewServer(proxy)
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	f.url = server.URL
	return f
}

func (f *front) lead(t *testing.T, to string) {
	t.Helper()
	behind, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	f.behind.Store(behind)
}

func hideTheLog(r *http.Response) error {
	if path := r.Request.URL.Path; path != "/data" && path != "/events" {
		return nil
	}
	r.Header.Del("Content-Length")
	r.ContentLength = -1
	whole := r.Body
	read, write := io.Pipe()
	r.Body = read
	go func() {
		defer whole.Close()
		lines := bufio.NewScanner(whole)
		for lines.Scan() {
			line := strings.ReplaceAll(lines.Text(), `"logged":true`, `"logged":false`)
			if strings.Contains(line, "log_registration") {
				continue
			}
			if _, err := io.WriteString(write, line+"\n"); err != nil {
				break
			}
		}
		write.CloseWithError(lines.Err())
	}()
	return nil
}

// newCRM returns the URL of a CRM.
func newCRM(t *testing.T, handler http.HandlerFunc) string {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return server.URL
}
