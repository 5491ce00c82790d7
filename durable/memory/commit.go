package memory

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/wake-go/wake/durable"
)

// Commit implements [durable.Store]. Functions fail: there is no transaction
// that they could share.
func (s *Store) Commit(ctx context.Context, b *durable.Batch) (*durable.BatchResult, error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	defer s.end()
	for _, f := range b.Funcs {
		f.Err = errors.New("durable: the memory store runs no functions in a batch; use InTx")
	}
	res := &durable.BatchResult{Now: s.at}
	for i := range b.Finishes {
		res.Finished = append(res.Finished, s.finish(b, &b.Finishes[i]))
	}
	for i := range b.Progress {
		res.Progressed = append(res.Progressed, s.progress(b.Boot, &b.Progress[i]))
	}
	for i := range b.Fires {
		res.Fired = append(res.Fired, s.fire(&b.Fires[i], b.Again))
	}
	for i := range b.Inserts {
		res.Inserted = append(res.Inserted, s.insert(&b.Inserts[i], b.Again))
	}
	s.promote()
	if s.nodes[b.Boot] != nil { // nobody would ever take back what an unknown boot claims
		for i := range b.Claims {
			res.Claimed = s.claim(b.Boot, &b.Claims[i], res.Claimed)
		}
	}
	if s.scheduled.Len() > 0 {
		res.NextDue = s.scheduled.items[0].RunAt
	}
	return res, nil
}

// insert adds a task, or another name for the one that has its key.
func (s *Store) insert(in *durable.Insert, again bool) durable.Inserted {
	if r := s.find(in.ID); r != nil && again {
		return durable.Inserted{ID: r.ID, Duplicate: r.ID != in.ID}
	}
	if err := s.checkInsert(in); err != nil {
		return durable.Inserted{ID: in.ID, Err: err}
	}
	if other := s.keys[uniqueKey{in.Kind, in.Key}]; in.Key != "" && other != nil {
		s.aliases[in.ID] = other
		other.aliases = append(other.aliases, in.ID)
		return durable.Inserted{ID: other.ID, Duplicate: true}
	}
	s.seq++
	r := &record{seq: s.seq, Task: durable.Task{
		ID: in.ID, Kind: in.Kind, Queue: in.Queue, Priority: in.Priority, Key: in.Key,
		Tags: slices.Clone(in.Tags), MaxAttempts: in.MaxAttempts, Timeout: in.Timeout,
		Payload: bytes.Clone(in.Payload), Meta: in.Meta,
		State: durable.Ready, CreatedAt: s.at, RunAt: s.at,
	}}
	due := in.At
	if due.IsZero() {
		due = s.at.Add(in.Delay)
	}
	if due.After(s.at) {
		r.State, r.RunAt = durable.Scheduled, due.Round(0).UTC()
	}
	s.tasks[r.ID] = r
	at, _ := slices.BinarySearchFunc(s.ordered, r.ID, byID)
	s.ordered = slices.Insert(s.ordered, at, r)
	s.enter(r)
	return durable.Inserted{ID: r.ID}
}

func byID(r *record, id durable.ID) int { return bytes.Compare(r.ID[:], id[:]) }

func (s *Store) checkInsert(in *durable.Insert) error {
	switch {
	case in.ID.IsZero() || in.Kind == "" || in.Queue == "":
		return fmt.Errorf("durable: a task with id %v, kind %q and queue %q; none of them can be empty", in.ID, in.Kind, in.Queue)
	case s.find(in.ID) != nil:
		return fmt.Errorf("durable: there is a task with id %v already; make another with NewID", in.ID)
	case len(s.tasks) >= s.cfg.MaxTasks:
		return fmt.Errorf("durable: the memory store has %d tasks, its MaxTasks: %w: %w", len(s.tasks), durable.ErrFull, durable.ErrUnavailable)
	}
	return nil
}

// finish records an outcome. One that has been recorded already counts as
// recorded when the batch is a repeated one.
func (s *Store) finish(b *durable.Batch, f *durable.Finish) bool {
	switch f.Move {
	case durable.MoveSucceed, durable.MoveFail, durable.MoveExhaust, durable.MoveSnooze, durable.MoveRelease, durable.MoveCancel:
	default:
		return false
	}
	r := s.owned(b.Boot, f.Ref)
	if r == nil {
		return b.Again && s.finished(b.Boot, f.Ref)
	}
	if s.move(r, f.Move, f.Delay) != nil {
		return false
	}
	r.doneBoot, r.doneFence = b.Boot, f.Ref.Fence
	if f.Move == durable.MoveSucceed {
		r.Result = bytes.Clone(f.Result)
	}
	if f.Error != nil {
		r.addError(*f.Error, s.at)
	}
	return true
}

func (s *Store) finished(boot durable.Boot, ref durable.Ref) bool {
	r := s.tasks[ref.ID]
	return r != nil && r.doneBoot == boot && r.doneFence == ref.Fence
}

// Finished implements [durable.Store]. It knows of a task's last claim that
// was finished.
func (s *Store) Finished(ctx context.Context, boot durable.Boot, ref durable.Ref) (bool, error) {
	if err := s.begin(ctx); err != nil {
		return false, err
	}
	defer s.end()
	return s.finished(boot, ref), nil
}

func (s *Store) progress(boot durable.Boot, p *durable.ProgressUpdate) bool {
	r := s.owned(boot, p.Ref)
	if r == nil {
		return false
	}
	report := p.Report
	report.At = s.at
	r.Progress = &report
	s.raised |= durable.SignalFinished
	return true
}

// promote makes ready what is due.
func (s *Store) promote() {
	for s.scheduled.Len() > 0 {
		r := s.scheduled.items[0]
		if r.RunAt.After(s.at) || s.move(r, durable.MovePromote, 0) != nil {
			return
		}
	}
}

// claim appends up to the limit of ready tasks, the best of the lanes first.
func (s *Store) claim(boot durable.Boot, c *durable.Claim, claimed []durable.Claimed) []durable.Claimed {
	if s.paused[c.Queue] {
		return claimed
	}
	var suspects []*record
	defer func(raised durable.Signal) {
		for _, r := range suspects {
			s.enter(r)
			s.raised = raised // they have been there all the time
		}
	}(s.raised)
	for n := 0; n < c.Limit; n++ {
		var r *record
		for _, kind := range c.Kinds {
			if q := s.ready[lane{c.Queue, kind}]; q != nil && (r == nil || claimFirst(q.items[0], r)) {
				r = q.items[0]
			}
		}
		if r == nil {
			break
		}
		if c.Calm && durable.Suspect(r.Crashes) {
			s.leave(r)
			suspects = append(suspects, r)
			n--
			continue
		}
		r.boot = boot
		if s.move(r, durable.MoveClaim, 0) != nil {
			break
		}
		r.StartedAt, r.Node = s.at, s.nodes[boot].Name
		claimed = append(claimed, durable.Claimed{
			Ref: r.ref(), Kind: r.Kind, Queue: r.Queue, Priority: r.Priority,
			Attempt: r.Attempt, MaxAttempts: r.MaxAttempts, Crashes: r.Crashes,
			Key: r.Key, Tags: slices.Clone(r.Tags), Timeout: r.Timeout,
			Payload: bytes.Clone(r.Payload), Meta: r.Meta, CreatedAt: r.CreatedAt, RunAt: r.RunAt,
		})
	}
	return claimed
}

// retained reports whether a finished task is still to be kept.
func (r *record) retained(keep durable.Retention, now time.Time) bool {
	limit := keep.Succeeded
	switch r.State {
	case durable.Dead:
		limit = keep.Dead
	case durable.Cancelled:
		limit = keep.Cancelled
	}
	return r.FinishedAt.Add(limit).After(now)
}
