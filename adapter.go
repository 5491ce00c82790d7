package wake

import (
	"context"
	"io"
	"mime/multipart"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/wake-go/wake/background"
	"github.com/wake-go/wake/durable"
)

// An adapter connects Huma to the host's mux. Huma's own one would do, but for
// two things: a request has to find its task list and its instance, and a
// router's middleware belongs around its operations.
type adapter host

// operationKey is the key under which an operation's metadata carry what Wake
// knows of it.
const operationKey = "wake"

func (a *adapter) ServeHTTP(w http.ResponseWriter, r *http.Request) { (*host)(a).ServeHTTP(w, r) }

func (a *adapter) Handle(op *huma.Operation, handler func(huma.Context)) {
	meta, _ := op.Metadata[operationKey].(*operation)
	if a.api == nil { // one of Huma's own pages
		handler = primed(op, handler)
	}
	if meta == nil { // registered with Huma itself
		meta = &operation{host: (*host)(a), foreign: true, around: func(h http.Handler) http.Handler { return h }}
	}
	if !meta.foreign {
		checkPath(op)
	}
	h := http.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		meta.serve(op, w, r, handler)
	}))
	(*host)(a).handle(strings.ToUpper(op.Method)+" "+op.Path, meta.around(h))
}

// primed calls a page of Huma's once before it serves requests: they fill a
// cache without a lock.
func primed(op *huma.Operation, page func(huma.Context)) func(huma.Context) {
	var once sync.Once
	return func(ctx huma.Context) {
		once.Do(func() {
			page(humago.NewContext(op, &http.Request{Header: http.Header{}}, &statusRecorder{header: http.Header{}}))
		})
		page(ctx)
	}
}

// humaContext gives the embedded field a name that is not that of a method.
type humaContext = huma.Context

// A request is one call of an operation. It is Huma's context for it, and
// carries Go's.
type request struct {
	humaContext
	ctx      requestContext
	r        *http.Request
	w        http.ResponseWriter
	in       *instance
	tasks    *background.Tasks
	outbox   Outbox
	body     *limitedBody
	response Response
	wrote    bool                  // the answer has begun
	fault    bool                  // what Huma takes for a bad input is a fault of the program
	answered bool                  // it is settled: Huma has nothing to add
	failed   atomic.Pointer[error] // found while the operation ran, with no way to tell it
	ended    atomic.Bool           // the operation has: what runs now is a task, or late

	contentType [1]string // the value of the answer's header
}

// A requestContext finds its request again.
type requestContext struct {
	context.Context
	req *request
}

type requestKey struct{}

// Value also answers for what package durable would put around the context.
func (c *requestContext) Value(key any) any {
	switch key.(type) {
	case requestKey:
		return c.req
	case durable.QueueKey:
		return c.req.in.queue
	case durable.PendingKey:
		return c.req.outbox.pending
	case durable.MetaKey:
		return c.req.meta()
	}
	return c.Context.Value(key)
}

func requestOf(ctx context.Context) *request {
	req, _ := ctx.Value(requestKey{}).(*request)
	if req != nil && req.ended.Load() {
		return nil // a task has its request's values, but is none
	}
	return req
}

// end makes what comes from now on a task, or late.
func (r *request) end() {
	r.ended.Store(true)
	r.outbox.seal()
}

// fail makes the operation fail, whatever it returns.
func (r *request) fail(err error) { r.failed.CompareAndSwap(nil, &err) }

// failure returns what fail was told.
func (r *request) failure() error {
	if err := r.failed.Load(); err != nil {
		return *err
	}
	return nil
}

func newRequest(op *huma.Operation, in *instance, w http.ResponseWriter, r *http.Request) *request {
	req := &request{r: r, w: w, in: in, tasks: background.From(r.Context())}
	req.humaContext = humago.NewContext(op, r, w)
	req.ctx = requestContext{r.Context(), req}
	req.outbox.in, req.outbox.req = in, req
	req.body, _ = r.Body.(*limitedBody)
	return req
}

// Context returns the operation's context.
func (r *request) Context() context.Context { return &r.ctx }

// Unwrap lets Huma's adapters find the request and the response writer.
func (r *request) Unwrap() huma.Context { return r.humaContext }

// GetMultipartForm takes a request without a body for an empty form, so that a
// form none of whose fields is required may be left out.
func (r *request) GetMultipartForm() (*multipart.Form, error) {
	if !strings.HasPrefix(r.r.Header.Get("Content-Type"), "multipart/") && r.hasNoBody() {
		return &multipart.Form{}, nil
	}
	return r.humaContext.GetMultipartForm()
}

// hasNoBody finds out about a chunked body by reading from it.
func (r *request) hasNoBody() bool {
	if r.body == nil {
		return true
	}
	n, err := io.ReadFull(r.body, make([]byte, 1))
	return n == 0 && err == io.EOF
}

// SetReadDeadline leaves the time that a body may take to limitedBody.
func (r *request) SetReadDeadline(time.Time) error { return nil }

// SetStatus corrects the status of a body that could not be read: Huma takes
// a form for an invalid one, and anything else for a fault of the server.
//
// After an answer of Wake's own it does nothing: Huma sets a status at the end
// of an operation that has returned nothing to it.
func (r *request) SetStatus(code int) {
	if r.answered {
		return
	}
	if unread := r.body.problem(); unread != nil && code >= 400 {
		code = unread.Status
	}
	if r.fault {
		code = http.StatusInternalServerError
	}
	r.wrote = true
	r.humaContext.SetStatus(code)
}
