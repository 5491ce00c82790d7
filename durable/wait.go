package durable

import (
	"context"
	"iter"
	"sync"
	"sync/atomic"
	"time"
)

// Waiting polls as well, as processes elsewhere may finish the task: from
// pollFirst, growing by half, to pollMost.
const (
	pollFirst = 50 * time.Millisecond
	pollMost  = time.Second
)

// waits wakes those who wait for tasks of this process.
type waits struct {
	n    atomic.Int64
	mu   sync.Mutex
	byID map[ID]map[chan struct{}]struct{}
}

func newWaits() *waits { return &waits{byID: map[ID]map[chan struct{}]struct{}{}} }

func (w *waits) add(id ID, c chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.byID[id] == nil {
		w.byID[id] = map[chan struct{}]struct{}{}
	}
	w.byID[id][c] = struct{}{}
	w.n.Add(1)
}

func (w *waits) remove(id ID, c chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.byID[id], c)
	if len(w.byID[id]) == 0 {
		delete(w.byID, id)
	}
	w.n.Add(-1)
}

// wake wakes who waits for a task. It costs next to nothing if nobody waits.
func (w *waits) wake(id ID) {
	if w.n.Load() == 0 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for c := range w.byID[id] {
		notify(c)
	}
}

func (w *waits) wakeAll() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, cs := range w.byID {
		for c := range cs {
			notify(c)
		}
	}
}

// notify leaves a word in a channel with room for one.
func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// WaitFor waits until a task has finished, wherever it runs, and returns it
// with its result. In the operation or the transaction that adds the task it
// returns [ErrNotCommitted] at once, as it would wait for ever. An error of the
// store ends the wait.
func (q *Queue) WaitFor(ctx context.Context, id ID) (*Task, error) {
	for t, err := range q.Watch(ctx, id) {
		if err != nil || t.State.Finished() {
			return t, err
		}
	}
	return nil, context.Cause(ctx)
}

// Watch returns the task as it is now, and again whenever its state, attempt
// or progress has changed, until it has finished; changes that follow each
// other quickly may be seen as one. Each task is the caller's to keep. An error
// ends the sequence: ctx's cause, [ErrNotCommitted], [ErrNotFound], or another
// one of the store.
func (q *Queue) Watch(ctx context.Context, id ID) iter.Seq2[*Task, error] {
	return func(yield func(*Task, error) bool) {
		if isPending(ctx, q, id) {
			yield(nil, ErrNotCommitted)
			return
		}
		w := q.newWatcher(id)
		defer w.close()
		for {
			t, err := w.next(ctx)
			if err != nil {
				yield(nil, err)
				return
			}
			if !yield(t, nil) || t.State.Finished() {
				return
			}
		}
	}
}

// A watcher looks at one task again when it may have changed.
type watcher struct {
	q    *Queue
	id   ID
	real ID // the task's own id, should id be an alias
	last *Task
	wake chan struct{}
	sub  *subscription
	poll *time.Timer
	wait time.Duration

	looked time.Time
}

func (q *Queue) newWatcher(id ID) *watcher {
	w := &watcher{
		q: q, id: id, real: id, wake: make(chan struct{}, 1), wait: pollFirst,
		sub: q.signals.subscribe(SignalFinished), poll: time.NewTimer(pollFirst),
	}
	q.waits.add(id, w.wake)
	return w
}

func (w *watcher) close() {
	w.q.waits.remove(w.id, w.wake)
	if w.real != w.id {
		w.q.waits.remove(w.real, w.wake)
	}
	w.q.signals.unsubscribe(w.sub)
	w.poll.Stop()
}

// next returns the task once it differs from the last time.
func (w *watcher) next(ctx context.Context) (*Task, error) {
	for {
		if w.last != nil {
			if err := w.pause(ctx); err != nil {
				return nil, err
			}
		}
		w.looked = time.Now()
		t, err := w.q.store.Get(ctx, w.id)
		switch {
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case err != nil:
			return nil, err
		case t.ID != w.id && w.real == w.id:
			w.real = t.ID
			w.q.waits.add(w.real, w.wake)
			continue // it may have finished in between
		}
		if err := w.q.open(t); err != nil {
			return nil, err
		}
		if w.last == nil || changed(w.last, t) {
			w.last, w.wait = t, pollFirst
			w.poll.Reset(w.wait)
			shown := *t
			return &shown, nil
		}
	}
}

// pause waits for a reason to look again. What the store signals may be about
// any task, so that is followed no more often than the quickest poll.
func (w *watcher) pause(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-w.wake:
			return nil
		case <-w.sub.C:
			w.sub.take()
			if rest := pollFirst - time.Since(w.looked); rest > 0 {
				w.poll.Reset(rest)
				continue
			}
			return nil
		case <-w.poll.C:
			w.wait = min(w.wait*3/2, pollMost)
			w.poll.Reset(w.wait)
			return nil
		}
	}
}

func changed(a, b *Task) bool {
	if (a.Progress == nil) != (b.Progress == nil) || a.Progress != nil && *a.Progress != *b.Progress {
		return true
	}
	return a.State != b.State || a.Attempt != b.Attempt || a.Crashes != b.Crashes || !a.RunAt.Equal(b.RunAt) || !a.CancelledAt.Equal(b.CancelledAt)
}
