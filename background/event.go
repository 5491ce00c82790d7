package background

import "time"

// Info names a task in events and reports.
type Info struct {
	Name      string // as given when it was added
	RequestID string // the request that added it; empty outside requests
	Lane      string // the lane it runs in
}

// An Event is something that happened to a task: a [TaskFinished],
// [TaskRefused], [TaskDropped] or [TaskAbandoned].
type Event interface{ backgroundEvent() }

// TaskFinished says that a task has run.
type TaskFinished struct {
	Info
	Err    error         // nil, the task's error, a [*PanicError] or [ErrGoexit]
	Waited time.Duration // between the end of the response and the task's start
	Took   time.Duration // between the task's start and its end
}

// TaskRefused says that a task was not accepted and will not run.
type TaskRefused struct {
	Info
	Err error // matches [ErrSealed], [ErrFull] or [ErrClosed]
}

// TaskDropped says that a task was given up after it had been added, because
// its operation failed.
type TaskDropped struct {
	Info

	// Err is nil if the operation failed by itself. It matches [ErrFull] or
	// [ErrClosed] if a task of the request was refused or the runner had been
	// drained before the handler returned, [ErrSealed] if an outer handler had
	// answered already.
	Err error
}

// TaskAbandoned says that a drain could not finish a task.
type TaskAbandoned struct{ AbandonedTask }

func (TaskFinished) backgroundEvent()  {}
func (TaskRefused) backgroundEvent()   {}
func (TaskDropped) backgroundEvent()   {}
func (TaskAbandoned) backgroundEvent() {}
