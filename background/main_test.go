package background_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/wake-go/wake/background"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if mode := os.Getenv(interferenceVar); mode != "" {
		serveInterference(mode)
		return
	}
	goleak.VerifyTestMain(m)
}

// A ledger writes down what happens in what order.
type ledger struct {
	mu    sync.Mutex
	lines []string
}

func (l *ledger) add(line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, line)
}

func (l *ledger) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.lines)
}

// task returns a task that writes its name down.
func (l *ledger) task(name string) background.Task {
	return background.Task{Name: name, Run: func(context.Context) error {
		l.add(name)
		return nil
	}}
}

func (l *ledger) want(t *testing.T, lines ...string) {
	t.Helper()
	if got := l.all(); !slices.Equal(got, lines) {
		t.Errorf("got %q, want %q", got, lines)
	}
}

// events collects a runner's events.
type events struct {
	mu  sync.Mutex
	all []background.Event
}

func (e *events) add(ev background.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, ev)
}

// of returns the events of one type.
func of[E background.Event](e *events) (some []E) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, ev := range e.all {
		if one, ok := ev.(E); ok {
			some = append(some, one)
		}
	}
	return some
}

// newRunner makes a runner that has to drain without a rest when the test ends,
// and with all its places free.
func newRunner(t *testing.T, cfg background.Config) *background.Runner {
	t.Helper()
	r := newRunnerUnchecked(t, cfg)
	t.Cleanup(func() {
		if err := r.Drain(context.Background()); err != nil && !errors.Is(err, background.ErrClosed) {
			t.Errorf("drain: %v", err)
		}
		checkSettled(t, r)
	})
	return r
}

func newRunnerUnchecked(t *testing.T, cfg background.Config) *background.Runner {
	t.Helper()
	r, err := background.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// checkSettled checks what must hold of any runner that has no work.
func checkSettled(t *testing.T, r *background.Runner) {
	t.Helper()
	s := r.Stats()
	if s.Added != s.Finished+s.Failed+s.Dropped+s.Withdrawn+s.Abandoned {
		t.Errorf("tasks got lost or counted twice: %+v", s)
	}
	for _, l := range s.Lanes {
		if l.Waiting != 0 || l.Running != 0 {
			t.Errorf("lane %q keeps places of tasks that have ended: %+v", l.Name, l)
		}
	}
}

// answer serves one request in process. Its tasks may still be running.
func answer(r *background.Runner, h http.HandlerFunc) {
	r.Middleware(h).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
}

// serve serves one request in process and returns when its tasks have ended.
func serve(t *testing.T, r *background.Runner, h http.HandlerFunc) *httptest.ResponseRecorder {
	t.Helper()
	return serveRequest(t, r, httptest.NewRequest("GET", "/", nil), h)
}

func serveRequest(t *testing.T, r *background.Runner, req *http.Request, h http.HandlerFunc) *httptest.ResponseRecorder {
	t.Helper()
	ended := make(chan struct{})
	w := httptest.NewRecorder()
	func() {
		defer func() {
			if v := recover(); v != nil && v != http.ErrAbortHandler {
				panic(v)
			}
		}()
		r.Middleware(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			background.From(req.Context()).OnEnd(func() { close(ended) })
			h(w, req)
		})).ServeHTTP(w, req)
	}()
	wait(t, ended, "the request's tasks to end")
	return w
}

// wait waits for something that has to happen.
func wait[T any](t *testing.T, ch <-chan T, what string) (v T) {
	t.Helper()
	select {
	case v = <-ch:
	case <-time.After(20 * time.Second):
		t.Fatalf("waited in vain for %s", what)
	}
	return v
}

// A pipeListener is a network in memory, without buffers: a write returns when
// the other side has read it all.
type pipeListener struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newPipeListener() *pipeListener {
	return &pipeListener{conns: make(chan net.Conn), done: make(chan struct{})}
}

func (l *pipeListener) dial() net.Conn {
	client, server := net.Pipe()
	l.conns <- server
	return client
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "pipe"} }

// serveOn serves until the test calls the function it returns.
func serveOn(t *testing.T, l net.Listener, srv *http.Server) (stop func()) {
	t.Helper()
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	return func() {
		t.Helper()
		srv.Close()
		if err := <-served; err != http.ErrServerClosed {
			t.Errorf("serve: %v", err)
		}
	}
}

// plaintext lets a server speak HTTP/1 and unencrypted HTTP/2.
func plaintext() *http.Protocols {
	p := &http.Protocols{}
	p.SetHTTP1(true)
	p.SetUnencryptedHTTP2(true)
	return p
}

// A slowListener delays every write and writes down when it has returned.
type slowListener struct {
	net.Listener
	delay time.Duration
	log   *ledger
}

func (l *slowListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &slowConn{Conn: c, from: l}, nil
}

type slowConn struct {
	net.Conn
	from *slowListener
	once sync.Once
}

func (c *slowConn) Write(b []byte) (int, error) {
	time.Sleep(c.from.delay)
	n, err := c.Conn.Write(b)
	line := "write"
	for _, mark := range []string{"END-1", "END-2", "END-3"} {
		if bytes.Contains(b, []byte(mark)) {
			line += " " + mark
		}
	}
	c.from.log.add(line)
	return n, err
}

func (c *slowConn) Close() error {
	c.once.Do(func() { c.from.log.add("close") })
	return c.Conn.Close()
}
