package sqlite

import (
	"context"
	"database/sql/driver"
	"fmt"
	"time"

	"github.com/wake-go/wake/durable"
)

// A found task is what a person's command looks at first.
type foundTask struct {
	seq    int64
	id     durable.ID
	extras int64
	status durable.Status
	hot    bool
	key    []byte
}

// locate finds a task by its id, or by that of a duplicate.
func (w *writer) locate(id durable.ID) (*foundTask, error) {
	existing, found, err := find(w, id)
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, notFound(id)
	}
	var t *foundTask
	err = w.query(func(row []driver.Value) error {
		t = &foundTask{
			seq: integer(row[0]), id: existing, extras: integer(row[1]), hot: integer(row[2]) != 0, key: blob(row[8]),
			status: durable.Status{
				State: durable.State(integer(row[3])), Attempt: int(integer(row[4])), Crashes: int(integer(row[5])), Fence: integer(row[6]), RunAt: timeOf(integer(row[7])),
			},
		}
		return nil
	}, `SELECT seq, extras, 1, state, attempt, crashes, fence, run_at, ukey FROM wake_task WHERE id = ?1
		UNION ALL SELECT seq, extras, 0, state, attempt, crashes, fence, run_at, ukey FROM wake_done WHERE id = ?1`, existing)
	if err == nil && t == nil {
		err = notFound(id)
	}
	return t, err
}

// Cancel cancels a task.
func (s *Store) Cancel(ctx context.Context, id durable.ID) (state durable.State, err error) {
	err = s.write(ctx, func(w *writer) error {
		state, err = w.cancel(id, s.clock.now())
		return err
	})
	if err == nil {
		s.signals.send(durable.SignalCancelled | durable.SignalFinished)
	}
	return state, err
}

// cancel cancels a task that waits, and marks one that runs.
func (w *writer) cancel(id durable.ID, now time.Time) (durable.State, error) {
	t, err := w.locate(id)
	if err != nil || !t.hot {
		if t != nil {
			return t.status.State, err
		}
		return 0, err
	}
	if t.status.State == durable.Running {
		_, err := w.exec(`UPDATE wake_task SET cancel_at = coalesce(cancel_at, ?) WHERE seq = ?`, micros(now), t.seq)
		return durable.Running, err
	}
	next, err := durable.Advance(t.status, durable.MoveCancel, now, 0)
	if err != nil {
		return t.status.State, err
	}
	if _, err := w.exec(`UPDATE wake_task SET cancel_at = ? WHERE seq = ?`, micros(now), t.seq); err != nil {
		return t.status.State, err
	}
	w.lanes.dueOK = false
	return next.State, moveToDone(w, t.seq, next, now, nil)
}

// Retry lets a task run again, or at once.
func (s *Store) Retry(ctx context.Context, id durable.ID) error {
	err := s.write(ctx, func(w *writer) error {
		t, err := w.locate(id)
		if err != nil {
			return err
		}
		next, err := durable.Advance(t.status, durable.MoveRetry, s.clock.now(), 0)
		if err != nil {
			return fmt.Errorf("durable: retry task %v: %w", id, err)
		}
		if t.hot {
			w.lanes.dueOK = false
			return putBack(w, t.seq, next)
		}
		return w.revive(t, next)
	})
	if err == nil {
		s.signals.send(durable.SignalTasks)
	}
	return err
}

// revive brings a finished task back to those that wait, in its old place.
func (w *writer) revive(t *foundTask, status durable.Status) error {
	if t.key != nil {
		_, taken, err := w.one(`SELECT 1 FROM wake_task WHERE ukey = ?`, t.key)
		if err != nil {
			return err
		}
		if taken {
			return fmt.Errorf("durable: retry task %v: %w", t.id, durable.ErrDuplicate)
		}
	}
	const back = `seq, id, lane, priority, fence, max_attempts, created_at, ukey, group_id, parent_id, extras, opts, payload`
	if _, err := w.exec(`INSERT INTO wake_task (`+back+`, state, attempt, crashes, run_at) SELECT `+back+`, ?, ?, ?, ? FROM wake_done WHERE seq = ?`,
		status.State, status.Attempt, status.Crashes, micros(status.RunAt), t.seq); err != nil {
		return err
	}
	lane, _, err := w.one(`SELECT lane FROM wake_task WHERE seq = ?`, t.seq)
	if err != nil {
		return err
	}
	w.inserted(lane, status.State, micros(status.RunAt))
	_, err = w.exec(`DELETE FROM wake_done WHERE seq = ?`, t.seq)
	return err
}

// Delete removes a task.
func (s *Store) Delete(ctx context.Context, id durable.ID) error {
	return s.write(ctx, func(w *writer) error {
		t, err := w.locate(id)
		if err != nil {
			return err
		}
		if t.status.State == durable.Running {
			return fmt.Errorf("durable: delete task %v: it is running; cancel it first: %w", id, durable.ErrState)
		}
		w.lanes.dueOK = false
		if err := w.deleteExtras(t.seq, t.id, t.extras); err != nil {
			return err
		}
		table := `wake_done`
		if t.hot {
			table = `wake_task`
		}
		_, err = w.exec(`DELETE FROM `+table+` WHERE seq = ?`, t.seq)
		return err
	})
}

// deleteExtras deletes what belongs to a task besides its row.
func (w *writer) deleteExtras(seq int64, id durable.ID, extras int64) error {
	for _, d := range []struct {
		bit   int64
		query string
		arg   any
	}{
		{hasBlob, `DELETE FROM wake_blob WHERE seq = ?`, seq},
		{hasErrors, `DELETE FROM wake_attempt_error WHERE seq = ?`, seq},
		{hasTags, `DELETE FROM wake_tag WHERE id = ?`, id},
		{hasAlias, `DELETE FROM wake_alias WHERE target = ?`, id},
	} {
		if extras&d.bit == 0 {
			continue
		}
		if _, err := w.exec(d.query, d.arg); err != nil {
			return err
		}
	}
	return nil
}

// SetPaused pauses a queue, or resumes it.
func (s *Store) SetPaused(ctx context.Context, queue string, paused bool) error {
	err := s.write(ctx, func(w *writer) error {
		_, err := w.exec(`INSERT INTO wake_queue (name, paused) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET paused = excluded.paused`, queue, paused)
		w.lanes.known = false
		return err
	})
	if err == nil {
		s.signals.send(durable.SignalTasks)
	}
	return err
}
