package postgres

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/wake-go/wake/durable"
)

// A found task is what a person's command looks at first.
type foundTask struct {
	id     durable.ID
	status durable.Status
	hot    bool
	key    *[16]byte
	now    time.Time
}

func notFound(id durable.ID) error {
	return fmt.Errorf("durable: task %v: %w", id, durable.ErrNotFound)
}

// find returns the id of the task that has this one, or that it is an alias of.
func find(ctx context.Context, r runner, id durable.ID) (existing durable.ID, found bool, err error) {
	err = r.run(ctx, func(row row) error {
		var err error
		existing, err = scanID(row)
		found = true
		return err
	}, `SELECT id::text FROM (SELECT id FROM wake.task WHERE id = $1::uuid UNION ALL SELECT id FROM wake.done WHERE id = $1::uuid
		UNION ALL SELECT target FROM wake.alias WHERE id = $1::uuid) f LIMIT 1`, [16]byte(id))
	return existing, found, err
}

// locate finds a task by its id, or by that of a duplicate, and holds it.
func (s *Store) locate(ctx context.Context, r runner, id durable.ID) (*foundTask, error) {
	existing, found, err := find(ctx, r, id)
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, notFound(id)
	}
	// It may move while it is waited for: then it is where it was not before.
	for range 3 {
		for _, table := range []string{`wake.task`, `wake.done`} {
			t := &foundTask{id: existing, hot: table == `wake.task`}
			var key string
			ok, err := one(ctx, r, []any{&t.status.State, &t.status.Attempt, &t.status.Crashes, &t.status.Fence, &t.status.RunAt, &key, &t.now},
				`SELECT state, attempt, crashes, fence, run_at, coalesce(ukey::text, ''), `+clock+` FROM `+table+` WHERE id = $2::uuid FOR UPDATE`, s.clockArg(), [16]byte(existing))
			if err != nil {
				return nil, err
			}
			if ok && key != "" {
				parsed, err := durable.ParseID(key)
				if err != nil {
					return nil, err
				}
				t.key = (*[16]byte)(&parsed)
			}
			if ok {
				return t, nil
			}
		}
	}
	return nil, notFound(id)
}

// Cancel cancels a task.
func (s *Store) Cancel(ctx context.Context, id durable.ID) (state durable.State, err error) {
	err = s.write(ctx, func(db pgx.Tx) error {
		state, err = s.cancel(ctx, tx{s, db}, id)
		return err
	})
	if err == nil {
		s.tell(durable.SignalCancelled | durable.SignalFinished)
	}
	return state, err
}

const moveTask = `WITH gone AS (DELETE FROM wake.task WHERE id = $2::uuid RETURNING *)
	INSERT INTO wake.done (` + moved + `, state, finished_at) SELECT ` + moved + `, $3::smallint, ` + clock + ` FROM gone`

// cancel cancels a task that waits, and marks one that runs.
func (s *Store) cancel(ctx context.Context, r runner, id durable.ID) (durable.State, error) {
	t, err := s.locate(ctx, r, id)
	if err != nil || !t.hot {
		if t != nil {
			return t.status.State, err
		}
		return 0, err
	}
	next := t.status
	if t.status.State != durable.Running {
		if next, err = durable.Advance(t.status, durable.MoveCancel, t.now, 0); err != nil {
			return t.status.State, err
		}
	}
	if err := r.run(ctx, nil, `UPDATE wake.task SET cancel_at = coalesce(cancel_at, `+clock+`) WHERE id = $2::uuid`, s.clockArg(), [16]byte(t.id)); err != nil || next.State == durable.Running {
		return next.State, err
	}
	return next.State, r.run(ctx, nil, moveTask, s.clockArg(), [16]byte(t.id), int16(next.State))
}

// Retry lets a task run again, or at once.
func (s *Store) Retry(ctx context.Context, id durable.ID) error {
	err := s.write(ctx, func(db pgx.Tx) error {
		r := tx{s, db}
		t, err := s.locate(ctx, r, id)
		if err != nil {
			return err
		}
		next, err := durable.Advance(t.status, durable.MoveRetry, t.now, 0)
		if err != nil {
			return fmt.Errorf("durable: retry task %v: %w", id, err)
		}
		if t.hot {
			return r.run(ctx, nil, `UPDATE wake.task SET state = $2, attempt = $3, crashes = $4, run_at = $5 WHERE id = $1::uuid`,
				[16]byte(t.id), int16(next.State), next.Attempt, next.Crashes, next.RunAt)
		}
		return revive(ctx, r, t, next)
	})
	if err == nil {
		s.cursors.forget()
		s.tell(durable.SignalTasks)
	}
	return err
}

// revive brings a finished task back to those that wait, in its old place.
func revive(ctx context.Context, r runner, t *foundTask, status durable.Status) error {
	const back = `id, lane, rank, fence, max_attempts, created_at, ukey, group_id, parent_id, opts, payload`
	revived, err := one(ctx, r, []any{new(int32)}, `INSERT INTO wake.task (`+back+`, state, attempt, crashes, run_at)
		SELECT `+back+`, $2::smallint, $3::integer, $4::integer, $5::timestamptz FROM wake.done WHERE id = $1::uuid
		ON CONFLICT (ukey) WHERE ukey IS NOT NULL DO NOTHING RETURNING 1`,
		[16]byte(t.id), int16(status.State), status.Attempt, status.Crashes, status.RunAt)
	if err != nil {
		return err
	}
	if !revived {
		return fmt.Errorf("durable: retry task %v: %w", t.id, durable.ErrDuplicate)
	}
	return r.run(ctx, nil, `DELETE FROM wake.done WHERE id = $1::uuid`, [16]byte(t.id))
}

// Delete removes a task.
func (s *Store) Delete(ctx context.Context, id durable.ID) error {
	return s.write(ctx, func(db pgx.Tx) error {
		r := tx{s, db}
		t, err := s.locate(ctx, r, id)
		if err != nil {
			return err
		}
		if t.status.State == durable.Running {
			return fmt.Errorf("durable: delete task %v: it is running; cancel it first: %w", id, durable.ErrState)
		}
		ids := [][16]byte{t.id}
		if err := deleteExtras(ctx, r, ids); err != nil {
			return err
		}
		table := `wake.done`
		if t.hot {
			table = `wake.task`
		}
		return r.run(ctx, nil, `DELETE FROM `+table+` WHERE id = ANY($1::uuid[])`, ids)
	})
}

// deleteExtras deletes what belongs to tasks besides their rows.
func deleteExtras(ctx context.Context, r runner, ids [][16]byte) error {
	for _, query := range []string{
		`DELETE FROM wake.blob WHERE id = ANY($1::uuid[])`,
		`DELETE FROM wake.attempt_error WHERE task = ANY($1::uuid[])`,
		`DELETE FROM wake.tag WHERE id = ANY($1::uuid[])`,
		`DELETE FROM wake.alias WHERE target = ANY($1::uuid[])`,
	} {
		if err := r.run(ctx, nil, query, ids); err != nil {
			return err
		}
	}
	return nil
}

// SetPaused pauses a queue, or resumes it.
func (s *Store) SetPaused(ctx context.Context, queue string, paused bool) error {
	err := s.write(ctx, func(db pgx.Tx) error {
		_, err := db.Exec(ctx, s.sql(`INSERT INTO wake.queue (name, paused) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET paused = excluded.paused`), queue, paused)
		return err
	})
	if err == nil {
		s.tell(durable.SignalTasks)
	}
	return err
}

// Prune deletes finished tasks that have been kept long enough.
func (s *Store) Prune(ctx context.Context, keep map[string]durable.Retention, limit int) (deleted int, err error) {
	err = s.write(ctx, func(db pgx.Tx) error {
		deleted = 0
		r := tx{s, db}
		lanes, err := lanesByRule(ctx, r, keep)
		if err != nil {
			return err
		}
		for _, rule := range slices.Sorted(maps.Keys(lanes)) {
			kept := keep[rule].WithDefaults()
			for _, state := range []struct {
				durable.State
				age time.Duration
			}{{durable.Succeeded, kept.Succeeded}, {durable.Cancelled, kept.Cancelled}, {durable.Dead, kept.Dead}} {
				n, err := s.prune(ctx, r, state.State, state.age, lanes[rule], limit-deleted)
				if err != nil {
					return err
				}
				deleted += n
			}
		}
		return nil
	})
	return deleted, err
}

// lanesByRule are the numbers of lanes by the queue whose retention they have.
func lanesByRule(ctx context.Context, r runner, keep map[string]durable.Retention) (map[string][]int32, error) {
	lanes := map[string][]int32{}
	return lanes, r.run(ctx, func(row row) error {
		var id int32
		var queue string
		if err := row.Scan(&id, &queue); err != nil {
			return err
		}
		if _, ok := keep[queue]; !ok {
			queue = ""
		}
		lanes[queue] = append(lanes[queue], id)
		return nil
	}, `SELECT id, queue FROM wake.lane`)
}

func (s *Store) prune(ctx context.Context, r runner, state durable.State, age time.Duration, lanes []int32, limit int) (int, error) {
	if limit <= 0 {
		return 0, nil
	}
	var ids [][16]byte
	err := r.run(ctx, func(row row) error {
		id, err := scanID(row)
		ids = append(ids, id)
		return err
	}, `WITH old AS MATERIALIZED (SELECT id FROM wake.done WHERE state = $2::smallint AND finished_at < `+clock+` - $3::bigint * interval '1 microsecond' AND lane = ANY($4::integer[])
			ORDER BY finished_at LIMIT $5::integer FOR UPDATE SKIP LOCKED)
		DELETE FROM wake.done d USING old WHERE d.id = old.id RETURNING d.id::text`, s.clockArg(), int16(state), age.Microseconds(), lanes, limit)
	if err != nil || len(ids) == 0 {
		return 0, err
	}
	return len(ids), deleteExtras(ctx, r, ids)
}
