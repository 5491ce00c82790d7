package wake

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/wake-go/wake/background"
	"github.com/wake-go/wake/durable"
)

// An Outbox takes an operation's tasks for the queue. They are committed
// together, durably, when the operation has returned without an error and
// before the first byte of its answer; if that fails, the client is answered
// 503 with Retry-After, and nothing of the operation's tasks runs, but that
// those for the queue may when the store's answer was lost or late: give a task
// a key if a client that asks again must not add it twice. An operation that
// returns an error adds nothing. An Outbox may be used by several goroutines.
//
// In a task, in middleware and in a mounted handler, see [From], there is no
// operation to commit with: Add adds at once there. If that fails, the task
// fails, or the request's tasks are dropped and its context is cancelled.
type Outbox struct {
	in     *instance
	req    *request        // the operation's
	ctx    context.Context // where there is no operation
	basket *outbasket      // in a test

	mu      sync.Mutex
	inserts []durable.Insert
	sealed  bool
}

// Add adds a task and returns its id, which exists once the operation's tasks
// have been committed: an answer can carry it. If an unfinished task has the
// job's key, it is another name for that task.
//
// The argument is encoded now. One that cannot be encoded, an option that
// breaks a rule, and a task that this program cannot run fail the operation:
// it is answered 500, and the log says why. A task that was declared by
// [Declare] may be another program's.
//
// Add does not know of your own transaction: use AddTx or InTx for rows and
// tasks that exist together or not at all. After the operation has ended, Add
// logs an error and adds nothing.
func (o *Outbox) Add(job durable.Queueable) durable.ID {
	ids := o.AddAll(job)
	return ids[0]
}

// AddAll adds several tasks, see [Outbox.Add].
func (o *Outbox) AddAll(jobs ...durable.Queueable) []durable.ID {
	o.check()
	if o.basket != nil {
		return o.basket.add(jobs)
	}
	if o.req == nil {
		ids, err := o.addNow(o.ctx, jobs)
		if err != nil {
			o.refuse(err)
			return make([]durable.ID, len(jobs))
		}
		return ids
	}
	ids := make([]durable.ID, len(jobs))
	for i, job := range jobs {
		id, err := o.collect(job)
		switch {
		case err == background.ErrSealed:
			o.in.refused.Add(1)
			logFor(&o.req.ctx).Error("task refused: it was added to the queue after its operation had ended", "task", durable.AsJob(job).Kind())
		case err != nil:
			o.req.fail(err)
		}
		ids[i] = id
	}
	return ids
}

// Now adds a task at once, whatever becomes of the operation. After the
// operation has ended the error matches [background.ErrSealed]. Inside an open
// write transaction on the same SQLite file it would wait for that: use AddTx.
func (o *Outbox) Now(ctx context.Context, job durable.Queueable) (durable.ID, error) {
	o.check()
	if o.basket != nil {
		return o.basket.add([]durable.Queueable{job})[0], nil
	}
	if o.req != nil && o.isSealed() {
		return durable.ID{}, background.ErrSealed
	}
	ids, err := o.addNow(ctx, []durable.Queueable{job})
	if err != nil {
		return durable.ID{}, err
	}
	return ids[0], nil
}

// AddTx adds a task in your own transaction on the queue's database, with
// SQLite one of [DB]: the task exists if and when you commit.
func (o *Outbox) AddTx(ctx context.Context, tx *sql.Tx, job durable.Queueable) (durable.ID, error) {
	return o.AddIn(ctx, durable.SQL(tx), job)
}

// AddIn is AddTx for any transaction that the store knows.
func (o *Outbox) AddIn(ctx context.Context, tx durable.Tx, job durable.Queueable) (durable.ID, error) {
	q, err := o.open([]durable.Queueable{job})
	if err != nil {
		return durable.ID{}, err
	}
	return q.AddIn(o.context(ctx), tx, job)
}

// InTx runs fn in a transaction on the queue's database, and commits its rows
// and the tasks it adds together, at once, whatever becomes of the operation.
// See [durable.Queue.InTx].
func (o *Outbox) InTx(ctx context.Context, fn func(context.Context, *durable.SQLTx) error) error {
	q, err := o.open(nil)
	if err != nil {
		return err
	}
	return q.InTx(o.context(ctx), fn)
}

// WaitFor waits until a task has finished, see [durable.Queue.WaitFor]. For a
// task of this very operation it returns [durable.ErrNotCommitted].
func (o *Outbox) WaitFor(ctx context.Context, id durable.ID) (*durable.Task, error) {
	q, err := o.open(nil)
	if err != nil {
		return nil, err
	}
	if o.pending(id) {
		return nil, durable.ErrNotCommitted
	}
	return q.WaitFor(ctx, id)
}

// check panics for an Outbox that nobody has made.
func (o *Outbox) check() {
	if o == nil || o.in == nil && o.basket == nil {
		panic("wake: this Call has no queue; it was not given to an operation by Wake. In tests, make one with waketest.Call")
	}
}

// open returns the queue, if these jobs may be added to it.
func (o *Outbox) open(jobs []durable.Queueable) (*durable.Queue, error) {
	o.check()
	switch {
	case o.basket != nil:
		return nil, errors.New("wake: waketest.Call has no queue to run transactions in, or to wait for; start the application with waketest.Start")
	case o.req != nil && o.isSealed():
		return nil, background.ErrSealed
	}
	for _, job := range jobs {
		if err := o.in.canQueue(job); err != nil {
			return nil, err
		}
	}
	if o.in.queue == nil {
		return nil, errNoQueue
	}
	return o.in.queue, nil
}

// collect keeps a task for the operation's commit.
func (o *Outbox) collect(job durable.Queueable) (durable.ID, error) {
	if err := o.in.canQueue(job); err != nil {
		return durable.ID{}, err
	}
	in, err := o.in.queue.Encode(job)
	if err != nil {
		return durable.ID{}, err
	}
	meta := o.req.meta()
	in.Meta.RequestID, in.Meta.TraceParent = meta.RequestID, meta.TraceParent
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.sealed {
		return durable.ID{}, background.ErrSealed
	}
	o.inserts = append(o.inserts, in)
	return in.ID, nil
}

// addNow commits jobs at once.
func (o *Outbox) addNow(ctx context.Context, jobs []durable.Queueable) ([]durable.ID, error) {
	for _, job := range jobs {
		if err := o.in.canQueue(job); err != nil {
			return nil, err
		}
	}
	return o.in.queue.AddAll(o.context(ctx), jobs...)
}

// context makes tasks that are added with ctx name the request they come from.
func (o *Outbox) context(ctx context.Context) context.Context {
	switch {
	case o.req != nil:
		return durable.WithMeta(ctx, o.req.meta())
	case attemptOf(ctx) != nil:
		return ctx // the engine has said it
	}
	return durable.WithMeta(ctx, durable.Meta{RequestID: background.RequestID(o.ctx)})
}

// refuse fails what has added a task that could not be added.
func (o *Outbox) refuse(err error) {
	if a := attemptOf(o.ctx); a != nil {
		a.fail(err)
		return
	}
	list := background.From(o.ctx)
	if list.Sealed() {
		o.in.refused.Add(1)
		logFor(o.ctx).Error("task refused: it could not be added to the queue", "error", err)
		return
	}
	list.Refuse(err)
}

func (o *Outbox) isSealed() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.sealed
}

func (o *Outbox) pending(id durable.ID) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.ContainsFunc(o.inserts, func(in durable.Insert) bool { return in.ID == id })
}

// seal ends the collecting and returns what there is.
func (o *Outbox) seal() []durable.Insert {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.sealed = true
	return o.inserts
}

// commit commits what the operation has added. It has a time limit of its own,
// the queue's: a client that goes away changes nothing.
func (o *Outbox) commit(ctx context.Context) error {
	inserts := o.seal()
	if len(inserts) == 0 {
		return nil
	}
	if o.req.tasks.Sealed() {
		return background.ErrSealed // somebody has answered in its place
	}
	if _, err := o.in.queue.Commit(context.WithoutCancel(ctx), inserts); err != nil {
		return &commitError{err}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.inserts = nil // they are not pending any more
	return nil
}

// A commitError says that an operation's tasks were not committed.
type commitError struct{ err error }

func (e *commitError) Error() string { return "commit the operation's tasks: " + e.err.Error() }
func (e *commitError) Unwrap() error { return e.err }

var errNoQueue = errors.New(`this application has no queue: give wake.Queue("sqlite:app.db") or wake.OpenStore to wake.New`)

// canQueue checks that there is a queue for the task.
func (in *instance) canQueue(q durable.Queueable) error {
	if q == nil {
		return errors.New("a nil job was added to the queue; make one with the task's With")
	}
	if in.queue == nil {
		return fmt.Errorf("task %q: %w", durable.AsJob(q).Kind(), errNoQueue)
	}
	return nil
}

// admit refuses a task that nobody would ever run, however it is added.
func (in *instance) admit(job durable.Job) error {
	if job.Policy().Local && !in.runs(job.Kind()) {
		return errors.New("this program could not run it from the queue: give the task to app.Tasks")
	}
	return nil
}

// meta says what a request's queued tasks come from.
func (r *request) meta() durable.Meta {
	return durable.Meta{RequestID: background.RequestID(r.ctx.Context), TraceParent: traceParent(r.r.Header.Get("Traceparent"))}
}

// traceParent returns a trace header of the W3C's form, or nothing.
func traceParent(header string) string {
	const form = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	if len(header) != len(form) {
		return ""
	}
	for i := range len(form) {
		c := header[i]
		switch {
		case form[i] == '-' && c == '-':
		case form[i] != '-' && ('0' <= c && c <= '9' || 'a' <= c && c <= 'f'):
		default:
			return ""
		}
	}
	return header
}

// An outbasket keeps jobs in a test.
type outbasket struct {
	mu   sync.Mutex
	jobs []durable.Job
}

func (b *outbasket) add(jobs []durable.Queueable) []durable.ID {
	b.mu.Lock()
	defer b.mu.Unlock()
	ids := make([]durable.ID, len(jobs))
	for i, job := range jobs {
		if job == nil {
			panic("wake: a nil job was added to the queue; make one with the task's With")
		}
		b.jobs, ids[i] = append(b.jobs, durable.AsJob(job)), durable.NewID()
	}
	return ids
}

func (b *outbasket) all() []durable.Job {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.jobs)
}
