package wake_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wake-go/wake"
	"github.com/wake-go/wake/lifespan"
	"github.com/wake-go/wake/waketest"
)

// A world is the state of the applications under test: it knows what happened.
type world struct {
	mu       sync.Mutex
	happened []string
}

func (w *world) note(what string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.happened = append(w.happened, what)
}

func (w *world) all() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.happened)
}

func (w *world) expect(t *testing.T, want ...string) {
	t.Helper()
	if got := w.all(); !slices.Equal(got, want) {
		t.Errorf("happened: %q, want %q", got, want)
	}
}

// noted is a task that notes its argument, failing one that fails with it.
var (
	noted = wake.Define("noted", func(_ context.Context, w *world, what string) error {
		w.note(what)
		return nil
	})
	failing = wake.Define("failing", func(_ context.Context, w *world, what string) error {
		w.note(what)
		return errors.New(what)
	})
)

type none struct{}

type textAnswer struct {
	Text string `json:"text"`
}

// newWorld makes an application and its state.
func newWorld(opts ...wake.Option) (*wake.App[*world], *world) {
	w := &world{}
	return wake.New("World", "1.0", lifespan.Fixed(w), opts...), w
}

// A logbook is a logger that remembers.
type logbook struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logbook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logbook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *logbook) option() wake.Option {
	return wake.Logger(slog.New(slog.NewJSONHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug})))
}

// line returns the first record with a message, decoded.
func (l *logbook) line(t *testing.T, message string) map[string]any {
	t.Helper()
	for line := range strings.Lines(l.String()) {
		var record map[string]any
		if err := json.Unmarshal([]byte(line), &record); err != nil {
			t.Fatalf("log line %q: %v", line, err)
		}
		if record["msg"] == message {
			return record
		}
	}
	t.Fatalf("the log has no line %q:\n%s", message, l)
	return nil
}

// A problemDoc is a problem document.
type problemDoc struct {
	Status   int    `json:"status"`
	Title    string `json:"title"`
	Detail   string `json:"detail"`
	Instance string `json:"instance"`
	Errors   []struct {
		Message  string `json:"message"`
		Location string `json:"location"`
		Value    any    `json:"value"`
	} `json:"errors"`
}

// problemOf checks that an answer is a problem document with a status.
func problemOf(t *testing.T, res *waketest.Response, status int) problemDoc {
	t.Helper()
	var p problemDoc
	if res.Status != status {
		t.Fatalf("got %v, want status %d", res, status)
	}
	if ct := res.Header.Get("Content-Type"); ct != "application/problem+json" {
		t.Errorf("%v has Content-Type %q, want a problem document", res, ct)
	}
	res.JSON(&p)
	if p.Status != status || p.Title != http.StatusText(status) {
		t.Errorf("problem %+v does not repeat status %d", p, status)
	}
	return p
}

func expectStatus(t *testing.T, res *waketest.Response, status int) {
	t.Helper()
	if res.Status != status {
		t.Errorf("got %v, want status %d", res, status)
	}
}

// expectPanic runs f and checks what it panics with.
func expectPanic(t *testing.T, f func(), parts ...string) {
	t.Helper()
	defer func() {
		t.Helper()
		v := recover()
		if v == nil {
			t.Errorf("no panic; want one with %q", parts)
			return
		}
		text, ok := v.(string)
		if !ok {
			t.Errorf("panic with %T %v, want a sentence", v, v)
			return
		}
		for _, part := range parts {
			if !strings.Contains(text, part) {
				t.Errorf("panic %q does not contain %q", text, part)
			}
		}
	}()
	f()
}

// A wire is an application that is served on a socket.
type wire struct {
	t     *testing.T
	addr  string
	ended chan error
	stop  context.CancelFunc
	err   func() error
}

// serveOnWire runs an application on a socket until the test ends.
func serveOnWire[S any](t *testing.T, app *wake.App[S], opts ...wake.Option) *wire {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	w := &wire{t: t, addr: l.Addr().String(), ended: make(chan error, 1), stop: stop}
	ready := make(chan struct{})
	opts = slices.Concat([]wake.Option{
		wake.Logger(slog.New(slog.NewTextHandler(t.Output(), nil))),
		wake.OnEvent(func(e lifespan.Event) {
			if p, ok := e.(lifespan.PhaseChanged); ok && p.To == lifespan.Ready {
				close(ready)
			}
		}),
	}, opts, []wake.Option{wake.Listener(l)})
	go func() { w.ended <- app.Run(ctx, opts...) }()
	w.err = sync.OnceValue(func() error { return <-w.ended })
	t.Cleanup(func() {
		stop()
		if err := w.err(); err != nil {
			t.Errorf("the application ended with %v", err)
		}
	})
	select {
	case <-ready:
	case err := <-w.ended:
		w.ended <- err
		t.Fatalf("the application did not start: %v", err)
	}
	return w
}

// end stops the application and waits until its last task has ended.
func (w *wire) end() error {
	w.stop()
	return w.err()
}

// dial opens a connection for raw bytes, with a limit for the whole test.
func (w *wire) dial() net.Conn {
	w.t.Helper()
	c, err := net.Dial("tcp", w.addr)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		w.t.Fatal(err)
	}
	return c
}

// talk sends raw bytes and returns all that comes back until the server closes.
func (w *wire) talk(request string) string {
	w.t.Helper()
	c := w.dial()
	if _, err := io.WriteString(c, strings.ReplaceAll(request, "\n", "\r\n")); err != nil {
		w.t.Fatal(err)
	}
	got, err := io.ReadAll(c)
	if err != nil {
		w.t.Fatalf("read the answer to %q: %v\n%s", request, err, got)
	}
	return string(got)
}

// wait waits for something that must happen.
func wait[T any](t *testing.T, c <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(20 * time.Second):
		t.Fatalf("%s did not happen", what)
		panic("unreachable")
	}
}
