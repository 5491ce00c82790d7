package wake

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/wake-go/wake/durable"
)

const (
	// heartbeat keeps proxies from closing a quiet stream, and finds out that a
	// client has gone.
	heartbeat = 15 * time.Second

	// sendTimeout is how long a client may take to accept one event.
	sendTimeout = 10 * time.Second
)

// A StreamCall is what a stream's handler is given besides its input.
type StreamCall[S any] struct {
	// State is what the lifespan yielded, or what Include made of it.
	State S

	// Tasks takes tasks to run when the stream has ended. They take their
	// places in their lanes then, not while the stream is open.
	Tasks *Tasks[S]

	// Queue adds tasks at once: a stream answers before it ends. It is nil if
	// the application has none.
	Queue *durable.Queue

	// Request is the request.
	Request *http.Request

	// Send sends one event: an [Event], or any other value as an event's data.
	// It returns an error when the client has gone or does not read. The first
	// Send also sends the answer's header; nil does only that. It may be
	// called by several goroutines.
	Send func(any) error
}

// An Event is one server-sent event.
type Event struct {
	Name string        // the event's type; empty for "message"
	ID   string        // what a client that reconnects says it has seen last
	Data any           // encoded as JSON
	Wait time.Duration // how long a client should wait before it reconnects; 0: not said
}

// Stream registers an operation for GET that answers with server-sent events.
//
// Its context ends when the client goes and, with cause [ErrDraining], when
// the application begins to stop: return then. An error returned before the
// first Send is answered like that of any operation, a later one is logged.
// Returning the context's error, or that of Send, is an ordinary end: the
// client has gone.
func Stream[S, I any](to Routes[S], path string, handler func(context.Context, *I, StreamCall[S]) error, ops ...Op) {
	if handler == nil {
		panic(fmt.Sprintf("wake: stream %s has no function to handle it", path))
	}
	to.router().add(func(m mount[S]) {
		op := m.operation(http.MethodGet, path, reflect.ValueOf(handler), ops)
		op.DefaultStatus = http.StatusOK
		op.Responses["200"] = &huma.Response{
			Description: "A stream of server-sent events",
			Content:     map[string]*huma.MediaType{"text/event-stream": {Schema: &huma.Schema{Type: huma.TypeString}}},
		}
		m.register(op, func() {
			checkInput(reflect.TypeFor[I]())
			huma.Register(m.host.api, op.Operation, func(_ context.Context, in *I) (*reply, error) {
				return &reply{func(hc huma.Context) {
					s := &stream{req: requestOf(hc.Context())}
					s.req.tasks.Defer()
					err := s.run(func(ctx context.Context) error {
						call := newCall(m, s.req)
						return handler(ctx, in, StreamCall[S]{call.State, call.Tasks, s.req.in.queue, call.Request, s.send})
					})
					op.endStream(hc, s, err)
				}}, nil
			})
		})
	})
}

// A stream writes server-sent events.
type stream struct {
	req     *request
	mu      sync.Mutex
	started bool
	over    bool // the handler has returned

	headOnly func() // called when the header has been sent
	err      error  // of a write: the stream is dead
}

// run calls the handler with a context that also ends when the application
// drains, and sends heartbeats meanwhile.
func (s *stream) run(handler func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(s.req.Context())
	defer cancel(nil)
	defer context.AfterFunc(s.req.in.drain, func() { cancel(ErrDraining) })()
	// The server's limit is for whole answers. A stream's is for each event.
	_ = http.NewResponseController(s.req.w).SetWriteDeadline(time.Time{})

	var beats sync.WaitGroup
	defer beats.Wait()
	defer cancel(nil)
	beats.Go(func() {
		tick := time.NewTicker(heartbeat)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				if s.write(": \n\n") != nil {
					cancel(context.Canceled)
				}
			}
		}
	})
	err := s.handle(ctx, cancel, handler)
	if gone := s.failure(); gone != nil && errors.Is(err, gone) {
		return nil
	}
	if cause := context.Cause(ctx); err != nil && cause != nil && (errors.Is(err, cause) || errors.Is(err, ctx.Err())) {
		return nil
	}
	return err
}

// handle calls the handler. What it leaves behind can send nothing more: the
// answer is not its own any longer.
func (s *stream) handle(ctx context.Context, cancel context.CancelCauseFunc, handler func(context.Context) error) error {
	s.headOnly = func() {}
	if s.req.r.Method == http.MethodHead {
		s.headOnly = func() { cancel(errHeadOnly) } // there is nobody to stream to
	}
	defer func() {
		s.mu.Lock()
		s.over = true
		s.mu.Unlock()
	}()
	return handler(ctx)
}

var (
	errHeadOnly  = errors.New("wake: the header was all that the client asked for")
	errStreamEnd = errors.New("wake: send an event: the stream's handler has returned")
)

// endStream settles the stream's tasks, and its answer if there is none yet.
func (o *operation) endStream(hc huma.Context, s *stream, err error) {
	err = errors.Join(err, s.req.failure())
	if err == nil {
		if err = s.write(""); err == nil || s.started {
			err = s.req.tasks.Commit()
		}
	}
	switch {
	case err == nil:
	case !s.started:
		model := o.fail(hc.Context(), s.req, err)
		var with huma.HeadersError
		if errors.As(model, &with) {
			for name, values := range with.GetHeaders() {
				s.req.w.Header()[name] = values
			}
		}
		var shown *huma.ErrorModel
		if errors.As(model, &shown) {
			writeProblem(s.req.w, shown)
		}
	default:
		s.req.tasks.Discard()
		logFor(hc.Context()).Error("stream failed", "operation", o.Method+" "+o.Path, "error", err)
	}
}

// failure returns the error of the write that found the client gone.
func (s *stream) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

func (s *stream) send(v any) error {
	s.mu.Lock()
	over := s.over
	s.mu.Unlock()
	if over {
		return errStreamEnd
	}
	if v == nil {
		return s.write("")
	}
	e, ok := v.(Event)
	if !ok {
		e = Event{Data: v}
	}
	text, err := e.encode()
	if err != nil {
		return err
	}
	return s.write(text)
}

func (e Event) encode() (string, error) {
	if strings.ContainsAny(e.Name+e.ID, "\r\n\x00") {
		return "", fmt.Errorf("wake: event name %q or id %q contains a line break, which would end the field; take it out", e.Name, e.ID)
	}
	data, err := json.Marshal(e.Data)
	if err != nil {
		return "", fmt.Errorf("wake: encode the event %q: %w", e.Name, err)
	}
	var b strings.Builder
	if e.Name != "" {
		fmt.Fprintf(&b, "event: %s\n", e.Name)
	}
	if e.ID != "" {
		fmt.Fprintf(&b, "id: %s\n", e.ID)
	}
	if e.Wait > 0 {
		fmt.Fprintf(&b, "retry: %d\n", e.Wait.Milliseconds())
	}
	fmt.Fprintf(&b, "data: %s\n\n", data)
	return b.String(), nil
}

// write sends text, and the header before it, and waits until the client has
// taken it or sendTimeout has passed.
func (s *stream) write(text string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return s.err
	}
	w := http.NewResponseController(s.req.w)
	_ = w.SetWriteDeadline(time.Now().Add(sendTimeout)) // not supported in recorders
	if !s.started {
		s.start()
	}
	if _, err := s.req.w.Write([]byte(text)); err != nil {
		s.err = fmt.Errorf("wake: send an event: %w", err)
	} else if err := w.Flush(); err != nil && !errors.Is(err, http.ErrNotSupported) {
		s.err = fmt.Errorf("wake: send an event: %w", err)
	}
	_ = w.SetWriteDeadline(time.Time{})
	return s.err
}

func (s *stream) start() {
	s.started, s.req.wrote = true, true
	h := s.req.w.Header()
	for name, values := range s.req.response.header {
		h[name] = values
	}
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // nginx would hold events back
	s.req.w.WriteHeader(http.StatusOK)
	s.headOnly()
}
