package durable

import "time"

// An Event is something that happened to a task or to an engine: a
// [TaskStarted], [TaskFinished], [TaskLost], [TaskStuck], [Recovered],
// [LeaseLost], [CommitFailed] or [StoreBack].
type Event interface{ durableEvent() }

// TaskStarted says that a task begins to run.
type TaskStarted struct {
	Info
	Waited time.Duration // since it could have begun, by the store's clock
}

// TaskFinished says that the outcome of a run is committed.
type TaskFinished struct {
	Info
	Move   Move          // what became of it: MoveSucceed, MoveFail, …
	Err    error         // what the handler returned, or how it ended
	Delay  time.Duration // until it runs again, of MoveFail and MoveSnooze
	Waited time.Duration // before it began
	Took   time.Duration

	// CancelRequested: somebody had cancelled it while it ran. It has succeeded
	// all the same if Move says so.
	CancelRequested bool
}

// TaskLost says that the outcome of a run does not count: others were given
// the task, or somebody removed it.
type TaskLost struct {
	Info
	Move Move // what would have become of it
	Err  error
	Took time.Duration
}

// TaskStuck says that a task has been given up at its HardTimeout or by the
// end of a drain, while its goroutine goes on.
type TaskStuck struct {
	Info
	Took  time.Duration
	Stack string
}

// Recovered says that tasks of processes that died have been taken back.
type Recovered struct{ Swept }

// LeaseLost says that the process was not heard of for longer than its lease,
// so that its running tasks were cancelled. It goes on with a new lease.
type LeaseLost struct {
	Err     error
	Running int // tasks that were cancelled
}

// CommitFailed says that the store does not commit. It is said once, and
// tried on.
type CommitFailed struct{ Err error }

// StoreBack says that the store commits again.
type StoreBack struct{ After time.Duration }

func (TaskStarted) durableEvent()  {}
func (TaskFinished) durableEvent() {}
func (TaskLost) durableEvent()     {}
func (TaskStuck) durableEvent()    {}
func (Recovered) durableEvent()    {}
func (LeaseLost) durableEvent()    {}
func (CommitFailed) durableEvent() {}
func (StoreBack) durableEvent()    {}
