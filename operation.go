package wake

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"reflect"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"unicode"

	"github.com/danielgtaylor/huma/v2"

	"github.com/wake-go/wake/background"
)

// An Op is an option of one operation.
type Op func(*operation)

// An operation is what Wake knows of a route besides its handler.
type operation struct {
	huma.Operation
	host      *host
	bodyLimit int64
	foreign   bool
	around    func(http.Handler) http.Handler

	// shedding is the lane that this operation last found full. While it is
	// full the operation is refused at the door, before it has side effects.
	shedding atomic.Pointer[string]
}

// Summary sets the operation's title in the OpenAPI document. Defaults to the
// name of its function.
func Summary(text string) Op { return func(o *operation) { o.Summary = text } }

// Describe describes the operation in the OpenAPI document, in Markdown.
func Describe(text string) Op { return func(o *operation) { o.Operation.Description = text } }

// Tags groups the operation in the OpenAPI document.
func Tags(tags ...string) Op { return func(o *operation) { o.Tags = append(o.Tags, tags...) } }

// Status sets the status of a successful answer. Defaults to 200, and to 204
// where the output is an empty struct. A number that is no status panics.
func Status(code int) Op {
	checkStatus(code)
	return func(o *operation) { o.DefaultStatus = code }
}

// BodyLimit limits the request's body, in bytes, multipart included. Defaults
// to [DefaultBodyLimit]. A limit that is not positive panics.
func BodyLimit(bytes int64) Op {
	if bytes <= 0 {
		panic(fmt.Sprintf("wake: BodyLimit is %d; it must be a positive number of bytes", bytes))
	}
	return func(o *operation) { o.bodyLimit = bytes }
}

// Errors lists the error statuses of the operation in the OpenAPI document.
func Errors(codes ...int) Op {
	return func(o *operation) { o.Operation.Errors = append(o.Operation.Errors, codes...) }
}

// Security says in the OpenAPI document that the operation needs one of the
// schemes, see [SecurityScheme]; one that was not declared panics.
func Security(schemes ...string) Op {
	return func(o *operation) {
		for _, name := range schemes {
			o.Operation.Security = append(o.Operation.Security, map[string][]string{name: {}})
		}
	}
}

// Hidden leaves the operation out of the OpenAPI document.
func Hidden() Op { return func(o *operation) { o.Operation.Hidden = true } }

// Huma changes anything else that Huma knows of an operation.
func Huma(change func(*huma.Operation)) Op { return func(o *operation) { change(&o.Operation) } }

// A Handler is an operation: from the request's input to the answer's body.
type Handler[S, I, O any] = func(context.Context, *I, Call[S]) (O, error)

// Get registers an operation for GET, and so for HEAD.
//
// The fields of I are bound and validated by their tags (path, query, header,
// cookie, a field Body for JSON, RawBody for multipart forms), see Huma's
// documentation. The output is encoded as JSON; package wake's documentation
// has the other kinds of answers. A mistake in the types or the path panics.
func Get[S, I, O any](to Routes[S], path string, handler Handler[S, I, O], ops ...Op) {
	register(to, http.MethodGet, path, handler, ops)
}

// Post registers an operation for POST, see [Get].
func Post[S, I, O any](to Routes[S], path string, handler Handler[S, I, O], ops ...Op) {
	register(to, http.MethodPost, path, handler, ops)
}

// Put registers an operation for PUT, see [Get].
func Put[S, I, O any](to Routes[S], path string, handler Handler[S, I, O], ops ...Op) {
	register(to, http.MethodPut, path, handler, ops)
}

// Patch registers an operation for PATCH, see [Get].
func Patch[S, I, O any](to Routes[S], path string, handler Handler[S, I, O], ops ...Op) {
	register(to, http.MethodPatch, path, handler, ops)
}

// Delete registers an operation for DELETE, see [Get].
func Delete[S, I, O any](to Routes[S], path string, handler Handler[S, I, O], ops ...Op) {
	register(to, http.MethodDelete, path, handler, ops)
}

// A reply is what Huma is told of an answer: that Wake writes it.
type reply struct {
	Body func(huma.Context)
}

func register[S, I, O any](to Routes[S], method, path string, handler Handler[S, I, O], ops []Op) {
	if handler == nil {
		panic(fmt.Sprintf("wake: %s %s has no function to handle it", method, path))
	}
	to.router().add(func(m mount[S]) {
		op := m.operation(method, path, reflect.ValueOf(handler), ops)
		var encode encoder[O]
		call := func(ctx context.Context, in *I) (*reply, error) {
			req := requestOf(ctx)
			call := newCall(m, req)
			out, err := handler(ctx, in, call)
			if err != nil {
				return nil, op.fail(ctx, req, err)
			}
			if err := cmp.Or(req.tasks.Err(), req.failure()); err != nil {
				return nil, op.fail(ctx, req, err) // a full lane: the answer does not count
			}
			answer, err := encode(out)
			if err != nil {
				return nil, op.fail(ctx, req, err)
			}
			if err := req.outbox.commit(ctx); err != nil {
				return nil, op.fail(ctx, req, err)
			}
			if err := req.tasks.Commit(); err != nil {
				return nil, op.fail(ctx, req, err)
			}
			answer.send(req)
			return nil, nil // see request.SetStatus
		}
		m.register(op, func() {
			checkInput(reflect.TypeFor[I]())
			encode = encoderOf[O](op)
			huma.Register(m.host.api, op.Operation, call)
		})
	})
}

// operation gathers what is known of a route before its types are looked at.
func (m mount[S]) operation(method, path string, handler reflect.Value, ops []Op) *operation {
	op := &operation{host: m.host, around: m.around}
	op.Method, op.Path = method, m.prefix+path
	op.Summary = summaryOf(handler)
	op.OperationID = m.host.uniqueID(huma.GenerateOperationID(method, op.Path, reply{}))
	op.Responses = map[string]*huma.Response{}
	for _, set := range ops {
		set(op)
	}
	m.host.checkSchemes(op)
	// limitedBody has these limits, for every kind of body.
	op.MaxBodyBytes, op.BodyReadTimeout = -1, -1
	if op.Metadata == nil {
		op.Metadata = map[string]any{}
	}
	op.Metadata[operationKey] = op
	return op
}

// register adds the method and path to what Huma panics with.
func (m mount[S]) register(op *operation, huma func()) {
	defer func() {
		if v := recover(); v != nil {
			panic(fmt.Sprintf("wake: %s %s: %v", op.Method, op.Path, v))
		}
	}()
	huma()
}

// summaryOf makes a title from the name of a function: "Send welcome mail"
// for sendWelcomeMail.
func summaryOf(handler reflect.Value) string {
	name := runtime.FuncForPC(handler.Pointer()).Name()
	name = strings.TrimSuffix(name[strings.LastIndex(name, ".")+1:], "-fm")
	if strings.HasPrefix(name, "func") && len(name) > 4 && unicode.IsDigit(rune(name[4])) {
		return "" // a closure
	}
	var b strings.Builder
	for i, c := range name {
		switch {
		case i == 0:
			b.WriteRune(unicode.ToUpper(c))
		case unicode.IsUpper(c):
			b.WriteByte(' ')
			b.WriteRune(unicode.ToLower(c))
		default:
			b.WriteRune(c)
		}
	}
	return b.String()
}

// serve runs Huma's part of an operation: binding, validation, the handler.
func (o *operation) serve(op *huma.Operation, w http.ResponseWriter, r *http.Request, handler func(huma.Context)) {
	in := instanceFrom(r.Context())
	req := newRequest(op, in, w, r)
	defer req.end()
	if o.foreign {
		defer in.recoverPanic(w, r, &req.wrote)
		handler(req)
		if req.Status() >= 400 {
			req.tasks.Discard()
		}
		return
	}
	req.tasks.Hold()
	if o.refuse(req) {
		return
	}
	defer in.recoverPanic(w, r, &req.wrote)
	defer removeForm(r)
	handler(req)
}

// removeForm deletes the files of a multipart form: net/http does it too, but
// after the tasks of a slow client have begun to wait.
func removeForm(r *http.Request) {
	if r.MultipartForm != nil {
		_ = r.MultipartForm.RemoveAll() // a file that stays is the temporary folder's to clean
	}
}

// refuse answers what need not reach the handler.
func (o *operation) refuse(req *request) bool {
	if req.body != nil {
		if o.bodyLimit > 0 {
			req.body.limit = o.bodyLimit
		}
		if req.r.ContentLength > req.body.limit {
			req.w.Header().Set("Connection", "close") // the body stays unread
			writeProblem(req.w, bodyTooLarge(req.body.limit))
			return true
		}
	}
	lane := o.shedding.Load()
	if lane == nil {
		return false
	}
	if !req.in.bg.Full(*lane) {
		o.shedding.CompareAndSwap(lane, nil)
		return false
	}
	req.w.Header().Set("Retry-After", retryAfter)
	writeProblem(req.w, newProblem(http.StatusServiceUnavailable, detailBusy))
	return true
}

// fail drops the operation's tasks and turns its error into what the client
// is shown.
func (o *operation) fail(ctx context.Context, req *request, err error) error {
	req.tasks.Discard()
	req.outbox.seal()
	if full, ok := req.tasks.Err().(*background.FullError); ok {
		o.shedding.Store(&full.Lane)
		err = full // what the operation made of its cancelled context does not matter
	}
	if clientGone(ctx, err) {
		return newProblem(499, "The client has gone.")
	}
	if cause := context.Cause(ctx); cause == ErrDraining {
		err = fmt.Errorf("%w: %w", cause, err)
	}
	model, header, logged := problem(err)
	if logged {
		logFor(ctx).Error("operation failed", "operation", o.Method+" "+o.Path, "status", model.Status, "error", err)
	}
	if model.Status >= 500 {
		model.Instance = instanceOf(ctx)
	}
	if len(header) > 0 {
		return huma.ErrorWithHeaders(model, header)
	}
	return model
}

// An encoder makes an answer, before anything is promised.
type encoder[O any] func(out O) (answer, error)

func encoderOf[O any](op *operation) encoder[O] {
	t := reflect.TypeFor[O]()
	if op.DefaultStatus == 0 {
		op.DefaultStatus = http.StatusOK
		if t.Kind() == reflect.Struct && t.NumField() == 0 {
			op.DefaultStatus = http.StatusNoContent
		}
	}
	status := op.DefaultStatus
	documented := &huma.Response{Description: http.StatusText(status)}
	op.Responses[strconv.Itoa(status)] = documented
	switch {
	case t.Implements(reflect.TypeFor[http.Handler]()):
		return func(out O) (answer, error) { return handlerAnswer(any(out)) }
	case status == http.StatusNoContent:
		return func(O) (answer, error) { return answer{status: status}, nil }
	case t == reflect.TypeFor[[]byte]():
		documented.Content = map[string]*huma.MediaType{"application/octet-stream": {Schema: &huma.Schema{Type: "string", Format: "binary"}}}
		return func(out O) (answer, error) {
			return answer{status: status, contentType: "application/octet-stream", body: any(out).([]byte)}, nil
		}
	}
	schema := op.host.api.OpenAPI().Components.Schemas.Schema(t, true, op.OperationID+"Response")
	documented.Content = map[string]*huma.MediaType{"application/json": {Schema: schema}}
	return func(out O) (answer, error) { return op.host.json.answer(status, out) }
}
