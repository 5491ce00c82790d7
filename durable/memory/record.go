package memory

import (
	"bytes"
	"container/heap"
	"slices"
	"time"

	"github.com/wake-go/wake/durable"
)

// record is a stored task.
type record struct {
	durable.Task
	seq     int64 // order of insertion
	boot    durable.Boot
	aliases []durable.ID
	index   int // in the queue it waits in

	// The last claim that its own worker has finished, as against one that
	// was taken away.
	doneBoot  durable.Boot
	doneFence int64
}

type lane struct{ queue, kind string }

type uniqueKey struct{ kind, key string }

func (r *record) lane() lane       { return lane{r.Queue, r.Kind} }
func (r *record) key() uniqueKey   { return uniqueKey{r.Kind, r.Key} }
func (r *record) ref() durable.Ref { return durable.Ref{ID: r.ID, Seq: r.seq, Fence: r.Fence} }

// view returns a copy that shares nothing with the record.
func (r *record) view() durable.Task {
	t := r.summary()
	t.Payload, t.Result = bytes.Clone(r.Payload), bytes.Clone(r.Result)
	t.Errors = slices.Clone(r.Errors)
	return t
}

// summary is view without what may be large.
func (r *record) summary() durable.Task {
	t := r.Task
	t.Payload, t.Result, t.Errors = nil, nil, nil
	t.Tags = slices.Clone(r.Tags)
	if r.Progress != nil {
		p := *r.Progress
		t.Progress = &p
	}
	return t
}

func (r *record) addError(e durable.AttemptError, at time.Time) {
	e.At = at
	r.Errors = append(r.Errors, e)
	r.Errors = r.Errors[max(0, len(r.Errors)-durable.MaxErrors):]
}

// move makes a move, and is the one place where a record changes its state.
// Somebody's wish to cancel a running task holds when its attempt ends in
// another way than by success: it does not run again.
func (s *Store) move(r *record, m durable.Move, delay time.Duration) error {
	from := durable.Status{State: r.State, Attempt: r.Attempt, Crashes: r.Crashes, Fence: r.Fence, RunAt: r.RunAt}
	to, err := durable.Advance(from, m, s.at, delay)
	if err == nil && from.State == durable.Running && !to.State.Finished() && !r.CancelledAt.IsZero() {
		to, err = durable.Advance(to, durable.MoveCancel, s.at, 0)
	}
	if err != nil {
		return err
	}
	s.leave(r)
	r.State, r.Attempt, r.Crashes, r.Fence, r.RunAt = to.State, to.Attempt, to.Crashes, to.Fence, to.RunAt
	s.enter(r)
	return nil
}

// enter puts a record where those of its state are found.
func (s *Store) enter(r *record) {
	switch {
	case r.State == durable.Ready:
		q := s.ready[r.lane()]
		if q == nil {
			q = newQueue(claimFirst)
			s.ready[r.lane()] = q
		}
		heap.Push(q, r)
		s.raised |= durable.SignalTasks
	case r.State == durable.Scheduled:
		heap.Push(s.scheduled, r)
		s.raised |= durable.SignalTasks
	case r.State == durable.Running:
		if s.running[r.boot] == nil {
			s.running[r.boot] = map[*record]struct{}{}
		}
		s.running[r.boot][r] = struct{}{}
	case r.State.Finished():
		r.FinishedAt = s.at
		s.raised |= durable.SignalFinished
	}
	if r.Key != "" && !r.State.Finished() {
		s.keys[r.key()] = r
	}
}

// leave undoes enter.
func (s *Store) leave(r *record) {
	switch r.State {
	case durable.Ready:
		q := s.ready[r.lane()]
		heap.Remove(q, r.index)
		if q.Len() == 0 {
			delete(s.ready, r.lane())
		}
	case durable.Scheduled:
		heap.Remove(s.scheduled, r.index)
	case durable.Running:
		delete(s.running[r.boot], r)
		if len(s.running[r.boot]) == 0 {
			delete(s.running, r.boot)
		}
	}
	if r.Key != "" && !r.State.Finished() {
		delete(s.keys, r.key())
	}
}

// find returns a task by its id or by that of a duplicate.
func (s *Store) find(id durable.ID) *record {
	if r := s.tasks[id]; r != nil {
		return r
	}
	return s.aliases[id]
}

// owned returns the task of a claim, nil if it is not boot's any more.
func (s *Store) owned(boot durable.Boot, ref durable.Ref) *record {
	r := s.tasks[ref.ID]
	if r == nil || r.State != durable.Running || r.boot != boot || r.Fence != ref.Fence {
		return nil
	}
	return r
}

// remove forgets a record, except that it stays in ordered.
func (s *Store) remove(r *record) {
	s.leave(r)
	delete(s.tasks, r.ID)
	for _, id := range r.aliases {
		delete(s.aliases, id)
	}
}

// queue is a heap of records, each of which knows its place.
type queue struct {
	items []*record
	first func(a, b *record) bool
}

func newQueue(first func(a, b *record) bool) *queue { return &queue{first: first} }

func (q *queue) Len() int           { return len(q.items) }
func (q *queue) Less(i, j int) bool { return q.first(q.items[i], q.items[j]) }

func (q *queue) Swap(i, j int) {
	q.items[i], q.items[j] = q.items[j], q.items[i]
	q.items[i].index, q.items[j].index = i, j
}

func (q *queue) Push(x any) {
	r := x.(*record)
	r.index = len(q.items)
	q.items = append(q.items, r)
}

func (q *queue) Pop() any {
	last := len(q.items) - 1
	r := q.items[last]
	q.items[last] = nil
	q.items = q.items[:last]
	return r
}

// claimFirst is the order in which ready tasks are claimed.
func claimFirst(a, b *record) bool {
	if a.Priority != b.Priority {
		return a.Priority > b.Priority
	}
	return a.seq < b.seq
}

// dueFirst is the order in which scheduled tasks become ready.
func dueFirst(a, b *record) bool {
	if !a.RunAt.Equal(b.RunAt) {
		return a.RunAt.Before(b.RunAt)
	}
	return a.seq < b.seq
}
