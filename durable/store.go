package durable

import (
	"context"
	"time"
)

// A Store keeps tasks. It has one hot method, [Store.Commit], which everything
// that happens often goes through; the rest is for starting, stopping, looking
// and intervening. Packages durable/sqlite and durable/memory have stores;
// package durable/storetest is the suite that every store has to pass.
//
// All methods may be called by several goroutines. An error says whether what
// was asked for has not happened, or, when it matches [ErrUnknown], that it
// may have.
type Store interface {
	// Traits describes the store.
	Traits() Traits

	// Commit does everything in the batch in one transaction, durably, in this
	// order: functions, outcomes, progress, schedules, inserts, the promotion
	// of scheduled tasks whose time has come, claims. One bad part fails
	// itself, with an error in the result, and nothing else. When Commit
	// returns an error, nothing of the batch has happened, or it matches
	// ErrUnknown.
	Commit(ctx context.Context, b *Batch) (*BatchResult, error)

	// Register makes a process known and starts its lease. It takes back the
	// tasks of predecessors whose death is proved, as Sweep does.
	Register(ctx context.Context, n Node) (Registration, error)

	// Beat renews the lease of a process and returns what it should know. An
	// error that matches ErrLeaseLost says that it had ended and others have
	// taken its tasks.
	Beat(ctx context.Context, boot Boot) (BeatResult, error)

	// Reconcile returns to the queue, at no cost, what boot has claimed
	// without knowing: the running tasks that are not among those it knows. It
	// must not run beside a Commit that claims for the same boot.
	Reconcile(ctx context.Context, boot Boot, known []Ref) (released int, err error)

	// Sweep takes the tasks of dead processes back: of those whose death is
	// proved, and of those whose lease has ended. It never touches boot's own.
	Sweep(ctx context.Context, boot Boot) (Swept, error)

	// Unregister ends the lease of a process that holds no tasks any more.
	Unregister(ctx context.Context, boot Boot) error

	// InTx runs f in a transaction of its own, in which its tasks are inserted
	// when it returns nil. Stores whose Traits say SharedTx also run functions
	// inside Commit.
	InTx(ctx context.Context, f *Func) error

	// InsertTx inserts tasks in a user's open transaction on the same
	// database. Workers hear of them once it is committed.
	InsertTx(ctx context.Context, tx Tx, in []Insert) ([]Inserted, error)

	// FinishTx records an outcome in a user's open transaction. It reports
	// false if the task is not boot's any more.
	FinishTx(ctx context.Context, tx Tx, boot Boot, f Finish) (bool, error)

	// Finished reports whether boot's claim of a task has been finished: how an
	// unknown commit and one by FinishTx are settled.
	Finished(ctx context.Context, boot Boot, ref Ref) (bool, error)

	// Get returns a task, by its id or by that of a duplicate, with the errors
	// of its attempts. An unknown id is an error that matches ErrNotFound.
	Get(ctx context.Context, id ID) (*Task, error)

	// List returns tasks, newest first, without payloads, results and errors.
	List(ctx context.Context, f Filter, p Page) ([]Task, error)

	// Counts returns how many tasks there are, up to MaxCount for each lane
	// and state.
	Counts(ctx context.Context) ([]Count, error)

	// Queues returns the queues that have tasks or are paused.
	Queues(ctx context.Context) ([]QueueInfo, error)

	// Nodes returns the processes that have the store open.
	Nodes(ctx context.Context) ([]NodeInfo, error)

	// Cancel makes MoveCancel: at once for a task that does not run, otherwise
	// its worker hears of it by Watch or Beat. It returns the state the task
	// has then; a finished one keeps its own. A running task that is to be
	// cancelled does not run again: what would make it ready or scheduled, a
	// crash for one, makes it cancelled.
	Cancel(ctx context.Context, id ID) (State, error)

	// Retry makes MoveRetry. A task whose key another unfinished one holds is
	// an error that matches ErrDuplicate; one that runs, ErrState.
	Retry(ctx context.Context, id ID) error

	// Delete removes a task. One that runs is an error that matches ErrState.
	Delete(ctx context.Context, id ID) error

	// SetPaused pauses a queue, or resumes it. Paused, nothing of it is
	// claimed; what runs goes on.
	SetPaused(ctx context.Context, queue string, paused bool) error

	// Prune deletes up to limit finished tasks that have been kept long
	// enough, by the retention of their queue or else that of "".
	Prune(ctx context.Context, keep map[string]Retention, limit int) (deleted int, err error)

	// Schedules returns all schedules, by name.
	Schedules(ctx context.Context) ([]ScheduleRow, error)

	// DeclareSchedules writes what a program's code says of its schedules. For
	// one that exists, people's settings stay; Next is kept unless code's spec
	// or zone differ from what is stored and people have not overridden them.
	// A row with a greater Revision is left alone.
	DeclareSchedules(ctx context.Context, rows []ScheduleRow) error

	// ChangeSchedule writes people's settings of a schedule, Next included, if
	// it is still as it was read: its Version must be the stored one,
	// otherwise the error matches ErrState. An unknown name matches
	// ErrNotFound.
	ChangeSchedule(ctx context.Context, row ScheduleRow) error

	// DeleteSchedule forgets a schedule.
	DeleteSchedule(ctx context.Context, name string) error

	// Watch calls f, from one goroutine and without waiting for long, when
	// something happens that this process has not done by Commit itself:
	// another process, a user's transaction, the passing of time in a test. It
	// returns when ctx ends. What it reports may be too much, and is never
	// relied on: everything is also polled.
	Watch(ctx context.Context, f func(Signal)) error

	// Now returns the store's time.
	Now(ctx context.Context) (time.Time, error)

	// Ping reports whether the store can commit.
	Ping(ctx context.Context) error

	// Close closes the store. Nothing may be in progress.
	Close() error
}

// Traits describe a store.
type Traits struct {
	Name       string // as in "sqlite"
	Committers int    // how many Commits are best in progress at once
	MaxBatch   int    // the most inserts and outcomes of a batch
	SharedTx   bool   // functions share a batch's transaction
}

// A Boot names one run of a process.
type Boot ID

// String returns the boot as an id is written.
func (b Boot) String() string { return ID(b).String() }

// A Node is a process that has a store open.
type Node struct {
	Boot      Boot          `json:"boot"`
	Name      string        `json:"name"`      // stable over restarts; "": the store makes one
	Host      string        `json:"host"`      //
	PID       int           `json:"pid"`       //
	Version   string        `json:"version"`   // of the program
	Worker    bool          `json:"worker"`    // runs tasks
	Kinds     []string      `json:"kinds"`     // it can run
	Schedules []string      `json:"schedules"` // it declares
	Lease     time.Duration `json:"-"`         // how long its tasks are its own without a beat
	Started   time.Time     `json:"started"`
}

// A Registration is what Register found.
type Registration struct {
	Name  string // the node's: another one than asked for if that is alive
	Swept Swept
}

// Swept counts what a sweep took back.
type Swept struct {
	Recovered int // tasks that are ready again
	Dead      int // tasks that were running in too many crashes
	Nodes     int // processes found dead
}

// A BeatResult is what a process should know.
type BeatResult struct {
	Cancelled []Ref // its running tasks that somebody cancels
}

// A Signal says what a process may want to look at again.
type Signal uint8

// What Watch reports.
const (
	SignalTasks     Signal = 1 << iota // there may be tasks to claim
	SignalCancelled                    // running tasks may have been cancelled
	SignalSchedules                    // schedules may have been changed
	SignalFinished                     // tasks may have finished, or progressed
)

// A Batch is the work of one transaction. Its slices are the caller's again
// when Commit has returned; what they point to is not changed.
type Batch struct {
	Boot     Boot
	Funcs    []*Func
	Finishes []Finish
	Progress []ProgressUpdate
	Fires    []Fire
	Inserts  []Insert
	Claims   []Claim

	// Again says that parts of the batch were in one whose Commit returned
	// ErrUnknown: what has been done is not done twice.
	Again bool
}

// A BatchResult has an element for each part of the batch.
type BatchResult struct {
	Finished   []bool // false: the task is not boot's any more
	Progressed []bool // likewise
	Fired      []FireResult
	Inserted   []Inserted
	Claimed    []Claimed

	// NextDue is when the next scheduled task becomes ready, as far as is
	// known; zero if there is none.
	NextDue time.Time
	// Now is the store's time of the commit.
	Now time.Time
}

// An Insert is a new task.
type Insert struct {
	ID          ID
	Kind        string
	Queue       string
	Priority    int // greater is earlier; between -1,000 and 1,000
	Delay       time.Duration
	At          time.Time // not before; zero: now
	Key         string    // unique among the unfinished tasks of its kind
	MaxAttempts int
	Timeout     time.Duration
	Tags        []string
	Payload     []byte
	Meta        Meta
}

// Inserted says what became of an Insert.
type Inserted struct {
	ID        ID   // of the task; the existing one's for a duplicate
	Duplicate bool // an unfinished task has the key; Insert.ID is another name for it now
	Err       error
}

// A Ref names one claim of one task.
type Ref struct {
	ID    ID
	Seq   int64 // the store's own number of the task
	Fence int64
}

// A Finish is the outcome of a claim.
type Finish struct {
	Ref    Ref
	Move   Move          // MoveSucceed, MoveFail, MoveExhaust, MoveSnooze, MoveRelease or MoveCancel
	Delay  time.Duration // of MoveFail and MoveSnooze
	Result []byte        // of MoveSucceed
	Error  *AttemptError // of MoveFail, MoveExhaust and MoveCancel; its At is the store's
}

// A ProgressUpdate is the progress of a claim.
type ProgressUpdate struct {
	Ref    Ref
	Report ProgressReport // its At is the store's
}

// A Claim asks for tasks of a queue.
type Claim struct {
	Queue string
	Kinds []string // of which the store may keep the slice
	Limit int

	// Calm leaves out tasks that one more crash would park as dead, see
	// [Suspect].
	Calm bool
}

// Claimed is a task with which a worker may begin.
type Claimed struct {
	Ref         Ref
	Kind        string
	Queue       string
	Priority    int
	Attempt     int
	MaxAttempts int
	Crashes     int
	Key         string
	Tags        []string
	Timeout     time.Duration
	Payload     []byte
	Meta        Meta
	CreatedAt   time.Time
	RunAt       time.Time
}

// A Func is a user's function in a transaction. It is run again when the
// transaction it was in had to be given up, and begins with Reset then.
type Func struct {
	Run func(*SQLTx) error

	Inserts  []Insert   // what it has added; the store's to read when it has returned nil
	Inserted []Inserted // the store's answers
	Err      error      // why nothing of it has happened; nil: it is committed. What matches ErrApart is to be run by Store.InTx

	// Earlier is closed when a run that was given up has returned. For stores.
	Earlier <-chan struct{}

	encode func(Queueable) (Insert, error) // the queue's; nil: without a Codec
}

// A ScheduleRow is a schedule as it is stored.
type ScheduleRow struct {
	Name string

	// What code says.
	Spec     string        // a cron expression, or "@every 5m"
	Zone     string        // of the expression: "UTC", "Europe/Berlin"
	Misfire  string        // "skip", "once" or "all"
	Overlap  string        // "skip", "allow" or "replace"
	Jitter   time.Duration // each tick is put off by up to this
	Revision int64         // of the code: a greater one wins
	Task     Insert        // what a tick adds, but for its id

	// What people say.
	OverrideSpec string // instead of Spec; "" for none
	OverrideZone string
	Paused       bool

	// How it stands.
	Next     time.Time // of the next tick, in UTC, without jitter; zero: never
	LastTick time.Time
	LastTask ID // the last tick's
	Version  int64
	Declared bool // by a process that lives; an orphan does not fire
}

// A Fire is one tick of a schedule, or several.
type Fire struct {
	Name     string
	Expect   time.Time // the stored Next: another one has fired it if that differs
	Next     time.Time
	LastTick time.Time
	Overlap  string
	Inserts  []Insert // none: the ticks were missed
	Manual   bool     // run now: neither Expect nor Next matter
}

// FireResult says what became of a Fire.
type FireResult struct {
	Fired    bool // false: another process has, or the schedule is paused
	Skipped  int  // inserts that the overlap rule left out
	Replaced ID   // the running task that was cancelled
	Inserted []Inserted
}
