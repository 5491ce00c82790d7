package sqlite

import (
	"context"
	"database/sql/driver"
	"encoding/json"
	"time"

	"github.com/wake-go/wake/durable"
)

// moved are the columns that go from wake_task to wake_done as they are.
const (
	kept  = `seq, id, lane, priority, run_at, boot, fence, max_attempts, created_at, started_at, cancel_at, ukey, group_id, parent_id, extras, progress, opts, payload`
	moved = kept + `, attempt, crashes`
)

const (
	succeedRow1  = `(?, ?)`
	succeedRow4  = succeedRow1 + `, ` + succeedRow1 + `, ` + succeedRow1 + `, ` + succeedRow1
	succeedRow16 = succeedRow4 + `, ` + succeedRow4 + `, ` + succeedRow4 + `, ` + succeedRow4
	succeedRow64 = succeedRow16 + `, ` + succeedRow16 + `, ` + succeedRow16 + `, ` + succeedRow16

	number4  = `?, ?, ?, ?`
	number16 = number4 + `, ` + number4 + `, ` + number4 + `, ` + number4
	number64 = number16 + `, ` + number16 + `, ` + number16 + `, ` + number16

	succeedBegin = `WITH one (number, claim) AS (VALUES `
	succeedEnd   = `) INSERT INTO wake_done (` + moved + `, state, finished_at)
		SELECT ` + moved + `, 6, ? FROM one CROSS JOIN wake_task ON seq = number WHERE state = 2 AND boot = ? AND fence = claim`
	deleteBegin = `DELETE FROM wake_task WHERE seq IN (`
)

// succeedChunk returns how many of n successes without a result one pair of
// statements takes, and those.
func succeedChunk(n int) (taken int, insert, remove string) {
	switch {
	case n >= 64:
		return 64, succeedBegin + succeedRow64 + succeedEnd, deleteBegin + number64 + `)`
	case n >= 16:
		return 16, succeedBegin + succeedRow16 + succeedEnd, deleteBegin + number16 + `)`
	case n >= 4:
		return 4, succeedBegin + succeedRow4 + succeedEnd, deleteBegin + number4 + `)`
	}
	return 1, succeedBegin + succeedRow1 + succeedEnd, deleteBegin + `?)`
}

// finishAll records outcomes. It reports for each whether the task was still
// that of the claim.
func (w *writer) finishAll(boot durable.Boot, finishes []durable.Finish, now time.Time, again bool) ([]bool, error) {
	ok := make([]bool, len(finishes))
	var plain []int // successes without a result
	for i := range finishes {
		f := &finishes[i]
		if f.Move == durable.MoveSucceed && f.Result == nil && !again {
			plain = append(plain, i)
			continue
		}
		var err error
		if ok[i], err = finishOne(w, boot, f, now, again); err != nil {
			return nil, err
		}
	}
	for len(plain) > 0 {
		n, insert, remove := succeedChunk(len(plain))
		if err := w.succeed(boot, finishes, plain[:n], ok, now, insert, remove); err != nil {
			return nil, err
		}
		plain = plain[n:]
	}
	return ok, nil
}

func (w *writer) succeed(boot durable.Boot, finishes []durable.Finish, which []int, ok []bool, now time.Time, insert, remove string) error {
	args := make([]any, 0, 2*len(which)+2)
	numbers := make([]any, 0, len(which))
	for _, i := range which {
		args = append(args, finishes[i].Ref.Seq, finishes[i].Ref.Fence)
		numbers = append(numbers, finishes[i].Ref.Seq)
	}
	n, err := w.exec(insert, append(args, micros(now), boot)...)
	if err != nil {
		return err
	}
	if n == int64(len(which)) {
		for _, i := range which {
			ok[i] = true
		}
		_, err = w.exec(remove, numbers...)
		return err
	}
	// Some are not this process's any more: see which have been moved.
	for _, i := range which {
		ref := finishes[i].Ref
		if ok[i], err = finished(w, boot, ref); err != nil {
			return err
		}
		if _, err := w.exec(`DELETE FROM wake_task WHERE seq = ? AND boot = ? AND fence = ? AND state = 2`, ref.Seq, boot, ref.Fence); err != nil {
			return err
		}
	}
	return nil
}

// finished reports whether a claim has been finished by the one who had it.
func finished(x execer, boot durable.Boot, ref durable.Ref) (bool, error) {
	_, ok, err := x.one(`SELECT 1 FROM wake_done WHERE seq = ?1 AND boot = ?2 AND fence = ?3
		UNION ALL SELECT 1 FROM wake_task WHERE seq = ?1 AND boot = ?2 AND fence = ?3 AND state <> 2 LIMIT 1`, ref.Seq, boot, ref.Fence)
	return ok, err
}

// finishOne records an outcome, if the task is still that of the claim.
func finishOne(x execer, boot durable.Boot, f *durable.Finish, now time.Time, again bool) (bool, error) {
	ref := f.Ref
	var status durable.Status
	found, wanted := false, false
	err := x.query(func(row []driver.Value) error {
		found, wanted = true, row[3] != nil
		status = durable.Status{
			State: durable.Running, Attempt: int(integer(row[0])), Crashes: int(integer(row[1])), Fence: ref.Fence, RunAt: timeOf(integer(row[2])),
		}
		return nil
	}, `SELECT attempt, crashes, run_at, cancel_at FROM wake_task WHERE seq = ? AND id = ? AND boot = ? AND fence = ? AND state = 2`, ref.Seq, ref.ID, boot, ref.Fence)
	if err != nil {
		return false, err
	}
	if !found {
		if !again {
			return false, nil
		}
		return finished(x, boot, ref)
	}
	next, err := advance(status, f.Move, now, f.Delay, wanted)
	if err != nil {
		return false, err
	}
	if f.Error != nil {
		if err := addError(x, ref.Seq, f.Error, now); err != nil {
			return false, err
		}
	}
	if next.State.Finished() {
		return true, moveToDone(x, ref.Seq, next, now, f.Result)
	}
	return true, putBack(x, ref.Seq, next)
}

// advance makes a move of a running task. Somebody's wish to cancel it holds
// when it would run again.
func advance(status durable.Status, m durable.Move, now time.Time, delay time.Duration, cancelled bool) (durable.Status, error) {
	next, err := durable.Advance(status, m, now, delay)
	if err == nil && cancelled && !next.State.Finished() {
		next, err = durable.Advance(next, durable.MoveCancel, now, 0)
	}
	return next, err
}

// moveToDone takes a finished task out of the way of those that wait.
func moveToDone(x execer, seq int64, status durable.Status, now time.Time, result []byte) error {
	_, err := x.exec(`INSERT INTO wake_done (`+kept+`, attempt, crashes, state, finished_at, result) SELECT `+kept+`, ?, ?, ?, ?, ? FROM wake_task WHERE seq = ?`,
		status.Attempt, status.Crashes, status.State, micros(now), result, seq)
	if err == nil {
		_, err = x.exec(`DELETE FROM wake_task WHERE seq = ?`, seq)
	}
	return err
}

// putBack lets an unfinished task wait again. Its boot stays: it says who has
// ended the last claim.
func putBack(x execer, seq int64, status durable.Status) error {
	var lane int64
	_, err := x.exec(`UPDATE wake_task SET state = ?, attempt = ?, crashes = ?, run_at = ? WHERE seq = ?`,
		status.State, status.Attempt, status.Crashes, micros(status.RunAt), seq)
	if err == nil {
		lane, _, err = x.one(`SELECT lane FROM wake_task WHERE seq = ?`, seq)
	}
	if err == nil {
		x.inserted(lane, status.State, micros(status.RunAt))
	}
	return err
}

// addError keeps the error of an attempt, and the last ones of all.
func addError(x execer, seq int64, e *durable.AttemptError, now time.Time) error {
	if _, err := x.exec(`INSERT INTO wake_attempt_error (seq, attempt, at, cause, message, stack, node) VALUES (?, ?, ?, ?, ?, ?, ?)`,
		seq, e.Attempt, micros(now), e.Cause, e.Message, e.Stack, e.Node); err != nil {
		return err
	}
	if _, err := x.exec(`UPDATE wake_task SET extras = extras | ? WHERE seq = ?`, hasErrors, seq); err != nil {
		return err
	}
	_, err := x.exec(`DELETE FROM wake_attempt_error WHERE seq = ?1 AND n <= (SELECT n FROM wake_attempt_error WHERE seq = ?1 ORDER BY n DESC LIMIT 1 OFFSET ?2)`, seq, durable.MaxErrors)
	return err
}

// progressAll keeps how far tasks have come.
func (w *writer) progressAll(boot durable.Boot, updates []durable.ProgressUpdate, now time.Time) ([]bool, error) {
	ok := make([]bool, len(updates))
	for i := range updates {
		u := updates[i]
		u.Report.At = now
		b, err := json.Marshal(u.Report)
		if err != nil {
			return nil, err
		}
		n, err := w.exec(`UPDATE wake_task SET progress = ? WHERE seq = ? AND boot = ? AND fence = ? AND state = 2`, b, u.Ref.Seq, boot, u.Ref.Fence)
		if err != nil {
			return nil, err
		}
		ok[i] = n == 1
	}
	// So that other processes see that there was progress, without looking at
	// all that runs.
	_, err := w.exec(`UPDATE wake_meta SET value = CAST(value + 1 AS TEXT) WHERE key = 'progress'`)
	return ok, err
}

// FinishTx records an outcome in a user's transaction.
func (s *Store) FinishTx(ctx context.Context, tx durable.Tx, boot durable.Boot, f durable.Finish) (bool, error) {
	x, err := s.userTx(ctx, tx)
	if err != nil {
		return false, err
	}
	ok, err := finishOne(x, boot, &f, s.clock.now(), false)
	return ok, explained(err)
}

// Finished reports whether a claim has been finished by the one who had it.
func (s *Store) Finished(ctx context.Context, boot durable.Boot, ref durable.Ref) (ok bool, err error) {
	err = s.read(ctx, func(r *reader) error {
		ok, err = finished(r, boot, ref)
		return err
	})
	return ok, err
}
