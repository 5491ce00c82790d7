package durable

import (
	"context"
	"fmt"
)

// Get returns a task, by its id or by that of a duplicate, with the errors of
// its attempts, and its argument and result as they were before they were
// sealed; what the Codec cannot open is left out. An unknown id is an error
// that matches [ErrNotFound].
func (q *Queue) Get(ctx context.Context, id ID) (*Task, error) {
	t, err := q.store.Get(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("durable: get task %v: %w", id, err)
	}
	_ = q.open(t) // the rest of the task is worth showing
	return t, nil
}

// open opens a task's argument and result. It empties what it cannot open and
// returns an error if that is the result.
func (q *Queue) open(t *Task) error {
	if q.cfg.Codec == nil {
		return nil
	}
	t.Payload, _ = q.opened(t.Kind, t.Payload)
	var err error
	if t.Result, err = q.opened(t.Kind, t.Result); err != nil {
		return fmt.Errorf("durable: open the result of task %v (%s): %w", t.ID, t.Kind, err)
	}
	return nil
}

func (q *Queue) opened(kind string, sealed []byte) ([]byte, error) {
	if q.cfg.Codec == nil || sealed == nil {
		return sealed, nil
	}
	plain, err := q.cfg.Codec.Open(kind, sealed)
	if err != nil {
		return nil, err
	}
	return plain, nil
}

// Redacted returns what may be shown of the argument of a task from
// [Queue.Get], see QueueConfig.Redact.
func (q *Queue) Redacted(t *Task) []byte { return q.cfg.Redact(t.Kind, t.Payload) }

// List returns tasks, newest first, without arguments, results and errors.
func (q *Queue) List(ctx context.Context, f Filter, p Page) ([]Task, error) {
	return q.store.List(ctx, f, p)
}

// Counts returns how many tasks there are of each queue, kind and state.
func (q *Queue) Counts(ctx context.Context) ([]Count, error) { return q.store.Counts(ctx) }

// Queues returns the queues that have tasks or are paused.
func (q *Queue) Queues(ctx context.Context) ([]QueueInfo, error) { return q.store.Queues(ctx) }

// Nodes returns the processes that have the store open.
func (q *Queue) Nodes(ctx context.Context) ([]NodeInfo, error) { return q.store.Nodes(ctx) }

// Cancel cancels a task: at once if it does not run; otherwise its context
// ends with [ErrCancelled], and it is cancelled if its handler then returns an
// error. It returns the state the task has now; a finished one keeps its own.
func (q *Queue) Cancel(ctx context.Context, id ID) (State, error) {
	state, err := q.store.Cancel(ctx, id)
	if err != nil {
		return 0, fmt.Errorf("durable: cancel task %v: %w", id, err)
	}
	if state == Running {
		q.batcher.tellEngine((*Engine).beatSoon)
	}
	q.waits.wakeAll() // id may be an alias of what others wait for
	return state, nil
}

// Retry lets a dead, cancelled or scheduled task run at once; a finished one
// begins with its first attempt again. If another unfinished task has its key
// now, the error matches [ErrDuplicate].
func (q *Queue) Retry(ctx context.Context, id ID) error {
	if err := q.store.Retry(ctx, id); err != nil {
		return fmt.Errorf("durable: retry task %v: %w", id, err)
	}
	q.batcher.tellEngine((*Engine).wake)
	return nil
}

// Delete removes a task that does not run.
func (q *Queue) Delete(ctx context.Context, id ID) error {
	if err := q.store.Delete(ctx, id); err != nil {
		return fmt.Errorf("durable: delete task %v: %w", id, err)
	}
	q.waits.wakeAll()
	return nil
}

// Pause stops the tasks of a queue from being begun, by any process. What runs
// goes on, and tasks can be added.
func (q *Queue) Pause(ctx context.Context, queue string) error {
	return q.setPaused(ctx, queue, true)
}

// Resume undoes [Queue.Pause].
func (q *Queue) Resume(ctx context.Context, queue string) error {
	return q.setPaused(ctx, queue, false)
}

func (q *Queue) setPaused(ctx context.Context, queue string, paused bool) error {
	if err := checkName("queue", queue); err != nil {
		return err
	}
	if err := q.store.SetPaused(ctx, queue, paused); err != nil {
		return fmt.Errorf("durable: pause or resume queue %q: %w", queue, err)
	}
	q.batcher.tellEngine((*Engine).wake)
	return nil
}
