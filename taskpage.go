package wake

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/wake-go/wake/durable"
)

// A TaskView is what [ServeTasks] shows of a task: neither its argument nor the
// text of an error.
type TaskView struct {
	ID         string          `json:"id" format:"uuid"`
	Kind       string          `json:"kind"`
	State      string          `json:"state" enum:"ready,running,scheduled,held,blocked,succeeded,dead,cancelled"`
	Progress   *TaskProgress   `json:"progress,omitempty"`
	Result     json.RawMessage `json:"result,omitempty" doc:"What the task has returned."`
	Error      string          `json:"error,omitempty" doc:"Why there is no result."`
	Attempt    int             `json:"attempt"`
	CreatedAt  time.Time       `json:"created_at"`
	RunAt      time.Time       `json:"run_at" doc:"It does not run before."`
	FinishedAt *time.Time      `json:"finished_at,omitempty"`
}

// TaskProgress is how far a task has come.
type TaskProgress struct {
	Done    int    `json:"done"`
	Total   int    `json:"total"`
	Message string `json:"message,omitempty"`
}

// Errors that a TaskView shows instead of a task's own.
const (
	viewDead      = "The task has failed."
	viewCancelled = "The task was cancelled."
)

func viewOf(t *durable.Task, asked durable.ID) TaskView {
	v := TaskView{
		ID: asked.String(), Kind: t.Kind, State: t.State.String(), Attempt: t.Attempt, CreatedAt: t.CreatedAt, RunAt: t.RunAt,
	}
	if p := t.Progress; p != nil {
		v.Progress = &TaskProgress{p.Done, p.Total, p.Message}
	}
	if !t.State.Finished() {
		return v
	}
	v.FinishedAt = &t.FinishedAt
	switch t.State {
	case durable.Succeeded:
		v.Result = t.Result
	case durable.Dead:
		v.Error = viewDead
	case durable.Cancelled:
		v.Error = viewCancelled
	}
	return v
}

// Accepted answers that work has been accepted, and where its task is to be
// found: status 202, and the header Location with the path, in which {id} is
// replaced. The id is what the operation's Queue.Add has returned. For a client
// to whom the application is known under another path, give that.
func Accepted(r *Response, path string, id durable.ID) {
	r.Status(http.StatusAccepted)
	r.Header().Set("Location", strings.ReplaceAll(path, "{id}", id.String()))
}

type taskInput struct {
	ID string `path:"id" maxLength:"64" doc:"The task's id."`
}

// watchLimit is how long a stream follows a task.
const watchLimit = time.Hour

// ServeTasks registers GET for path, which has to contain {id}, to show tasks
// of the queue as a [TaskView] in JSON, or, to a client that accepts
// text/event-stream, as events "task", one whenever it changes, until it has
// finished. A stream ends after an hour, and when the application begins to
// stop: its client asks again.
//
// Allow decides who may see which task: by its Meta.Owner, see
// [durable.Job.Owner], its kind, or by knowing the id, which cannot be guessed.
// It is called for each request, and again by a stream for each event. A task
// that it does not allow is answered like one that does not exist: 404. A nil
// allow panics.
//
// The result is shown as it was stored: return from a task only what may be
// seen.
func ServeTasks[S any](to Routes[S], path string, allow func(context.Context, Call[S], *durable.Task) bool, ops ...Op) {
	if allow == nil {
		panic(fmt.Sprintf("wake: ServeTasks at %q has no function that says who may see a task", path))
	}
	if !strings.Contains(path, "{id}") {
		panic(fmt.Sprintf("wake: ServeTasks at %q; the path needs {id}, as in /tasks/{id}", path))
	}
	ops = append([]Op{Summary("Show a task"), Errors(http.StatusNotFound)}, ops...)
	to.router().add(func(m mount[S]) {
		op := m.operation(http.MethodGet, path, reflect.ValueOf(allow), ops)
		encode := encoderOf[TaskView](op)
		op.Responses["200"].Content["text/event-stream"] = &huma.MediaType{Schema: &huma.Schema{
			Type: huma.TypeString, Description: "Events \"task\", whose data is what the JSON answer would be.",
		}}
		m.register(op, func() {
			huma.Register(m.host.api, op.Operation, func(ctx context.Context, in *taskInput) (*reply, error) {
				req := requestOf(ctx)
				call := newCall(m, req)
				p := taskPage[S]{op: op, call: call, allow: allow, encode: encode}
				return p.serve(ctx, req, in.ID)
			})
		})
	})
}

// A taskPage answers one request for a task.
type taskPage[S any] struct {
	op     *operation
	call   Call[S]
	allow  func(context.Context, Call[S], *durable.Task) bool
	encode encoder[TaskView]
}

// noTask is also the answer for a task that the client may not see.
func noTask() error { return &Error{Status: http.StatusNotFound, Detail: "There is no such task."} }

func (p *taskPage[S]) serve(ctx context.Context, req *request, text string) (*reply, error) {
	id, err := durable.ParseID(text)
	if err != nil {
		return nil, p.op.fail(ctx, req, noTask())
	}
	if req.in.queue == nil {
		return nil, p.op.fail(ctx, req, fmt.Errorf("show a task: %w", errNoQueue))
	}
	task, err := p.look(ctx, req, id)
	if err != nil {
		return nil, p.op.fail(ctx, req, err)
	}
	req.w.Header().Set("Cache-Control", "no-store")
	req.w.Header().Set("Vary", "Accept")
	if strings.Contains(req.r.Header.Get("Accept"), "text/event-stream") {
		return p.stream(req, id), nil
	}
	answer, err := p.encode(viewOf(task, id))
	if err != nil {
		return nil, p.op.fail(ctx, req, err)
	}
	answer.send(req)
	return nil, nil // see request.SetStatus
}

// look returns a task that the client may see.
func (p *taskPage[S]) look(ctx context.Context, req *request, id durable.ID) (*durable.Task, error) {
	task, err := req.in.queue.Get(ctx, id)
	switch {
	case errors.Is(err, durable.ErrNotFound):
		return nil, noTask()
	case err != nil:
		return nil, fmt.Errorf("show task %v: %w", id, err)
	case !p.allow(ctx, p.call, task):
		return nil, noTask()
	}
	return task, nil
}

// stream follows a task.
func (p *taskPage[S]) stream(req *request, id durable.ID) *reply {
	return &reply{func(hc huma.Context) {
		s := &stream{req: req}
		err := s.run(func(ctx context.Context) error {
			ctx, cancel := context.WithTimeoutCause(ctx, watchLimit, errWatchLimit)
			defer cancel()
			for task, err := range req.in.queue.Watch(ctx, id) {
				if err != nil {
					return watchEnd(ctx, err)
				}
				if !p.allow(ctx, p.call, task) {
					return nil
				}
				if err := s.send(Event{Name: "task", Data: viewOf(task, id)}); err != nil {
					return err
				}
			}
			return nil
		})
		p.op.endStream(hc, s, err)
	}}
}

var errWatchLimit = errors.New("wake: the stream has told of its task for as long as a stream may")

// watchEnd tells an ordinary end of a stream from a failure.
func watchEnd(ctx context.Context, err error) error {
	if ctx.Err() != nil || errors.Is(err, durable.ErrNotFound) {
		return nil // it has been pruned
	}
	return err
}
