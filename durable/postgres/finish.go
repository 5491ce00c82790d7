package postgres

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/wake-go/wake/durable"
)

// moved are the columns that go from the hot table to that of finished tasks as
// they are.
const (
	kept  = `id, lane, rank, max_attempts, fence, boot, run_at, created_at, started_at, cancel_at, progress_at, ukey, group_id, parent_id, progress, opts, payload`
	moved = kept + `, attempt, crashes`
)

// isRunning is written so that the planner does not look through the index of
// all that a process runs where it is to look for each task by its id.
const isRunning = `t.state BETWEEN 2 AND 2`

const (
	// Rows that a user's open transaction holds are left out, not waited for.
	succeedTasks = `WITH clock AS MATERIALIZED (SELECT ` + clock + ` AS now),
	held AS MATERIALIZED (
		SELECT f.n, f.result, t.id
		FROM unnest($2::uuid[], $3::bigint[], $4::bytea[], $5::integer[]) AS f (id, fence, result, n)
		JOIN wake.task t ON t.id = f.id AND t.fence = f.fence
		WHERE ` + isRunning + ` AND t.boot = $6::uuid
		ORDER BY t.id FOR UPDATE OF t SKIP LOCKED
	),
	gone AS (DELETE FROM wake.task t USING held WHERE t.id = held.id RETURNING held.n, held.result, t.*),
	kept AS (INSERT INTO wake.done (` + moved + `, state, finished_at, result)
		SELECT ` + moved + `, 6, now, result FROM gone, clock)
	SELECT n FROM gone`

	// A task that somebody wants cancelled does not wait again.
	finishTasks = `WITH clock AS MATERIALIZED (SELECT ` + clock + ` AS now),
	held AS MATERIALIZED (
		SELECT f.n, f.change, f.delay, f.cause, f.message, f.stack, f.node, f.number, t.id,
			CASE WHEN f.state < 6 AND t.cancel_at IS NOT NULL THEN 8 ELSE f.state END AS final
		FROM unnest($2::uuid[], $3::bigint[], $4::integer[], $5::smallint[], $6::integer[], $7::bigint[], $8::text[], $9::text[], $10::text[], $11::text[], $12::integer[])
			AS f (id, fence, n, state, change, delay, cause, message, stack, node, number)
		JOIN wake.task t ON t.id = f.id AND t.fence = f.fence
		WHERE ` + isRunning + ` AND t.boot = $13::uuid
		ORDER BY t.id FOR UPDATE OF t SKIP LOCKED
	),
	errors AS (INSERT INTO wake.attempt_error (task, attempt, at, cause, message, stack, node)
		SELECT id, number, now, cause, message, stack, node FROM held, clock WHERE cause IS NOT NULL ORDER BY n),
	gone AS (DELETE FROM wake.task t USING held WHERE t.id = held.id AND held.final >= 6 RETURNING held.n, held.final, held.change, t.*),
	kept AS (INSERT INTO wake.done (` + kept + `, attempt, crashes, state, finished_at)
		SELECT ` + kept + `, attempt + change, crashes, final, now FROM gone, clock),
	back AS (UPDATE wake.task t SET state = held.final, attempt = t.attempt + held.change,
			run_at = CASE WHEN held.delay < 0 THEN t.run_at ELSE clock.now + held.delay * interval '1 microsecond' END
		FROM held, clock WHERE t.id = held.id AND held.final < 6 RETURNING held.n)
	SELECT n FROM gone UNION ALL SELECT n FROM back`

	trimErrors = `DELETE FROM wake.attempt_error e WHERE task = ANY($1::uuid[])
		AND n <= (SELECT o.n FROM wake.attempt_error o WHERE o.task = e.task ORDER BY o.n DESC LIMIT 1 OFFSET $2)`

	updateProgress = `WITH mine AS MATERIALIZED (
		SELECT f.n, f.progress, t.id
		FROM unnest($2::uuid[], $3::bigint[], $4::bytea[], $5::integer[]) AS f (id, fence, progress, n)
		JOIN wake.task t ON t.id = f.id AND t.fence = f.fence
		WHERE ` + isRunning + ` AND t.boot = $6::uuid
	),
	held AS MATERIALIZED (
		SELECT t.id FROM wake.task t WHERE t.id IN (SELECT id FROM mine) AND ` + isRunning + ` AND t.boot = $6::uuid
		ORDER BY t.id FOR UPDATE SKIP LOCKED
	),
	done AS (UPDATE wake.task t SET progress = mine.progress, progress_at = ` + clock + `
		FROM mine JOIN held USING (id) WHERE t.id = mine.id)
	SELECT n FROM mine`

	// A claim that was finished by the one who had it.
	finishedClaims = `SELECT f.n FROM unnest($1::uuid[], $2::bigint[], $3::integer[]) AS f (id, fence, n)
		WHERE EXISTS (SELECT 1 FROM wake.done d WHERE d.id = f.id AND d.fence = f.fence AND d.boot = $4::uuid)
			OR EXISTS (SELECT 1 FROM wake.task t WHERE t.id = f.id AND t.fence = f.fence AND t.boot = $4::uuid AND t.state <> 2)`

	runningClaims = `SELECT f.n FROM unnest($1::uuid[], $2::bigint[], $3::integer[]) AS f (id, fence, n)
		JOIN wake.task t ON t.id = f.id AND t.fence = f.fence WHERE t.boot = $4::uuid AND ` + isRunning
)

// A target is where a move brings a running task, whatever it is like.
type target struct {
	state  durable.State
	change int   // of the attempts
	delay  int64 // in microseconds from now; negative: its time stays
}

// targetOf asks durable.Advance, which alone knows.
func targetOf(m durable.Move, delay time.Duration) (target, error) {
	const attempt = 5 // any
	stays := time.Unix(1, 0)
	now := time.Unix(2, 0)
	next, err := durable.Advance(durable.Status{State: durable.Running, Attempt: attempt, RunAt: stays}, m, now, delay)
	if err != nil {
		return target{}, err
	}
	t := target{next.State, next.Attempt - attempt, -1}
	if !next.RunAt.Equal(stays) {
		t.delay = next.RunAt.Sub(now).Microseconds()
	}
	return t, nil
}

// successes and outcomes are parameters of succeedTasks and finishTasks.
type successes struct {
	ids     [][16]byte
	fences  []int64
	results [][]byte
	numbers []int32
}

type outcomes struct {
	ids                             [][16]byte
	fences                          []int64
	numbers                         []int32
	states                          []int16
	changes                         []int32
	delays                          []int64
	causes, messages, stacks, nodes []*string
	attempts                        []int32
	failed                          [][16]byte // those with errors
}

func (o *outcomes) add(n int, f *durable.Finish, t target) {
	o.ids = append(o.ids, f.Ref.ID)
	o.fences = append(o.fences, f.Ref.Fence)
	o.numbers = append(o.numbers, int32(n))
	o.states = append(o.states, int16(t.state))
	o.changes = append(o.changes, int32(t.change))
	o.delays = append(o.delays, t.delay)
	var cause, message, stack, node *string
	attempt := int32(0)
	if e := f.Error; e != nil {
		cause, message, stack, node = clean(e.Cause), clean(e.Message), clean(e.Stack), clean(e.Node)
		attempt = int32(e.Attempt)
		o.failed = append(o.failed, f.Ref.ID)
	}
	o.causes, o.messages = append(o.causes, cause), append(o.messages, message)
	o.stacks, o.nodes = append(o.stacks, stack), append(o.nodes, node)
	o.attempts = append(o.attempts, attempt)
}

// clean is a text as the server takes it.
func clean(s string) *string {
	s = strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
	return &s
}

// finish records outcomes, and marks those whose claims were still good. It
// leaves out what others hold: see stuck.
func (s *Store) finish(ctx context.Context, r runner, boot durable.Boot, finishes []durable.Finish, ok []bool) error {
	var won successes
	var other outcomes
	seen := make(map[durable.Ref]bool, len(finishes))
	for i := range finishes {
		f := &finishes[i]
		if seen[f.Ref] {
			continue // the first outcome of a claim counts
		}
		seen[f.Ref] = true
		if f.Move == durable.MoveSucceed && f.Error == nil {
			won.ids, won.fences = append(won.ids, f.Ref.ID), append(won.fences, f.Ref.Fence)
			won.results, won.numbers = append(won.results, f.Result), append(won.numbers, int32(i))
			continue
		}
		t, err := targetOf(f.Move, f.Delay)
		if err != nil {
			return fmt.Errorf("durable: postgres: outcome of task %v: %w", f.Ref.ID, err)
		}
		other.add(i, f, t)
	}
	mark := marking(ok)
	if len(won.ids) > 0 {
		if err := r.run(ctx, mark, succeedTasks, s.clockArg(), won.ids, won.fences, won.results, won.numbers, boot[:]); err != nil {
			return err
		}
	}
	if len(other.ids) == 0 {
		return nil
	}
	if err := r.run(ctx, mark, finishTasks, s.clockArg(), other.ids, other.fences, other.numbers, other.states, other.changes, other.delays,
		other.causes, other.messages, other.stacks, other.nodes, other.attempts, boot[:]); err != nil {
		return err
	}
	if len(other.failed) == 0 {
		return nil
	}
	return r.run(ctx, nil, trimErrors, other.failed, durable.MaxErrors)
}

// marking marks the elements whose numbers are answered.
func marking(ok []bool) func(row) error {
	return func(row row) error {
		var n int32
		if err := row.Scan(&n); err != nil {
			return err
		}
		ok[n] = true
		return nil
	}
}

// refs are claims as parameters.
func refs(finishes []durable.Finish, which func(int) bool) (ids [][16]byte, fences []int64, numbers []int32) {
	for i := range finishes {
		if which(i) {
			ids, fences, numbers = append(ids, finishes[i].Ref.ID), append(fences, finishes[i].Ref.Fence), append(numbers, int32(i))
		}
	}
	return ids, fences, numbers
}

// finishStuck sees to the outcomes that were left out, as another transaction
// held their tasks: one that claims at the same time, for a moment, or a
// user's that finishes the task itself by FinishTx. It waits, but not for long;
// what is held for longer counts as not recorded, and if the user's
// transaction comes to nothing, Reconcile finds the task. In a batch that is
// repeated, what was finished before counts.
func (s *Store) finishStuck(ctx context.Context, b *durable.Batch, ok []bool) error {
	ids, fences, numbers := refs(b.Finishes, func(i int) bool { return !ok[i] })
	if len(ids) == 0 {
		return nil
	}
	running := make([]bool, len(ok))
	err := s.pipelined(ctx, func(p *pipeline) error {
		clear(running)
		if b.Again {
			if err := p.run(ctx, marking(ok), finishedClaims, ids, fences, numbers, b.Boot[:]); err != nil {
				return err
			}
		}
		return p.run(ctx, marking(running), runningClaims, ids, fences, numbers, b.Boot[:])
	})
	if err != nil {
		return err
	}
	var stuck []durable.Finish
	var index []int
	seen := map[durable.Ref]bool{}
	for i, f := range b.Finishes {
		if running[i] && !seen[f.Ref] {
			seen[f.Ref] = true
			stuck, index = append(stuck, f), append(index, i)
		}
	}
	if len(stuck) == 0 {
		return nil
	}
	done := make([]bool, len(stuck))
	err = s.finishHeld(ctx, b.Boot, stuck, done, s.cfg.LockTimeout)
	for i := 0; i < len(stuck) && hasCode(err, codeLockTimeout); i++ {
		if one := s.finishHeld(ctx, b.Boot, stuck[i:i+1], done[i:i+1], s.cfg.LockTimeout/20); one != nil && !hasCode(one, codeLockTimeout) {
			return one
		}
	}
	for i, n := range index {
		ok[n] = done[i]
	}
	if hasCode(err, codeLockTimeout) {
		return nil
	}
	return err
}

// finishHeld waits for those who hold tasks, and then records their outcomes.
func (s *Store) finishHeld(ctx context.Context, boot durable.Boot, finishes []durable.Finish, ok []bool, patience time.Duration) error {
	ids, _, _ := refs(finishes, func(int) bool { return true })
	return s.writeWithin(ctx, patience, func(db pgx.Tx) error {
		clear(ok)
		r := tx{s, db}
		if err := r.run(ctx, nil, `SELECT 1 FROM wake.task WHERE id = ANY($1::uuid[]) ORDER BY id FOR UPDATE`, ids); err != nil {
			return err
		}
		return s.finish(ctx, r, boot, finishes, ok)
	})
}

// progress keeps how far tasks have come, and marks those whose claims are
// still good. A task that a user's transaction is finishing keeps what it has.
func (s *Store) progress(ctx context.Context, r runner, boot durable.Boot, updates []durable.ProgressUpdate, ok []bool) error {
	var won successes
	for i := range updates {
		u := updates[i]
		u.Report.At = time.Time{} // the store's time is a column
		b, err := json.Marshal(u.Report)
		if err != nil {
			return err
		}
		won.ids, won.fences = append(won.ids, u.Ref.ID), append(won.fences, u.Ref.Fence)
		won.results, won.numbers = append(won.results, b), append(won.numbers, int32(i))
	}
	return r.run(ctx, marking(ok), updateProgress, s.clockArg(), won.ids, won.fences, won.results, won.numbers, boot[:])
}

// FinishTx records an outcome in a user's transaction.
func (s *Store) FinishTx(ctx context.Context, user durable.Tx, boot durable.Boot, f durable.Finish) (bool, error) {
	r, err := s.userTx(ctx, user)
	if err != nil {
		return false, err
	}
	ok := make([]bool, 1)
	// What others hold here, somebody who cancels for one, is waited for.
	if err := r.run(ctx, nil, `SELECT 1 FROM wake.task WHERE id = $1::uuid FOR UPDATE`, [16]byte(f.Ref.ID)); err != nil {
		return false, explained(err)
	}
	if err := s.finish(ctx, r, boot, []durable.Finish{f}, ok); err != nil {
		return false, explained(err)
	}
	if ok[0] {
		s.lookout.expect(s, f.Ref.ID, true)
	}
	return ok[0], nil
}

// Finished reports whether a claim has been finished by the one who had it.
func (s *Store) Finished(ctx context.Context, boot durable.Boot, ref durable.Ref) (bool, error) {
	ok := make([]bool, 1)
	err := s.read(ctx, func(r runner) error {
		return r.run(ctx, marking(ok), finishedClaims, [][16]byte{ref.ID}, []int64{ref.Fence}, []int32{0}, boot[:])
	})
	return ok[0], err
}
