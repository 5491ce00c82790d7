package background

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

var (
	// ErrFull says that a lane has no place left for a task. It is also the
	// cause with which a request's context is cancelled when [Tasks.Add] finds
	// its lane full.
	ErrFull = errors.New("background: the lane is full")

	// ErrSealed says that a task was added after its request's outermost
	// handler had returned, when nobody could be told any more.
	ErrSealed = errors.New("background: the request has ended, so its task list takes no more tasks")

	// ErrClosed says that the runner has been drained.
	ErrClosed = errors.New("background: the runner has been drained and takes no more tasks")

	// ErrDrainDeadline is the cause with which task contexts are cancelled
	// when [Runner.Drain] runs out of time.
	ErrDrainDeadline = errors.New("background: the drain ran out of time")

	// ErrTimeout is the cause with which the context of a task that takes
	// longer than its time limit is cancelled.
	ErrTimeout = errors.New("background: the task ran longer than its time limit")

	// ErrGoexit is the error of a task that ended its goroutine with
	// [runtime.Goexit] instead of returning.
	ErrGoexit = errors.New("background: the task called runtime.Goexit")
)

// A FullError says which lane had no place for which task. It matches
// [ErrFull] with [errors.Is].
type FullError struct {
	Lane     string // the lane's name
	Task     string // the task that found it full
	Capacity int    // tasks the lane takes, running and waiting
}

func (e *FullError) Error() string {
	return fmt.Sprintf("background: no place for task %q: lane %q holds its %d tasks already; raise Lane.Waiting or add fewer", e.Task, e.Lane, e.Capacity)
}

// Is reports whether target is [ErrFull].
func (e *FullError) Is(target error) bool { return target == ErrFull }

// A PanicError is the error of a task that panicked.
type PanicError struct {
	Value any    // what was passed to panic
	Stack []byte // the goroutine's stack at the panic
}

func (e *PanicError) Error() string { return fmt.Sprintf("panic: %v", e.Value) }

// Unwrap returns the panic's value if it is an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

// An AbandonedTask is a task that a drain could not finish.
type AbandonedTask struct {
	Info

	// Age is the time since the request had been answered or, for a task
	// outside a request, since it was added.
	Age time.Duration

	// Started tells a task that was cut short from one that never ran.
	Started bool

	// Err is what a started task returned after its context had been
	// cancelled; nil if it has not returned at all.
	Err error

	// Stack is the goroutine's stack of a task that has not returned.
	Stack string

	// Handoff is the task's, for its owner to run it elsewhere. One that has
	// started may have done its work, or a part.
	Handoff any

	// Values is the context that the task was added with; nil for what is no
	// task.
	Values context.Context
}

func (t AbandonedTask) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%q (", t.Name)
	if t.RequestID != "" {
		fmt.Fprintf(&b, "request %s, ", t.RequestID)
	}
	fmt.Fprintf(&b, "%v old, ", t.Age.Round(time.Millisecond))
	switch {
	case !t.Started:
		b.WriteString("not started)")
	case t.Err != nil:
		fmt.Fprintf(&b, "cut short: %v)", t.Err)
	default:
		b.WriteString("still running: it ignores its context)")
	}
	return b.String()
}

// An AbandonedError is the error of a drain that could not finish its work.
type AbandonedError struct {
	Cause error // why the drain was cut short
	Tasks []AbandonedTask
}

func (e *AbandonedError) Error() string {
	const most = 20
	names := make([]string, 0, min(len(e.Tasks), most)+1)
	for i, t := range e.Tasks {
		if i == most {
			names = append(names, fmt.Sprintf("and %d more", len(e.Tasks)-most))
			break
		}
		names = append(names, t.String())
	}
	return fmt.Sprintf("background: %d tasks abandoned (%v): %s", len(e.Tasks), e.Cause, strings.Join(names, "; "))
}

// Unwrap returns the drain's cause.
func (e *AbandonedError) Unwrap() error { return e.Cause }
