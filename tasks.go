package wake

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"

	"github.com/wake-go/wake/background"
	"github.com/wake-go/wake/durable"
)

// Tasks takes an operation's tasks. They run one after another in the order
// they were added, once the response has been sent, and only if the operation
// returns no error. It may be used by several goroutines.
//
// In a running task, see [From], what is added runs after the tasks of the
// request that are already there. In a task that runs from the queue it runs at
// once, in memory, whatever becomes of the task.
type Tasks[S any] struct {
	list     *background.Tasks
	state    S
	included bool // the state has to be passed on for From
	in       *instance
	req      *request // nil outside of operations
	queued   *attempt // of the queued task that adds
	ctx      context.Context
	detached *detached[S]
}

// Add adds jobs to run after the response.
//
// If their lane is full and the application has a queue, tasks that were given
// to [Router.Tasks] go there instead, see [Outbox.Add]. Else the operation's
// context is cancelled with a cause
// that matches [background.ErrFull], whatever the operation returns is given
// up, and the client is answered 503 with Retry-After. After the request has
// ended, Add logs an error and counts the job as refused.
//
// So add before you commit what cannot be taken back: where a row is written
// first and the lane turns out to be full, the client is told to try again and
// the row is there.
func (t *Tasks[S]) Add(jobs ...Job[S]) {
	var buf [1]background.Task
	if t.detach(jobs) {
		return
	}
	tasks := t.tasks(buf[:0], jobs)
	switch {
	case t.queued != nil:
		t.addLoose(tasks)
	case !t.spills(tasks):
		t.list.AddTask(tasks...)
	case t.overflows(t.list.TryAdd(tasks...), tasks):
		t.list.AddTask(tasks...) // it refuses them, or a place has become free
	}
}

// TryAdd is Add that tells: it adds all jobs or none, and returns an error that
// matches [background.ErrFull], [background.ErrSealed] or
// [background.ErrClosed], or one that says which kind is not bound. It puts
// nothing into the queue.
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
	tasks := t.tasks(buf[:0], jobs)
	if t.queued != nil {
		return t.in.bg.AddAll(t.ctx, tasks...)
	}
	return t.list.TryAdd(tasks...)
}

// Group adds jobs that run beside each other; what is added later waits for
// all of them.
func (t *Tasks[S]) Group(jobs ...Job[S]) {
	if t.detach(jobs) {
		return
	}
	tasks := t.tasks(nil, jobs)
	switch {
	case t.queued != nil:
		for i := range tasks {
			t.addLoose(tasks[i : i+1])
		}
	case !t.spills(tasks):
		t.list.Group(tasks...)
	case t.overflows(t.list.TryGroup(tasks...), tasks):
		t.list.Group(tasks...)
	}
}

// Always adds jobs that also run when the operation returns an error: an audit
// record, a compensation. They do not go to the queue when their lane is full.
func (t *Tasks[S]) Always(jobs ...Job[S]) {
	if t.detach(jobs) {
		return
	}
	if tasks := t.tasks(nil, jobs); t.queued != nil {
		t.addLoose(tasks)
	} else {
		t.list.Always(tasks...)
	}
}

// Func adds a function that is not worth declaring a task for.
func (t *Tasks[S]) Func(name string, run func(context.Context) error) {
	checkTask(name, run == nil)
	t.Add(Job[S]{task: &function[S]{taskInfo{name: name}, run}})
}

// tasks makes tasks of jobs. It appends to buf, which a caller has on its stack.
func (t *Tasks[S]) tasks(buf []background.Task, jobs []Job[S]) []background.Task {
	for _, job := range jobs {
		if job.task == nil {
			panic(emptyJob)
		}
		info := job.task.info()
		arg := job.Arg()
		task := background.Task{
			Name: info.name, Lane: info.policy.Lane, Timeout: info.policy.Timeout,
			Run: t.run(job.task, arg), Handoff: t.in.handoff(info, arg),
		}
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

func (t *Tasks[S]) run(task Runnable[S], arg any) func(context.Context) error {
	state := t.state
	if !t.included {
		return func(ctx context.Context) error { return task.call(ctx, state, arg) }
	}
	return func(ctx context.Context) error {
		return task.call(context.WithValue(ctx, stateKey{}, &stateOf[S]{state}), state, arg)
	}
}

// spills reports whether the tasks can go to the queue.
func (t *Tasks[S]) spills(tasks []background.Task) bool {
	for i := range tasks {
		if tasks[i].Handoff == nil {
			return false
		}
	}
	return len(tasks) > 0
}

// overflows puts tasks that found their lane full into the queue, and reports
// whether that is not possible and err is to be dealt with.
func (t *Tasks[S]) overflows(err error, tasks []background.Task) bool {
	if err == nil {
		return false
	}
	if !errors.Is(err, background.ErrFull) && !errors.Is(err, background.ErrClosed) {
		return true
	}
	jobs := make([]durable.Queueable, len(tasks))
	for i, task := range tasks {
		jobs[i] = t.in.kind(task.Name).job(argOf(task.Handoff))
	}
	if t.req != nil {
		t.req.outbox.AddAll(jobs...)
		return false
	}
	_, err = (&Outbox{in: t.in, ctx: t.ctx}).addNow(t.ctx, jobs)
	if err != nil {
		logFor(t.ctx).Error("tasks found their lane full, and the queue did not take them", "error", err)
	}
	return err != nil
}

// addLoose adds tasks of a queued task, which belong to no request.
func (t *Tasks[S]) addLoose(tasks []background.Task) {
	err := t.in.bg.AddAll(t.ctx, tasks...)
	if err != nil && (!t.spills(tasks) || t.overflows(err, tasks)) {
		t.queued.fail(err)
	}
}

// Detached returns a call that belongs to no request and keeps the jobs that
// are added to it instead of running them, and functions that return those of
// its Tasks and those of its Queue. It is for trying a handler in a test;
// waketest.Call wraps it.
func Detached[S any](state S, r *http.Request) (call Call[S], tasks func() []Job[S], queued func() []durable.Job) {
	d, o := &detached[S]{}, &outbasket{}
	return Call[S]{
		State: state, Tasks: &Tasks[S]{state: state, detached: d}, Queue: &Outbox{basket: o}, Request: r, Response: &Response{},
	}, d.all, o.all
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
