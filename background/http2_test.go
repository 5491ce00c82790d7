package background_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wake-go/wake/background"
)

// The frames and flags of HTTP/2 that the tests need.
const (
	frameData     = 0
	frameHeaders  = 1
	frameSettings = 4
	flagEnd       = 1 // END_STREAM, or ACK
	flagHeaders   = 4 // END_HEADERS
)

type frame struct {
	kind, flags byte
	stream      uint32
	body        []byte
}

func (f frame) ends(stream uint32) bool {
	return f.stream == stream && f.flags&flagEnd != 0 && (f.kind == frameData || f.kind == frameHeaders)
}

func (f frame) bytes() []byte {
	n := len(f.body)
	head := []byte{byte(n >> 16), byte(n >> 8), byte(n), f.kind, f.flags}
	return append(binary.BigEndian.AppendUint32(head, f.stream), f.body...)
}

func readFrame(t *testing.T, r io.Reader) frame {
	t.Helper()
	var head [9]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		t.Fatalf("read frame: %v", err)
	}
	f := frame{kind: head[3], flags: head[4], stream: binary.BigEndian.Uint32(head[5:]) & (1<<31 - 1)}
	f.body = make([]byte, int(head[0])<<16|int(head[1])<<8|int(head[2]))
	if _, err := io.ReadFull(r, f.body); err != nil {
		t.Fatalf("read frame: %v", err)
	}
	return f
}

// An h2Client is the least that HTTP/2 without TLS needs of a client.
type h2Client struct {
	net.Conn
	sent chan []byte // written one after another, while the test reads
}

// get asks for a path. Header fields are literals or from HPACK's static table.
func (c *h2Client) get(stream uint32, path string) {
	fields := []byte{0x82, 0x86, 0x41, 1, 'a', 0x04, byte(len(path))} // GET, http, authority "a", path
	c.send(frame{frameHeaders, flagEnd | flagHeaders, stream, append(fields, path...)})
}

func (c *h2Client) send(f frame) { c.sent <- f.bytes() }

// newH2 starts a server on a pipe and a connection to it.
func newH2(t *testing.T, r *background.Runner, h http.Handler) (c *h2Client, stop func()) {
	t.Helper()
	srv := &http.Server{Handler: h, Protocols: plaintext(), ErrorLog: quiet}
	if r != nil {
		r.Configure(srv)
	}
	l := newPipeListener()
	stopServer := serveOn(t, l, srv)
	c = &h2Client{l.dial(), make(chan []byte, 16)}
	go func() {
		for b := range c.sent {
			c.Write(b)
		}
	}()
	c.sent <- []byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
	c.send(frame{kind: frameSettings})
	c.send(frame{kind: frameSettings, flags: flagEnd})
	return c, func() {
		close(c.sent)
		c.Close()
		stopServer()
	}
}

// bodies are answers of one write to the connection and of several.
var bodies = map[string]int{"small": 5, "large": 40_000, "none": 0}

func respond(w http.ResponseWriter, req *http.Request) {
	io.WriteString(w, strings.Repeat("x", bodies[req.URL.Path[1:]]))
}

// As long as the client reads nothing, not even the settings can be written.
func TestHTTP2TasksStartOnceTheStreamHasEnded(t *testing.T) {
	for name := range bodies {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log := &ledger{}
				r := newRunner(t, background.Config{})
				c, stop := newH2(t, r, r.Middleware(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
					background.From(req.Context()).AddTask(log.task("task"))
					respond(w, req)
				})))
				defer stop()
				c.get(1, "/"+name)
				synctest.Wait()
				log.want(t)
				for f := (frame{}); !f.ends(1); {
					f = readFrame(t, c)
				}
				synctest.Wait()
				log.want(t, "task")
			})
		})
	}
}

// With a body of many writes, all but the last have returned.
func TestHTTP2TasksStartAtMostOneWriteEarly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &ledger{}
		r := newRunner(t, background.Config{})
		c, stop := newH2(t, r, r.Middleware(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			background.From(req.Context()).AddTask(log.task("task"))
			respond(w, req)
		})))
		defer stop()
		c.get(1, "/large")
		early := 0 // bytes that the client had not read when the task started
		var b [1]byte
		var got bytes.Buffer
		for {
			synctest.Wait()
			if len(log.all()) > 0 {
				early++
			}
			if _, err := io.ReadFull(c, b[:]); err != nil {
				t.Fatal(err)
			}
			got.Write(b[:])
			if ended(got.Bytes(), 1) {
				break
			}
		}
		if early > 4096 { // the buffer that the last write writes
			t.Errorf("the task started %d bytes before the end", early)
		}
		synctest.Wait()
		log.want(t, "task")
	})
}

// ended reports whether the last complete frame in b ends the stream.
func ended(b []byte, stream uint32) bool {
	for len(b) >= 9 {
		n := 9 + (int(b[0])<<16 | int(b[1])<<8 | int(b[2]))
		if len(b) < n {
			return false
		}
		f := frame{kind: b[3], flags: b[4], stream: binary.BigEndian.Uint32(b[5:])}
		if f.ends(stream) {
			return true
		}
		b = b[n:]
	}
	return false
}

func TestHTTP2StreamsDoNotWaitForEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &ledger{}
		r := newRunner(t, background.Config{})
		leave := make(chan struct{})
		c, stop := newH2(t, r, r.Middleware(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			background.From(req.Context()).AddTask(log.task(req.URL.Path))
			if req.URL.Path == "/open" {
				w.(http.Flusher).Flush()
				<-leave
			}
		})))
		defer stop()
		c.get(1, "/open")
		c.get(3, "/small")
		for f := (frame{}); !f.ends(3); {
			f = readFrame(t, c)
		}
		synctest.Wait()
		log.want(t, "/small")
		close(leave)
		for f := (frame{}); !f.ends(1); {
			f = readFrame(t, c)
		}
		synctest.Wait()
		log.want(t, "/small", "/open")
	})
}

func TestHTTP2TasksOfAStreamThatTheClientResetStillRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &ledger{}
		r := newRunner(t, background.Config{})
		c, stop := newH2(t, r, r.Middleware(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			background.From(req.Context()).AddTask(log.task("task"))
			w.(http.Flusher).Flush()
			<-req.Context().Done()
		})))
		defer stop()
		c.get(1, "/small")
		for f := (frame{}); f.kind != frameHeaders; {
			f = readFrame(t, c)
		}
		c.send(frame{kind: 3, stream: 1, body: []byte{0, 0, 0, 8}}) // RST_STREAM, CANCEL
		synctest.Wait()
		log.want(t, "task")
	})
}

func TestHTTP2AlwaysTasksRunAfterAPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &ledger{}
		r := newRunner(t, background.Config{})
		c, stop := newH2(t, r, r.Middleware(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			background.From(req.Context()).AddTask(log.task("mail"))
			background.From(req.Context()).Always(log.task("audit"))
			panic("no")
		})))
		defer stop()
		c.get(1, "/small")
		for f := (frame{}); f.kind != 3; {
			f = readFrame(t, c)
		}
		synctest.Wait()
		log.want(t, "audit")
	})
}

func TestHTTP2BytesAreThoseWithoutARunner(t *testing.T) {
	for name := range bodies {
		var want, got []byte
		for _, with := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				h, r := http.Handler(http.HandlerFunc(respond)), (*background.Runner)(nil)
				if with {
					r = newRunner(t, background.Config{})
					h = r.Middleware(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
						background.From(req.Context()).Add("task", func(context.Context) error { return nil })
						respond(w, req)
					}))
				}
				c, stop := newH2(t, r, h)
				defer stop()
				synctest.Wait() // the preface is settled
				c.get(1, "/"+name)
				var raw []byte
				for f := (frame{}); !f.ends(1); {
					f = readFrame(t, c)
					if f.stream == 1 {
						raw = append(raw, f.bytes()...)
					}
				}
				want, got = got, raw
			})
		}
		if !bytes.Equal(want, got) {
			t.Errorf("%s: the bytes differ from those without a runner:\n%q\n%q", name, got, want)
		}
	}
}

// Over TLS the frames cannot be watched from outside; the handler's return and
// the writes to the socket can.
func TestHTTP2OverTLS(t *testing.T) {
	for name := range bodies {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			log := &ledger{}
			r := newRunner(t, background.Config{})
			srv := httptest.NewUnstartedServer(r.Middleware(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
				background.From(req.Context()).AddTask(log.task("task"))
				respond(w, req)
				log.add("returned")
			})))
			srv.EnableHTTP2 = true
			srv.Listener = &slowListener{Listener: srv.Listener, delay: 20 * time.Millisecond, log: log}
			r.Configure(srv.Config)
			srv.StartTLS()
			defer srv.Close()
			resp, err := srv.Client().Get(srv.URL + "/" + name)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if n, err := io.Copy(io.Discard, resp.Body); err != nil || int(n) != bodies[name] || resp.ProtoMajor != 2 {
				t.Fatalf("got %d bytes over %s, %v", n, resp.Proto, err)
			}
			if err := r.Drain(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := startsLate(log.all()); err != nil {
				t.Error(err)
			}
		})
	}
}

// startsLate checks that the task starts after the handler's return, with no
// more than the flush of the stream's end to come.
func startsLate(lines []string) error {
	all := strings.Join(lines, " ")
	_, after, ok := strings.Cut(all, "returned")
	before, after, started := strings.Cut(after, "task")
	if !ok || !started || strings.Count(after, "write") > 1 {
		return fmt.Errorf("%d writes between return and task, then %d: %q", strings.Count(before, "write"), strings.Count(after, "write"), lines)
	}
	return nil
}
