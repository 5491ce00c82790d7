package wake

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/wake-go/wake/background"
)

// A TaskOption is an option of a task.
type TaskOption func(*taskInfo)

// Lane sets the lane a task runs in: "cpu" for work that computes, or one that
// [Background] configures. Defaults to "default", for work that waits.
func Lane(name string) TaskOption { return func(t *taskInfo) { t.lane = name } }

// Timeout sets a task's time limit, after which its context is cancelled.
// Defaults to 15 minutes, see [background.Config]; negative: none.
func Timeout(d time.Duration) TaskOption { return func(t *taskInfo) { t.timeout = d } }

type taskInfo struct {
	name    string
	lane    string
	timeout time.Duration
}

func newTaskInfo(name string, opts []TaskOption) taskInfo {
	if name == "" {
		panic("wake: a task needs a name: it is how logs and reports tell which one failed")
	}
	t := taskInfo{name: name}
	for _, set := range opts {
		set(&t)
	}
	return t
}

func (t *taskInfo) info() *taskInfo { return t }

// A Runnable is a task that an application with the state S can run: a [Task]
// or a [Task0].
type Runnable[S any] interface {
	info() *taskInfo
	call(ctx context.Context, state S, arg any) error
}

// A Task is a function that runs after a response, with a name that stays when
// the function is renamed.
type Task[S, A any] struct {
	taskInfo
	run func(context.Context, S, A) error
}

// Define declares a task with one argument. A nil function or an empty name
// panics.
//
// The argument of a task in memory is the value itself: what a pointer, slice
// or map refers to is shared with the operation.
func Define[S, A any](name string, run func(context.Context, S, A) error, opts ...TaskOption) *Task[S, A] {
	t := &Task[S, A]{newTaskInfo(name, opts), run}
	if run == nil {
		panic(fmt.Sprintf("wake: task %q has no function to run", name))
	}
	return t
}

// With returns a job: the task with its argument.
func (t *Task[S, A]) With(arg A) Job[S] { return Job[S]{t, arg} }

// Name returns the task's name.
func (t *Task[S, A]) Name() string { return t.name }

func (t *Task[S, A]) call(ctx context.Context, state S, arg any) error {
	a, _ := arg.(A) // its type was checked by With; a nil interface is A's zero
	return t.run(ctx, state, a)
}

// A Task0 is a task without an argument.
type Task0[S any] struct {
	taskInfo
	run func(context.Context, S) error
}

// Define0 declares a task without an argument. A nil function or an empty name
// panics.
func Define0[S any](name string, run func(context.Context, S) error, opts ...TaskOption) *Task0[S] {
	t := &Task0[S]{newTaskInfo(name, opts), run}
	if run == nil {
		panic(fmt.Sprintf("wake: task %q has no function to run", name))
	}
	return t
}

// With returns a job.
func (t *Task0[S]) With() Job[S] { return Job[S]{t, nil} }

// Name returns the task's name.
func (t *Task0[S]) Name() string { return t.name }

func (t *Task0[S]) call(ctx context.Context, state S, _ any) error { return t.run(ctx, state) }

// A Kind is the name and argument of a task whose function is given apart, by
// [Bind]: for tasks that add themselves or each other, which Go refuses as an
// initialization cycle when they are declared with [Define], and for packages
// that add a task without importing what runs it.
type Kind[A any] struct{ taskInfo }

// Declare declares a kind of task. An empty name panics.
func Declare[A any](name string, opts ...TaskOption) *Kind[A] {
	return &Kind[A]{newTaskInfo(name, opts)}
}

// Name returns the kind's name.
func (k *Kind[A]) Name() string { return k.name }

// Bind makes a task of a kind and its function. Give it to [Router.Tasks]. A
// nil kind or function panics.
func Bind[S, A any](kind *Kind[A], run func(context.Context, S, A) error) *Task[S, A] {
	if kind == nil {
		panic("wake: Bind was given a nil kind; make it with Declare")
	}
	if run == nil {
		panic(fmt.Sprintf("wake: task %q is bound to no function", kind.name))
	}
	return &Task[S, A]{kind.taskInfo, run}
}

// JobOf returns a job of a kind. The task bound to it is found when the job
// runs: if it was not given to [Router.Tasks], adding the job fails the
// operation with an error that names what is missing.
func JobOf[S, A any](kind *Kind[A], arg A) Job[S] {
	return Job[S]{declared[S]{&kind.taskInfo}, arg}
}

// declared is a task of which only the kind is known.
type declared[S any] struct{ *taskInfo }

// call runs the bound task with the state of whoever added the job where it
// takes that, and else with the state that it was registered with.
func (d declared[S]) call(ctx context.Context, state S, arg any) error {
	in := instanceFrom(ctx)
	bound, ok := in.host.kinds[d.name]
	if !ok {
		return fmt.Errorf("task %q: %w", d.name, errNotBound)
	}
	if t, ok := bound.task.(Runnable[S]); ok {
		return t.call(ctx, state, arg)
	}
	return bound.run(ctx, in, arg)
}

// A function is a task that was not declared.
type function[S any] struct {
	taskInfo
	run func(context.Context) error
}

func (f *function[S]) call(ctx context.Context, _ S, _ any) error { return f.run(ctx) }

// Project makes a task of another package, whose state is T, one of an
// application whose state is S.
func Project[S, T, A any](task *Task[T, A], state func(S) T) *Task[S, A] {
	if task == nil || state == nil {
		panic("wake: Project needs a task and a function that makes its state from the application's")
	}
	return &Task[S, A]{task.taskInfo, func(ctx context.Context, s S, arg A) error {
		t := state(s)
		return task.run(context.WithValue(ctx, stateKey{}, &stateOf[T]{t}), t, arg)
	}}
}

// A Job is a task with its argument, to be added to [Call].Tasks.
type Job[S any] struct {
	task Runnable[S]
	arg  any
}

// Name returns the task's name.
func (j Job[S]) Name() string { return j.task.info().name }

// Arg returns the task's argument; nil if it has none.
func (j Job[S]) Arg() any { return j.arg }

// Run runs the task here and now.
func (j Job[S]) Run(ctx context.Context, state S) error { return j.task.call(ctx, state, j.arg) }

const emptyJob = "wake: an empty Job was added; make one with the task's With"

// errNotBound is the error of an operation that adds a job of a kind that
// nothing is bound to.
var errNotBound = errors.New("no task is bound to this kind: give wake.Bind(kind, function) to app.Tasks")

// Tasks takes an operation's tasks. They run one after another in the order
// they were added, once the response has been sent, and only if the operation
// returns no error. It may be used by several goroutines.
//
// In a running task, see [From], what is added runs after the tasks of the
// request that are already there.
type Tasks[S any] struct {
	list     *background.Tasks
	state    S
	included bool // the state has to be passed on for From
	in       *instance
	req      *request // nil outside of operations
	detached *detached[S]
}

// Add adds jobs to run after the response.
//
// If their lane is full, the operation's context is cancelled with a cause
// that matches [background.ErrFull], whatever the operation returns is given
// up, and the client is answered 503 with Retry-After. After the request has
// ended, Add logs an error and counts the job as refused.
//
// So add before you commit what cannot be taken back: where a row is written
// first and the lane turns out to be full, the client is told to try again and
// the row is there.
func (t *Tasks[S]) Add(jobs ...Job[S]) {
	var buf [1]background.Task
	if !t.detach(jobs) {
		t.list.AddTask(t.tasks(buf[:0], jobs)...)
	}
}

// TryAdd is Add that tells: it adds all jobs or none, and returns an error that
// matches [background.ErrFull], [background.ErrSealed] or
// [background.ErrClosed], or one that says which kind is not bound.
func (t *Tasks[S]) TryAdd(jobs ...Job[S]) error {
	var buf [1]background.Task
	if t.detach(jobs) {
		return nil
	}
	for _, job := range jobs {
		if err := t.notBound(job); err != nil {
			return err
		}
	}
	return t.list.TryAdd(t.tasks(buf[:0], jobs)...)
}

// Group adds jobs that run beside each other; what is added later waits for
// all of them.
func (t *Tasks[S]) Group(jobs ...Job[S]) {
	if !t.detach(jobs) {
		t.list.Group(t.tasks(nil, jobs)...)
	}
}

// Always adds jobs that also run when the operation returns an error: an audit
// record, a compensation.
func (t *Tasks[S]) Always(jobs ...Job[S]) {
	if !t.detach(jobs) {
		t.list.Always(t.tasks(nil, jobs)...)
	}
}

// Func adds a function that is not worth declaring a task for.
func (t *Tasks[S]) Func(name string, run func(context.Context) error) {
	if run == nil {
		panic(fmt.Sprintf("wake: task %q has no function to run", name))
	}
	t.Add(Job[S]{&function[S]{newTaskInfo(name, nil), run}, nil})
}

// tasks makes tasks of jobs. It appends to buf, which a caller has on its stack.
func (t *Tasks[S]) tasks(buf []background.Task, jobs []Job[S]) []background.Task {
	for _, job := range jobs {
		if job.task == nil {
			panic(emptyJob)
		}
		info := job.task.info()
		task := background.Task{Name: info.name, Lane: info.lane, Timeout: info.timeout, Run: t.run(job)}
		if err := t.notBound(job); err != nil && t.req != nil {
			t.req.fail(err)
		}
		buf = append(buf, task)
	}
	return buf
}

// notBound is the error of a job whose kind is bound to no task.
func (t *Tasks[S]) notBound(job Job[S]) error {
	if d, ok := job.task.(declared[S]); ok && !t.in.host.knows(d.name) {
		return fmt.Errorf("task %q: %w", d.name, errNotBound)
	}
	return nil
}

func (t *Tasks[S]) run(job Job[S]) func(context.Context) error {
	state := t.state
	if !t.included {
		return func(ctx context.Context) error { return job.Run(ctx, state) }
	}
	return func(ctx context.Context) error {
		return job.Run(context.WithValue(ctx, stateKey{}, &stateOf[S]{state}), state)
	}
}

// Detached returns a call that belongs to no request and keeps the jobs that
// are added to it instead of running them, and a function that returns them.
// It is for trying a handler in a test; waketest.Call wraps it.
func Detached[S any](state S, r *http.Request) (Call[S], func() []Job[S]) {
	d := &detached[S]{}
	return Call[S]{State: state, Tasks: &Tasks[S]{state: state, detached: d}, Request: r, Response: &Response{}}, d.all
}

type detached[S any] struct {
	mu   sync.Mutex
	jobs []Job[S]
}

func (d *detached[S]) all() []Job[S] {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.jobs)
}

// detach keeps the jobs if t belongs to no request.
func (t *Tasks[S]) detach(jobs []Job[S]) bool {
	if t == nil || t.list == nil && t.detached == nil {
		panic("wake: this Call has no task list; it was not given to an operation by Wake. In tests, make one with waketest.Call")
	}
	if t.detached == nil {
		return false
	}
	for _, job := range jobs {
		if job.task == nil {
			panic(emptyJob)
		}
	}
	t.detached.mu.Lock()
	defer t.detached.mu.Unlock()
	t.detached.jobs = append(t.detached.jobs, jobs...)
	return true
}

// A boundTask is a task that an application can run, by its name.
type boundTask struct {
	*taskInfo
	prefix string // of the router that it was given to
	task   any    // a Runnable of some state
	run    func(ctx context.Context, in *instance, arg any) error
}

func (h *host) knows(name string) bool {
	_, ok := h.kinds[name]
	return ok
}

// addKind registers a task under its name.
func (h *host) addKind(t boundTask) {
	if known, ok := h.kinds[t.name]; ok {
		if known.taskInfo == t.taskInfo && known.prefix != t.prefix {
			return // the same task of a router that is included again
		}
		panic(fmt.Sprintf("wake: two tasks are called %q; give one of them another name", t.name))
	}
	lanes := []string{"", background.DefaultLane, background.CPULane}
	for name := range h.cfg.background.Lanes {
		lanes = append(lanes, name)
	}
	if !slices.Contains(lanes, t.lane) {
		panic(fmt.Sprintf("wake: task %q asks for lane %q; add it to background.Config.Lanes", t.name, t.lane))
	}
	h.kinds[t.name] = t
}
