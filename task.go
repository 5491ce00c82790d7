package wake

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/wake-go/wake/durable"
)

// A TaskOption is an option of a task. Options of package durable are usable
// as they are.
type TaskOption = durable.Option

// Lane sets the lane a task runs in, in memory and from the queue: "cpu" for
// work that computes, or one that [Background] configures. Defaults to
// "default", for work that waits.
func Lane(name string) TaskOption { return durable.Lane(name) }

// Timeout sets a task's time limit, after which its context is cancelled.
// Negative is none. In memory it defaults to 15 minutes, see
// [background.Config]; a task from the queue has none by default.
func Timeout(d time.Duration) TaskOption { return durable.Timeout(d) }

// HardTimeout sets after which time an attempt from the queue is given up,
// although its goroutine has not returned. Defaults to never.
func HardTimeout(d time.Duration) TaskOption { return durable.HardTimeout(d) }

// MaxAttempts sets how often a task from the queue may fail before it is dead.
// Defaults to 15. A task in memory is tried once.
func MaxAttempts(n int) TaskOption { return durable.MaxAttempts(n) }

// Backoff sets how long a task from the queue waits after a failed attempt, the
// first one being 1. Defaults to [durable.Exponential](time.Second, time.Hour).
func Backoff(f func(attempt int, err error) time.Duration) TaskOption {
	return durable.WithBackoff(f)
}

// RetryIf sets which errors of a task from the queue are worth another attempt.
// Defaults to all.
func RetryIf(f func(error) bool) TaskOption { return durable.RetryIf(f) }

// OnQueue sets the queue in which a task waits. Defaults to "default".
func OnQueue(name string) TaskOption { return durable.OnQueue(name) }

// Priority sets which tasks of a queue come first: those with the greater one,
// between -1,000 and 1,000. Defaults to 0.
func Priority(n int) TaskOption { return durable.WithPriority(n) }

// Aliases are the names that a task had before: what was stored under them is
// run as well.
func Aliases(names ...string) TaskOption { return durable.Aliases(names...) }

// Requeue lets a task in memory that the drain cuts short be run again from the
// queue. It may then have run twice.
func Requeue() TaskOption { return durable.Requeue() }

// local marks a kind that was declared together with its function.
func local(opts []TaskOption) []TaskOption {
	return append(opts[:len(opts):len(opts)], func(p *durable.Policy) { p.Local = true })
}

// A taskInfo is what is known of a task whatever its argument and state.
type taskInfo struct {
	name       string
	policy     durable.Policy
	unstorable error                     // its argument's type cannot be queued
	job        func(arg any) durable.Job // nil: a function that was not declared
}

func (t *taskInfo) info() *taskInfo { return t }

func infoOf[A any](k *Kind[A]) taskInfo {
	return taskInfo{
		name: k.Name(), policy: k.Policy(), unstorable: k.Storable(),
		job: func(arg any) durable.Job {
			a, _ := arg.(A) // its type was checked by With; a nil interface is A's zero
			return k.With(a)
		},
	}
}

// A Runnable is a task that an application with the state S can run: a [Task],
// a [Task0] or a [ResultTask].
type Runnable[S any] interface {
	info() *taskInfo
	call(ctx context.Context, state S, arg any) error

	// handler makes what an engine runs. Around is given the task's function
	// and calls it, with the state.
	handler(around func(context.Context, func(context.Context, S) error) error) durable.Handler
}

// A Task is a function that runs after a response or from the queue, with a
// name that stays when the function is renamed.
type Task[S, A any] struct {
	taskInfo
	kind *Kind[A]
	run  func(context.Context, S, A) error
}

// Define declares a task with one argument. A nil function, an empty name and
// an option that breaks a rule panic.
//
// The argument of a task in memory is the value itself: what a pointer, slice
// or map refers to is shared with the operation. The argument of a queued task
// is encoded as JSON when it is added. A type that JSON cannot hold is fine for
// memory; adding such a task to the queue fails.
func Define[S, A any](name string, run func(context.Context, S, A) error, opts ...TaskOption) *Task[S, A] {
	checkTask(name, run == nil)
	return bind(Declare[A](name, local(opts)...), run)
}

func checkTask(name string, noFunction bool) {
	switch {
	case name == "":
		panic("wake: a task needs a name: it is how logs and reports tell which one failed")
	case noFunction:
		panic(fmt.Sprintf("wake: task %q has no function to run", name))
	}
}

func bind[S, A any](kind *Kind[A], run func(context.Context, S, A) error) *Task[S, A] {
	return &Task[S, A]{infoOf(kind), kind, run}
}

// With returns a job: the task with its argument.
func (t *Task[S, A]) With(arg A) Job[S] { return Job[S]{t.kind.With(arg), t} }

// Name returns the task's name.
func (t *Task[S, A]) Name() string { return t.name }

// Kind returns what the task is without its function.
func (t *Task[S, A]) Kind() *Kind[A] { return t.kind }

func (t *Task[S, A]) call(ctx context.Context, state S, arg any) error {
	a, _ := arg.(A) // its type was checked by With; a nil interface is A's zero
	return t.run(ctx, state, a)
}

func (t *Task[S, A]) handler(around func(context.Context, func(context.Context, S) error) error) durable.Handler {
	return t.kind.Run(func(ctx context.Context, arg A) error {
		return around(ctx, func(ctx context.Context, state S) error { return t.run(ctx, state, arg) })
	})
}

// A Task0 is a task without an argument.
type Task0[S any] struct {
	taskInfo
	kind *Kind[struct{}]
	run  func(context.Context, S) error
}

// Define0 declares a task without an argument. It panics as [Define] does.
func Define0[S any](name string, run func(context.Context, S) error, opts ...TaskOption) *Task0[S] {
	checkTask(name, run == nil)
	kind := Declare[struct{}](name, local(opts)...)
	return &Task0[S]{infoOf(kind), kind, run}
}

// With returns a job.
func (t *Task0[S]) With() Job[S] { return Job[S]{t.kind.With(struct{}{}), t} }

// Name returns the task's name.
func (t *Task0[S]) Name() string { return t.name }

func (t *Task0[S]) call(ctx context.Context, state S, _ any) error { return t.run(ctx, state) }

func (t *Task0[S]) handler(around func(context.Context, func(context.Context, S) error) error) durable.Handler {
	return t.kind.Run(func(ctx context.Context, _ struct{}) error { return around(ctx, t.run) })
}

// A ResultTask is a task whose result is stored, when it runs from the queue,
// and can be waited for. In memory its result is dropped.
type ResultTask[S, A, R any] struct {
	taskInfo
	kind *durable.ResultKind[A, R]
	run  func(context.Context, S, A) (R, error)
}

// DefineResult declares a task with a result. It panics as [Define] does, and
// for an argument or a result whose type JSON cannot hold.
func DefineResult[S, A, R any](name string, run func(context.Context, S, A) (R, error), opts ...TaskOption) *ResultTask[S, A, R] {
	checkTask(name, run == nil)
	return BindResult(durable.DeclareResult[A, R](name, local(opts)...), run)
}

// BindResult is [Bind] for a kind with a result.
func BindResult[S, A, R any](kind *durable.ResultKind[A, R], run func(context.Context, S, A) (R, error)) *ResultTask[S, A, R] {
	if kind == nil || run == nil {
		panic("wake: BindResult needs a kind, made with durable.DeclareResult, and the function that runs it")
	}
	return &ResultTask[S, A, R]{infoOf(&kind.Kind), kind, run}
}

// With returns a job: the task with its argument.
func (t *ResultTask[S, A, R]) With(arg A) Job[S] { return Job[S]{t.kind.With(arg), t} }

// Name returns the task's name.
func (t *ResultTask[S, A, R]) Name() string { return t.name }

// Kind returns what the task is without its function.
func (t *ResultTask[S, A, R]) Kind() *Kind[A] { return &t.kind.Kind }

// Wait waits until a queued task of this kind has finished, wherever it runs,
// and returns its result. W is a queue, or [Call].Queue. A task that is dead or
// cancelled is a [*durable.FailedError], one that this very operation has added
// an error that matches [durable.ErrNotCommitted]. Give ctx a deadline: the
// task may be far behind others.
func (t *ResultTask[S, A, R]) Wait(ctx context.Context, w durable.Waiter, id durable.ID) (R, error) {
	return t.kind.Wait(ctx, w, id)
}

func (t *ResultTask[S, A, R]) call(ctx context.Context, state S, arg any) error {
	a, _ := arg.(A)
	_, err := t.run(ctx, state, a)
	return err
}

func (t *ResultTask[S, A, R]) handler(around func(context.Context, func(context.Context, S) error) error) durable.Handler {
	return t.kind.Run(func(ctx context.Context, arg A) (result R, err error) {
		err = around(ctx, func(ctx context.Context, state S) (err error) {
			result, err = t.run(ctx, state, arg)
			return err
		})
		return result, err
	})
}

// A Kind is the name and argument of a task whose function is given apart, by
// [Bind]: for tasks that add themselves or each other, which Go refuses as an
// initialization cycle when they are declared with [Define], and for packages
// that add a task without importing what runs it, in this program or another.
type Kind[A any] = durable.Kind[A]

// Declare declares a kind of task. An empty name and an option that breaks a
// rule panic. A type that JSON cannot hold is fine for tasks in memory.
func Declare[A any](name string, opts ...TaskOption) *Kind[A] {
	if name == "" {
		panic("wake: a task needs a name: it is how logs and reports tell which one failed")
	}
	kind, _ := durable.TryDeclare[A](name, opts...) // the kind keeps the error
	return kind
}

// Bind makes a task of a kind and its function. Give it to [Router.Tasks]. A
// nil kind or function panics.
func Bind[S, A any](kind *Kind[A], run func(context.Context, S, A) error) *Task[S, A] {
	if kind == nil {
		panic("wake: Bind was given a nil kind; make it with Declare")
	}
	if run == nil {
		panic(fmt.Sprintf("wake: task %q is bound to no function", kind.Name()))
	}
	return bind(kind, run)
}

// JobOf returns a job of a kind for [Call].Tasks; the queue takes kind.With(arg)
// as it is. The task bound to it is found when the job runs: if it was not
// given to [Router.Tasks], adding the job fails the operation with an error
// that names what is missing.
func JobOf[S, A any](kind *Kind[A], arg A) Job[S] {
	info := infoOf(kind)
	return Job[S]{kind.With(arg), declared[S]{&info}}
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

// handler is never asked for: Tasks takes no declared task.
func (d declared[S]) handler(func(context.Context, func(context.Context, S) error) error) durable.Handler {
	return durable.Handler{Kind: d.name}
}

// A function is a task that was not declared.
type function[S any] struct {
	taskInfo
	run func(context.Context) error
}

func (f *function[S]) call(ctx context.Context, _ S, _ any) error { return f.run(ctx) }

// handler is never asked for: Tasks takes no function.
func (f *function[S]) handler(func(context.Context, func(context.Context, S) error) error) durable.Handler {
	return durable.Handler{Kind: f.name}
}

// Project makes a task of another package, whose state is T, one of an
// application whose state is S.
func Project[S, T, A any](task *Task[T, A], state func(S) T) *Task[S, A] {
	if task == nil || state == nil {
		panic("wake: Project needs a task and a function that makes its state from the application's")
	}
	return bind(task.kind, func(ctx context.Context, s S, arg A) error {
		t := state(s)
		return task.run(context.WithValue(ctx, stateKey{}, &stateOf[T]{t}), t, arg)
	})
}

// A Job is a task with its argument, to be added to [Call].Tasks or to
// [Call].Queue. Its options (In, At, Key, Priority and so on, see
// [durable.Job]) are for the queue: what they return is a durable.Job, which
// Tasks does not take.
type Job[S any] struct {
	durable.Job
	task Runnable[S]
}

// Name returns the task's name.
func (j Job[S]) Name() string { return j.task.info().name }

// Run runs the task here and now.
func (j Job[S]) Run(ctx context.Context, state S) error { return j.task.call(ctx, state, j.Arg()) }

const emptyJob = "wake: an empty Job was added; make one with the task's With"

// errNotBound is the error of an operation that adds a job of a kind that
// nothing is bound to.
var errNotBound = errors.New("no task is bound to this kind: give wake.Bind(kind, function) to app.Tasks")
