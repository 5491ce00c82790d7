package memory

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/wake-go/wake/durable"
)

const (
	defaultPage = 100
	maxPage     = 1000
)

// locate begins a transaction on one task. The caller calls end unless there
// is an error.
func (s *Store) locate(ctx context.Context, id durable.ID) (*record, error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	r := s.find(id)
	if r == nil {
		s.end()
		return nil, fmt.Errorf("durable: task %v: %w", id, durable.ErrNotFound)
	}
	return r, nil
}

// Get implements [durable.Store].
func (s *Store) Get(ctx context.Context, id durable.ID) (*durable.Task, error) {
	r, err := s.locate(ctx, id)
	if err != nil {
		return nil, err
	}
	defer s.end()
	t := r.view()
	return &t, nil
}

// List implements [durable.Store].
func (s *Store) List(ctx context.Context, f durable.Filter, p durable.Page) ([]durable.Task, error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	defer s.end()
	limit := p.Limit
	if limit <= 0 {
		limit = defaultPage
	}
	limit = min(limit, maxPage)
	end := len(s.ordered)
	if !p.After.IsZero() {
		end, _ = slices.BinarySearchFunc(s.ordered, p.After, byID)
	}
	var tasks []durable.Task
	for i := end - 1; i >= 0 && len(tasks) < limit; i-- {
		if r := s.ordered[i]; r.matches(&f) {
			tasks = append(tasks, r.summary())
		}
	}
	return tasks, nil
}

func (r *record) matches(f *durable.Filter) bool {
	return (len(f.States) == 0 || slices.Contains(f.States, r.State)) &&
		(f.Queue == "" || f.Queue == r.Queue) &&
		(f.Kind == "" || f.Kind == r.Kind) &&
		(f.Key == "" || f.Key == r.Key) &&
		(f.Tag == "" || slices.Contains(r.Tags, f.Tag)) &&
		(f.After.IsZero() || !r.CreatedAt.Before(f.After)) &&
		(f.Before.IsZero() || r.CreatedAt.Before(f.Before))
}

// Counts implements [durable.Store].
func (s *Store) Counts(ctx context.Context) ([]durable.Count, error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	defer s.end()
	type group struct {
		lane
		state durable.State
	}
	numbers := map[group]int{}
	for _, r := range s.ordered {
		numbers[group{r.lane(), r.State}]++
	}
	var counts []durable.Count
	for g, n := range numbers {
		counts = append(counts, durable.Count{
			Queue: g.queue, Kind: g.kind, State: g.state, N: min(n, durable.MaxCount), More: n > durable.MaxCount,
		})
	}
	slices.SortFunc(counts, func(a, b durable.Count) int {
		return cmp.Or(cmp.Compare(a.Queue, b.Queue), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.State, b.State))
	})
	return counts, nil
}

// Queues implements [durable.Store].
func (s *Store) Queues(ctx context.Context) ([]durable.QueueInfo, error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	defer s.end()
	oldest := map[string]time.Duration{}
	for name := range s.paused {
		oldest[name] = 0
	}
	for _, r := range s.ordered {
		age := time.Duration(0)
		if r.State == durable.Ready {
			age = s.at.Sub(r.RunAt)
		}
		oldest[r.Queue] = max(oldest[r.Queue], age)
	}
	var queues []durable.QueueInfo
	for name, age := range oldest {
		queues = append(queues, durable.QueueInfo{Name: name, Paused: s.paused[name], Oldest: age})
	}
	slices.SortFunc(queues, func(a, b durable.QueueInfo) int { return cmp.Compare(a.Name, b.Name) })
	return queues, nil
}

// SetPaused implements [durable.Store].
func (s *Store) SetPaused(ctx context.Context, queue string, paused bool) error {
	if err := s.begin(ctx); err != nil {
		return err
	}
	defer s.end()
	if paused {
		s.paused[queue] = true
	} else {
		delete(s.paused, queue)
	}
	s.raised |= durable.SignalTasks
	return nil
}

// Cancel implements [durable.Store].
func (s *Store) Cancel(ctx context.Context, id durable.ID) (durable.State, error) {
	r, err := s.locate(ctx, id)
	if err != nil {
		return 0, err
	}
	defer s.end()
	return s.cancel(r)
}

func (s *Store) cancel(r *record) (durable.State, error) {
	if r.State.Finished() {
		return r.State, nil
	}
	if r.CancelledAt.IsZero() {
		r.CancelledAt = s.at
	}
	if r.State == durable.Running {
		s.raised |= durable.SignalCancelled
		return r.State, nil
	}
	err := s.move(r, durable.MoveCancel, 0)
	return r.State, err
}

// Retry implements [durable.Store].
func (s *Store) Retry(ctx context.Context, id durable.ID) error {
	r, err := s.locate(ctx, id)
	if err != nil {
		return err
	}
	defer s.end()
	if other := s.keys[r.key()]; r.Key != "" && r.State.Finished() && r.State != durable.Succeeded && other != nil {
		return fmt.Errorf("durable: retry task %v: task %v has its key %q: %w", r.ID, other.ID, r.Key, durable.ErrDuplicate)
	}
	if err := s.move(r, durable.MoveRetry, 0); err != nil {
		return fmt.Errorf("durable: retry task %v: %w", r.ID, err)
	}
	r.FinishedAt, r.CancelledAt, r.Progress = time.Time{}, time.Time{}, nil
	return nil
}

// Delete implements [durable.Store].
func (s *Store) Delete(ctx context.Context, id durable.ID) error {
	r, err := s.locate(ctx, id)
	if err != nil {
		return err
	}
	defer s.end()
	if r.State == durable.Running {
		return fmt.Errorf("durable: delete task %v, which is running; cancel it first: %w", r.ID, durable.ErrState)
	}
	s.remove(r)
	at, _ := slices.BinarySearchFunc(s.ordered, r.ID, byID)
	s.ordered = slices.Delete(s.ordered, at, at+1)
	s.raised |= durable.SignalFinished
	return nil
}

// Prune implements [durable.Store].
func (s *Store) Prune(ctx context.Context, keep map[string]durable.Retention, limit int) (int, error) {
	if err := s.begin(ctx); err != nil {
		return 0, err
	}
	defer s.end()
	retention := map[string]durable.Retention{}
	of := func(queue string) durable.Retention {
		r, ok := retention[queue]
		if !ok {
			if r, ok = keep[queue]; !ok {
				r = keep[""]
			}
			r = r.WithDefaults()
			retention[queue] = r
		}
		return r
	}
	deleted := 0
	s.ordered = slices.DeleteFunc(s.ordered, func(r *record) bool {
		if deleted >= limit || !r.State.Finished() || r.retained(of(r.Queue), s.at) {
			return false
		}
		s.remove(r)
		deleted++
		return true
	})
	return deleted, nil
}
