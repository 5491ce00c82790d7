package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/wake-go/wake/durable"
)

// maxPromoted is how many scheduled tasks become ready in one transaction.
const maxPromoted = 1000

const promoteTasks = `WITH clock AS MATERIALIZED (SELECT ` + clock + ` AS now),
	due AS MATERIALIZED (
		SELECT id FROM wake.task WHERE state = 3 AND run_at <= (SELECT now FROM clock) ORDER BY run_at LIMIT $2::integer FOR UPDATE SKIP LOCKED
	),
	promoted AS (UPDATE wake.task t SET state = 1 FROM due WHERE t.id = due.id RETURNING t.id)
	SELECT now, set_config('wake_batch.promoted', (SELECT count(*) FROM promoted)::text, true)::bigint,
		(SELECT run_at FROM wake.task WHERE state = 3 AND run_at > (SELECT now FROM clock) ORDER BY run_at LIMIT 1)
	FROM clock`

// A work is one Commit. What nobody can be in the way of is one transaction
// and one round trip: outcomes, progress, tasks without keys, claims. Ticks,
// and tasks with keys, which a user's open transaction can hold, follow in
// transactions of their own, and the claims after them. When one of those
// fails the first one has been committed, and the error matches ErrUnknown:
// the batcher then repeats the batch, of which nothing is done twice.
type work struct {
	s       *Store
	b       *durable.Batch
	res     *durable.BatchResult
	plain   []newTask // new, without keys
	careful []newTask // the others
	claims  []*asked

	moved int64 // scheduled tasks that have become ready
}

// Commit does the work of a batch. Tasks with keys and ticks of schedules are
// committed in transactions of their own, after the rest.
func (s *Store) Commit(ctx context.Context, b *durable.Batch) (*durable.BatchResult, error) {
	if s.ended.Err() != nil {
		return nil, durable.ErrClosed
	}
	if ctx.Err() != nil {
		return nil, fmt.Errorf("durable: postgres: commit: %w", context.Cause(ctx))
	}
	for _, f := range b.Funcs {
		f.Err = durable.ErrApart
	}
	w := &work{s: s, b: b, res: &durable.BatchResult{
		Finished: make([]bool, len(b.Finishes)), Progressed: make([]bool, len(b.Progress)),
		Fired: make([]durable.FireResult, len(b.Fires)), Inserted: make([]durable.Inserted, len(b.Inserts)),
	}}
	err := w.prepare(ctx)
	if err == nil {
		err = w.do(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("durable: postgres: commit: %w", explained(err))
	}
	w.tell()
	return w.res, nil
}

// prepare sorts the inserts.
func (w *work) prepare(ctx context.Context) error {
	tasks, err := w.s.newTasks(ctx, w.b.Inserts, w.res.Inserted)
	for _, t := range tasks {
		if t.ukey != nil || w.b.Again {
			w.careful = append(w.careful, t)
		} else {
			w.plain = append(w.plain, t)
		}
	}
	byID(w.plain)
	return err
}

func (w *work) do(ctx context.Context) error {
	apart := len(w.careful)+len(w.b.Fires) > 0
	if err := w.inTurn(ctx, !apart, func() error { return w.first(ctx, !apart) }); err != nil {
		return err
	}
	if err := w.rest(ctx, apart); err != nil {
		if errors.Is(err, durable.ErrUnknown) {
			return err
		}
		return fmt.Errorf("%w: a part of it was: %w", durable.ErrUnknown, err)
	}
	w.res.Claimed = w.s.claimed(ctx, w.b.Boot, w.claims, 0)
	return nil
}

// first is what nobody can be in the way of; all says that there is nothing
// else.
func (w *work) first(ctx context.Context, all bool) error {
	return w.s.pipelined(ctx, func(p *pipeline) error {
		clear(w.res.Finished)
		clear(w.res.Progressed)
		if len(w.b.Finishes) > 0 {
			if err := w.s.finish(ctx, p, w.b.Boot, w.b.Finishes, w.res.Finished); err != nil {
				return err
			}
		}
		if len(w.b.Progress) > 0 {
			if err := w.s.progress(ctx, p, w.b.Boot, w.b.Progress, w.res.Progressed); err != nil {
				return err
			}
		}
		if err := w.s.insertPlain(ctx, p, w.plain); err != nil || !all {
			return err
		}
		return w.last(ctx, p)
	})
}

// rest is what is committed apart.
func (w *work) rest(ctx context.Context, apart bool) error {
	if err := w.s.finishStuck(ctx, w.b, w.res.Finished); err != nil {
		return err
	}
	w.rewind() // for those who have claimed meanwhile
	if !apart {
		return nil
	}
	for i := range w.b.Fires {
		if err := w.s.fire(ctx, &w.b.Fires[i], &w.res.Fired[i], w.b.Again); err != nil {
			return err
		}
	}
	if err := w.keyed(ctx); err != nil {
		return err
	}
	return w.inTurn(ctx, true, func() error {
		return w.s.pipelined(ctx, func(p *pipeline) error { return w.last(ctx, p) })
	})
}

// inTurn runs f when no other commit of this process claims, if it claims: two
// that begin with the same tasks are in each other's way.
func (w *work) inTurn(ctx context.Context, claims bool, f func() error) error {
	if !claims || len(w.b.Claims) == 0 {
		return f()
	}
	select {
	case w.s.turn <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-w.s.turn }()
	return f()
}

// last promotes what is due and claims.
func (w *work) last(ctx context.Context, p *pipeline) error {
	w.rewind() // for what this transaction makes ready
	w.claims = w.s.claims(w.b)
	if err := w.promote(ctx, p); err != nil {
		return err
	}
	return w.s.runClaims(ctx, p, w.b.Boot, w.claims)
}

func (w *work) promote(ctx context.Context, r runner) error {
	return r.run(ctx, func(row row) error {
		var due *time.Time
		if err := row.Scan(&w.res.Now, &w.moved, &due); err != nil {
			return err
		}
		w.res.Now = w.res.Now.UTC()
		w.res.NextDue = timeOf(due)
		if w.moved == maxPromoted {
			w.res.NextDue = w.res.Now // there may be more
		}
		return nil
	}, promoteTasks, w.s.clockArg(), maxPromoted)
}

// keyed inserts the tasks that have keys, and those that may be there already.
// When somebody holds a key for too long, they are tried one by one, for twice
// as long altogether, so that those who want other keys get them.
func (w *work) keyed(ctx context.Context) error {
	if len(w.careful) == 0 {
		return nil
	}
	patience := w.s.cfg.LockTimeout
	err := w.insert(ctx, w.careful, patience)
	if !hasCode(err, codeLockTimeout) {
		return err
	}
	end := time.Now().Add(2 * patience)
	for i := range w.careful {
		one := err
		if len(w.careful) > 1 && time.Now().Before(end) {
			one = w.insert(ctx, w.careful[i:i+1], patience/20)
		}
		if one != nil && !hasCode(one, codeLockTimeout) {
			return one
		}
		if one != nil {
			w.res.Inserted[w.careful[i].index].Err = one
		}
	}
	return nil
}

func (w *work) insert(ctx context.Context, tasks []newTask, patience time.Duration) error {
	return w.s.writeWithin(ctx, patience, func(db pgx.Tx) error {
		left := append([]newTask(nil), tasks...)
		if w.b.Again {
			var err error
			if left, err = w.s.known(ctx, tx{w.s, db}, left, w.res.Inserted); err != nil {
				return err
			}
		}
		return w.s.insertKeys(ctx, tx{w.s, db}, left, w.res.Inserted)
	})
}

// rewind moves cursors back for the tasks that the batch makes ready.
func (w *work) rewind() {
	for _, tasks := range [][]newTask{w.plain, w.careful} {
		for i := range tasks {
			in := tasks[i].in
			w.s.cursors.ready(laneOf(in), cursor{rankOf(in.Priority), in.ID})
		}
	}
	if w.putBack() || len(w.b.Fires) > 0 {
		w.s.cursors.forget()
	}
}

// putBack reports whether tasks of the batch may be ready again.
func (w *work) putBack() bool {
	for _, f := range w.b.Finishes {
		if f.Delay <= 0 && (f.Move == durable.MoveFail || f.Move == durable.MoveSnooze || f.Move == durable.MoveRelease) {
			return true
		}
	}
	return false
}

// tell lets other processes know.
func (w *work) tell() {
	var what durable.Signal
	if len(w.b.Finishes)+len(w.b.Progress) > 0 {
		what |= durable.SignalFinished
	}
	if w.moved > 0 {
		w.s.cursors.forget()
	}
	if len(w.b.Inserts)+len(w.b.Fires) > 0 || w.moved > 0 || w.putBack() {
		what |= durable.SignalTasks
	}
	if len(w.b.Fires) > 0 {
		what |= durable.SignalSchedules | durable.SignalCancelled
	}
	w.s.line.notify(what)
}

func timeOf(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.UTC()
}
