package background_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wake-go/wake/background"
)

var quiet = log.New(io.Discard, "", 0)

// An exchange is something that a client and a server say to each other.
type exchange struct {
	name    string
	request string // for each response
	times   int    // requests sent at once
	handler http.HandlerFunc
}

var long = strings.Repeat("0123456789abcdef", 1000)

func exchanges() []exchange {
	hello := func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello") }
	status := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(code) }
	}
	events := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for i := range 3 {
			fmt.Fprintf(w, "data: %d\n\n", i)
			w.(http.Flusher).Flush()
		}
	}
	numbered := func() http.HandlerFunc {
		var n atomic.Int64
		return func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "END-%d", n.Add(1)) }
	}
	chunked := func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, long) }
	const get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
	post := fmt.Sprintf("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s", len(long), long)
	return []exchange{
		{"HTTP/1.0 close", "GET / HTTP/1.0\r\n\r\n", 1, hello},
		{"HTTP/1.0 keep-alive", "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", 1, hello},
		{"HTTP/1.1 keep-alive", get, 1, hello},
		{"HTTP/1.1 close", "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 1, hello},
		{"HTTP/1.1 three pipelined", get, 3, numbered()},
		{"HTTP/1.1 chunked", get, 1, chunked},
		{"HTTP/1.0 long", "GET / HTTP/1.0\r\n\r\n", 1, chunked},
		{"server-sent events", get, 1, events},
		{"HEAD", "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", 1, hello},
		{"304", get, 1, status(304)},
		{"204", get, 1, status(204)},
		{"request body unread", post, 1, hello},
	}
}

// with returns e's handler in a runner's middleware, with a task that writes
// its name down, "task 1" in the first request.
func (e exchange) with(r *background.Runner, log *ledger) http.Handler {
	var n atomic.Int64
	return r.Middleware(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		task := log.task("task " + strconv.FormatInt(n.Add(1), 10))
		background.From(req.Context()).AddTask(task)
		e.handler(w, req)
	}))
}

// read reads a response and returns its bytes.
func (e exchange) read(t *testing.T, buf *bufio.Reader) []byte {
	t.Helper()
	var raw bytes.Buffer
	method, _, _ := strings.Cut(e.request, " ")
	tee := bufio.NewReaderSize(io.TeeReader(oneByte{buf}, &raw), 16)
	resp, err := http.ReadResponse(tee, &http.Request{Method: method})
	if err != nil {
		t.Fatalf("read response: %v", err)
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Fatalf("read body: %v", err)
	}
	return raw.Bytes()
}

// oneByte reads byte by byte, so that nothing is read ahead.
type oneByte struct{ io.Reader }

func (o oneByte) Read(b []byte) (int, error) { return o.Reader.Read(b[:1]) }

// bare returns the bytes of e's responses without a runner, each by itself.
func (e exchange) bare(t *testing.T) (responses [][]byte) {
	t.Helper()
	l := newPipeListener()
	stop := serveOn(t, l, &http.Server{Handler: e.handler})
	defer stop()
	c := l.dial()
	defer c.Close()
	go io.WriteString(c, strings.Repeat(e.request, e.times))
	buf := bufio.NewReader(oneByte{c})
	for range e.times {
		responses = append(responses, e.read(t, buf))
	}
	return responses
}

// A write on a pipe returns when its last byte has been read, which makes the
// moment exact: with all but the last byte of a response read no task runs.
func TestTasksStartOnceTheLastByteIsWritten(t *testing.T) {
	for i, e := range exchanges() {
		t.Run(e.name, func(t *testing.T) {
			var want [][]byte
			synctest.Test(t, func(t *testing.T) { want = exchanges()[i].bare(t) })
			synctest.Test(t, func(t *testing.T) {
				log := &ledger{}
				r := newRunner(t, background.Config{})
				srv := &http.Server{Handler: e.with(r, log)}
				r.Configure(srv)
				l := newPipeListener()
				stop := serveOn(t, l, srv)
				defer stop()
				c := l.dial()
				defer c.Close()
				go io.WriteString(c, strings.Repeat(e.request, e.times))
				for n, response := range want {
					got := make([]byte, len(response))
					if _, err := io.ReadFull(c, got[:len(got)-1]); err != nil {
						t.Fatal(err)
					}
					synctest.Wait()
					if ran := len(log.all()); ran != n {
						t.Errorf("%d tasks have run before the end of response %d", ran, n+1)
					}
					if _, err := io.ReadFull(c, got[len(got)-1:]); err != nil {
						t.Fatal(err)
					}
					synctest.Wait()
					if ran := len(log.all()); ran != n+1 {
						t.Errorf("%d tasks have run after response %d", ran, n+1)
					}
					if !bytes.Equal(got, response) {
						t.Errorf("the bytes differ from those without a runner:\n%q\n%q", got, response)
					}
				}
			})
		})
	}
}

func TestTasksStartAfterEveryWriteToARealSocket(t *testing.T) {
	for _, secure := range []bool{false, true} {
		for i, e := range exchanges() {
			name := e.name
			if secure {
				name += ", TLS"
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				want := sayTo(t, exchanges()[i], secure, nil, nil)
				log := &ledger{}
				r := newRunner(t, background.Config{})
				got := sayTo(t, e, secure, r, log)
				if undated(got) != undated(want) {
					t.Errorf("the bytes differ from those without a runner:\n%q\n%q", got, want)
				}
			})
		}
	}
}

func undated(response string) string {
	var b strings.Builder
	for line := range strings.Lines(response) {
		if !strings.HasPrefix(line, "Date: ") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// sayTo says e to a server whose writes take time and checks, when there is a
// runner, that each task starts after the last write of its response.
func sayTo(t *testing.T, e exchange, secure bool, r *background.Runner, log *ledger) string {
	t.Helper()
	srv := httptest.NewUnstartedServer(e.handler)
	srv.Config.ErrorLog = quiet
	if r != nil {
		srv.Config.Handler = e.with(r, log)
		r.Configure(srv.Config)
		srv.Listener = &slowListener{Listener: srv.Listener, delay: 20 * time.Millisecond, log: log}
	}
	var c net.Conn
	var err error
	if secure {
		srv.StartTLS()
		c, err = tls.Dial("tcp", srv.Listener.Addr().String(), srv.Client().Transport.(*http.Transport).TLSClientConfig)
	} else {
		srv.Start()
		c, err = net.Dial("tcp", srv.Listener.Addr().String())
	}
	if err != nil {
		t.Fatal(err)
	}
	defer srv.Close()
	defer c.Close()
	go io.WriteString(c, strings.Repeat(e.request, e.times))
	var all strings.Builder
	buf := bufio.NewReader(c)
	for range e.times {
		all.Write(e.read(t, buf))
	}
	if r == nil {
		return all.String()
	}
	if err := r.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	checkOrder(t, e, log.all(), secure)
	return all.String()
}

func checkOrder(t *testing.T, e exchange, lines []string, secure bool) {
	t.Helper()
	at := func(line string) int {
		i := slices.Index(lines, line)
		if i < 0 {
			t.Fatalf("no line %q in %q", line, lines)
		}
		return i
	}
	if e.times == 1 {
		// Nothing has been written since the response: the client is still
		// connected.
		if task := at("task 1"); slices.Index(lines[task:], "write") >= 0 || !slices.Contains(lines[:task], "write") {
			t.Errorf("the task did not start after the last write: %q", lines)
		}
		return
	}
	for n := 1; n <= e.times && !secure; n++ {
		if at(fmt.Sprintf("task %d", n)) < at(fmt.Sprintf("write END-%d", n)) {
			t.Errorf("task %d did not start after its response: %q", n, lines)
		}
	}
}

func TestPipelinedRequestsDoNotWaitForTheLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRunner(t, background.Config{})
		first := make(chan struct{})
		srv := &http.Server{Handler: r.Middleware(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if req.URL.Path == "/second" {
				<-first // the task of the request before
				return
			}
			background.From(req.Context()).Add("close", func(context.Context) error {
				close(first)
				return nil
			})
		}))}
		r.Configure(srv)
		l := newPipeListener()
		stop := serveOn(t, l, srv)
		defer stop()
		c := l.dial()
		defer c.Close()
		go io.WriteString(c, "GET /first HTTP/1.1\r\nHost: a\r\n\r\nGET /second HTTP/1.1\r\nHost: a\r\n\r\n")
		buf := bufio.NewReader(c)
		for range 2 {
			if _, err := http.ReadResponse(buf, nil); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestAPanicDropsTasksButRunsAlwaysAfterTheConnectionIsClosed(t *testing.T) {
	log, seen := &ledger{}, &events{}
	r := newRunner(t, background.Config{OnEvent: seen.add})
	srv := httptest.NewUnstartedServer(r.Middleware(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		tasks := background.From(req.Context())
		tasks.AddTask(log.task("mail"))
		tasks.Always(log.task("audit"))
		panic("no")
	})))
	srv.Config.ErrorLog = quiet
	srv.Listener = &slowListener{Listener: srv.Listener, log: log}
	r.Configure(srv.Config)
	srv.Start()
	defer srv.Close()
	if resp, err := srv.Client().Get(srv.URL); err == nil {
		resp.Body.Close()
		t.Error("a handler that panicked sent a response")
	}
	if err := r.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	log.want(t, "close", "audit")
	if dropped := of[background.TaskDropped](seen); len(dropped) != 1 || dropped[0].Name != "mail" || dropped[0].RequestID == "" || dropped[0].Err != nil {
		t.Errorf("got %+v", dropped)
	}
}

func TestHijackedConnectionsStartTasksWhenTheHandlerReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &ledger{}
		r := newRunner(t, background.Config{})
		leave := make(chan struct{})
		srv := &http.Server{Handler: r.Middleware(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			background.From(req.Context()).AddTask(log.task("task"))
			c, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			c.Write([]byte("hello"))
			c.Close()
			<-leave
			log.add("returned")
		}))}
		r.Configure(srv)
		l := newPipeListener()
		stop := serveOn(t, l, srv)
		defer stop()
		c := l.dial()
		defer c.Close()
		io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		if b, err := io.ReadAll(c); err != nil || string(b) != "hello" {
			t.Errorf("got %q, %v", b, err)
		}
		synctest.Wait()
		log.want(t)
		close(leave)
		synctest.Wait()
		log.want(t, "returned", "task")
	})
}

func TestTimeoutHandlerRefusesAnOperationThatIsTooLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		seen := &events{}
		r := newRunner(t, background.Config{OnEvent: seen.add})
		late := make(chan error, 2)
		h := r.Middleware(http.TimeoutHandler(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			tasks := background.From(req.Context())
			tasks.Hold()
			tasks.Add("mail", func(context.Context) error { t.Error("ran"); return nil })
			time.Sleep(2 * time.Second)
			late <- tasks.TryAdd(background.Task{Name: "x", Run: func(context.Context) error { return nil }})
			late <- tasks.Commit()
		}), time.Second, "too late"))
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
		if w.Code != http.StatusServiceUnavailable {
			t.Errorf("got %d", w.Code)
		}
		if places := r.Stats().Lanes[1].Waiting; places != 0 {
			t.Errorf("%d places are held by an operation that will fail", places)
		}
		for range 2 {
			if err := <-late; !errors.Is(err, background.ErrSealed) {
				t.Errorf("got %v, want ErrSealed", err)
			}
		}
		if d := of[background.TaskDropped](seen); len(d) != 1 || d[0].Name != "mail" {
			t.Errorf("got %+v", d)
		}
	})
}

func TestTimeoutHandlerInTimeRunsTasksAfterwards(t *testing.T) {
	e := exchange{request: "GET / HTTP/1.1\r\nHost: a\r\n\r\n", times: 1}
	e.handler = http.TimeoutHandler(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if err := background.From(req.Context()).Commit(); err != nil {
			t.Error(err)
		}
		io.WriteString(w, "in time")
	}), time.Minute, "too late").ServeHTTP
	if got := sayTo(t, e, false, newRunner(t, background.Config{}), &ledger{}); !strings.HasSuffix(got, "in time") {
		t.Errorf("got %q", got)
	}
}

func TestATimeoutHandlerOutsideDoesNotHoldTasksUntilTheNextRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &ledger{}
		r := newRunner(t, background.Config{})
		srv := &http.Server{Handler: http.TimeoutHandler(r.Middleware(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			background.From(req.Context()).AddTask(log.task("task"))
			time.Sleep(2 * time.Second)
		})), time.Second, "too late")}
		r.Configure(srv)
		l := newPipeListener()
		stop := serveOn(t, l, srv)
		defer stop()
		c := l.dial()
		defer c.Close()
		go io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, resp.Body)
		synctest.Wait()
		log.want(t)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		log.want(t, "task")
	})
}

func TestARecorderStartsTasksWhenTheHandlerHasReturned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &ledger{}
		r := newRunner(t, background.Config{})
		r.Middleware(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			defer log.add("returned")
			background.From(req.Context()).AddTask(log.task("task"))
			synctest.Wait()
		})).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
		synctest.Wait()
		log.want(t, "returned", "task")
	})
}

func TestAClientThatHasGoneChangesNothing(t *testing.T) {
	log := &ledger{}
	r := newRunner(t, background.Config{})
	entered, ended := make(chan struct{}), make(chan struct{})
	srv := httptest.NewUnstartedServer(r.Middleware(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		tasks := background.From(req.Context())
		tasks.OnEnd(func() { close(ended) })
		close(entered)
		<-req.Context().Done()
		tasks.Add("task", func(ctx context.Context) error {
			if err := ctx.Err(); err != nil {
				t.Errorf("the task's context ended with the client's: %v", err)
			}
			log.add("task")
			return nil
		})
		io.WriteString(w, long)
	})))
	r.Configure(srv.Config)
	srv.Start()
	defer srv.Close()
	ctx, cancel := context.WithCancel(t.Context())
	req, _ := http.NewRequestWithContext(ctx, "GET", srv.URL, nil)
	gone := make(chan error, 1)
	go func() {
		_, err := srv.Client().Do(req)
		gone <- err
	}()
	wait(t, entered, "the request")
	cancel()
	if err := wait(t, gone, "the client"); err == nil {
		t.Error("the client got an answer")
	}
	wait(t, ended, "the task")
	log.want(t, "task")
}

func TestConfigureKeepsTheServersOwnHooks(t *testing.T) {
	type key struct{}
	r := newRunner(t, background.Config{})
	var states atomic.Int64
	srv := httptest.NewUnstartedServer(r.Middleware(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		fmt.Fprint(w, req.Context().Value(key{}))
	})))
	srv.Config.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		return context.WithValue(ctx, key{}, "mine")
	}
	srv.Config.ConnState = func(net.Conn, http.ConnState) { states.Add(1) }
	r.Configure(srv.Config)
	r.Configure(srv.Config) // once more does no harm
	srv.Start()
	defer srv.Close()
	resp, err := srv.Client().Get(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, _ := io.ReadAll(resp.Body); string(b) != "mine" || states.Load() == 0 {
		t.Errorf("got %q and %d states", b, states.Load())
	}
}
