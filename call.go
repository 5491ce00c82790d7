package wake

import (
	"context"
	"fmt"
	"net/http"
	"reflect"

	"github.com/wake-go/wake/background"
)

// A Call is what an operation is given besides its input.
type Call[S any] struct {
	// State is what the lifespan yielded, or what Include made of it.
	State S

	// Tasks takes the tasks to run after the response.
	Tasks *Tasks[S]

	// Queue takes the tasks to be on disk before the response, and to be run at
	// least once.
	Queue *Outbox

	// Request is the request; nil in a task, and what [From] returns in
	// middleware and mounted handlers, which have it. Its body has been read.
	Request *http.Request

	// Response sets status, headers and cookies of a successful answer; nil
	// where Request is.
	Response *Response
}

func newCall[S any](m mount[S], req *request) Call[S] {
	c := Call[S]{State: m.state(req.in), Queue: &req.outbox, Request: req.r, Response: &req.response}
	c.Tasks = &Tasks[S]{list: req.tasks, state: c.State, included: m.included, in: req.in, req: req}
	return c
}

// From returns the call that ctx belongs to: for middleware, dependencies and
// mounted handlers, which are not given one, and for tasks, whose Tasks run
// after those of the request that are already there.
//
// It panics where there is no call, or where the state has another type than S.
func From[S any](ctx context.Context) Call[S] {
	in := instanceFrom(ctx)
	if in == nil || in.state == nil {
		panic(fmt.Sprintf("wake: From[%v] needs the context of a request or a task of a running application", reflect.TypeFor[S]()))
	}
	var c Call[S]
	included := false
	if s, ok := ctx.Value(stateKey{}).(*stateOf[S]); ok {
		c.State, included = s.state, true
	} else if s, ok := in.state.(*stateOf[S]); ok {
		c.State = s.state
	} else {
		panic(fmt.Sprintf("wake: From[%v]: the application's state is of type %v here", reflect.TypeFor[S](), reflect.TypeOf(in.state).Elem().Field(0).Type))
	}
	c.Tasks = &Tasks[S]{list: background.From(ctx), state: c.State, included: included, in: in, queued: attemptOf(ctx), ctx: ctx}
	if req := requestOf(ctx); req != nil {
		c.Tasks.req = req
		c.Queue, c.Request, c.Response = &req.outbox, req.r, &req.response
	} else {
		c.Queue = &Outbox{in: in, ctx: ctx}
	}
	return c
}

// Draining returns a channel that is closed when the application begins to
// stop: for handlers that have taken over their connection, and for loops. A
// [Stream] is told through its context. Outside an application it returns nil,
// which blocks for ever.
func Draining(ctx context.Context) <-chan struct{} {
	if in := applicationOf(ctx); in != nil {
		return in.drain.Done()
	}
	return nil
}

// Offload runs fn on the lane for computing and returns its result, so that
// work whose result the answer needs does not make other requests wait. When
// ctx ends it returns at once, and fn's result is dropped. A full lane is an
// error that is answered with 503. See [background.Offload].
func Offload[T any](ctx context.Context, fn func(context.Context) (T, error)) (T, error) {
	in := applicationOf(ctx)
	if in == nil {
		panic("wake: Offload needs the context of a request, a task or a lifespan function of an application")
	}
	return background.Offload(ctx, in.bg, fn)
}
