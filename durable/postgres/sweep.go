package postgres

import (
	"context"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/wake-go/wake/durable"
)

// keptNodes is how long it is known what processes there were.
const keptNodes = 31 * 24 * time.Hour

// restartGrace is how long after the server's start a free lock proves
// nothing: all sessions have ended then, and processes come back one by one.
const restartGrace = 30 * time.Second

// deaths are the processes whose sessions are gone, and since when.
type deaths struct {
	mu    sync.Mutex
	since map[durable.Boot]time.Time
}

// proved notes whether a process's session is gone, and reports whether it has
// been for long enough.
func (d *deaths) proved(boot durable.Boot, gone bool, delay time.Duration) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !gone || delay < 0 {
		delete(d.since, boot)
		return false
	}
	if d.since == nil {
		d.since = map[durable.Boot]time.Time{}
	}
	since, ok := d.since[boot]
	if !ok {
		since = time.Now()
		d.since[boot] = since
	}
	return time.Since(since) >= delay
}

// A suspect is a process that may be dead.
type suspect struct {
	boot durable.Boot
	name string
	gone bool // its session, rather than that its lease has ended
}

const (
	// The lock of a session that has ended is free.
	suspectNodes = `SELECT boot::text, name, lease_until < ` + clock + `,
			CASE WHEN lock_key IS NOT NULL AND clock_timestamp() > pg_postmaster_start_time() + $3::bigint * interval '1 microsecond'
				THEN pg_try_advisory_xact_lock_shared(lock_key) ELSE false END
		FROM wake.node WHERE lease_until IS NOT NULL AND boot <> $2::uuid ORDER BY boot`

	// What a process does not do any more: claim, beat, hold its session's lock.
	lockDead = `SELECT name FROM wake.node WHERE boot = $2::uuid AND pg_try_advisory_xact_lock($3::bigint)
		AND lease_until IS NOT NULL AND (lease_until < ` + clock + ` OR $4::boolean AND pg_try_advisory_xact_lock_shared(lock_key))
		FOR UPDATE SKIP LOCKED`

	runningTasks = `SELECT id::text, fence, attempt, crashes, run_at, cancel_at IS NOT NULL FROM wake.task
		WHERE state = 2 AND boot = $1::uuid ORDER BY id FOR UPDATE SKIP LOCKED`
)

// Sweep takes the tasks of dead processes back.
func (s *Store) Sweep(ctx context.Context, boot durable.Boot) (durable.Swept, error) {
	var swept durable.Swept
	suspects, err := s.suspects(ctx, boot)
	if err != nil {
		return swept, err
	}
	for _, dead := range suspects {
		var one durable.Swept
		if err := s.write(ctx, func(db pgx.Tx) error {
			one = durable.Swept{}
			return s.bury(ctx, tx{s, db}, dead, &one)
		}); err != nil {
			return swept, err
		}
		swept.Recovered += one.Recovered
		swept.Dead += one.Dead
		swept.Nodes += one.Nodes
	}
	if swept.Recovered+swept.Dead > 0 {
		s.cursors.forget()
		s.tell(durable.SignalTasks)
	}
	return swept, nil
}

// suspects are the processes whose tasks are to be taken back.
func (s *Store) suspects(ctx context.Context, boot durable.Boot) ([]suspect, error) {
	var all []suspect
	err := s.retried(ctx, func() error {
		all = nil
		return tx{s, s.pool}.run(ctx, func(row row) error {
			var id, name string
			var ended, free bool
			if err := row.Scan(&id, &name, &ended, &free); err != nil {
				return err
			}
			parsed, err := durable.ParseID(id)
			other := durable.Boot(parsed)
			if gone := s.deaths.proved(other, free, s.cfg.DeathDelay); gone || ended {
				all = append(all, suspect{other, name, gone})
			}
			return err
		}, suspectNodes, s.clockArg(), boot[:], restartGrace.Microseconds())
	})
	return all, explained(err)
}

// bury takes the tasks of a dead process back.
func (s *Store) bury(ctx context.Context, r runner, dead suspect, swept *durable.Swept) error {
	var name string
	found, err := one(ctx, r, []any{&name}, lockDead, s.clockArg(), dead.boot[:], claimKey(dead.boot), dead.gone)
	if err != nil || !found {
		return err // it is alive after all, or somebody else does this
	}
	o, err := s.crashed(ctx, r, dead, swept)
	if err != nil {
		return err
	}
	if len(o.ids) > 0 {
		if err := r.run(ctx, nil, buryTasks, s.clockArg(), o.ids, o.states, o.attempts, o.crashes, o.numbers, name); err != nil {
			return err
		}
		if err := r.run(ctx, nil, trimErrors, o.ids, durable.MaxErrors); err != nil {
			return err
		}
	}
	if err := s.endNode(ctx, r, dead.boot); err != nil {
		return err
	}
	left, err := one(ctx, r, []any{new(int32)}, `SELECT 1 FROM wake.node WHERE boot = $1::uuid AND lease_until IS NOT NULL`, dead.boot[:])
	if err == nil && !left {
		swept.Nodes++
		s.deaths.proved(dead.boot, false, 0)
	}
	if err != nil {
		return err
	}
	return r.run(ctx, nil, `DELETE FROM wake.node WHERE lease_until IS NULL AND ended_at < `+clock+` - $2::bigint * interval '1 microsecond'`, s.clockArg(), keptNodes.Microseconds())
}

// buryTasks moves tasks where a crash brings them. Without their boot, as it is
// not that one who has ended the claim.
const buryTasks = `WITH clock AS MATERIALIZED (SELECT ` + clock + ` AS now),
	f AS MATERIALIZED (SELECT * FROM unnest($2::uuid[], $3::smallint[], $4::integer[], $5::integer[], $6::integer[]) AS f (task, final, tries, deaths, number)),
	errors AS (INSERT INTO wake.attempt_error (task, attempt, at, cause, message, stack, node)
		SELECT task, number, now, 'crash', 'the process that ran it died, or was not heard of for longer than its lease', '', $7::text FROM f, clock),
	gone AS (DELETE FROM wake.task t USING f WHERE t.id = f.task AND f.final >= 6 RETURNING t.*, f.final, f.tries, f.deaths),
	kept AS (INSERT INTO wake.done (` + kept + `, attempt, crashes, state, finished_at)
		SELECT id, lane, rank, max_attempts, fence, NULL, run_at, created_at, started_at, cancel_at, progress_at, ukey, group_id, parent_id, progress, opts, payload,
			tries, deaths, final, now FROM gone, clock)
	UPDATE wake.task t SET state = f.final, attempt = f.tries, crashes = f.deaths, boot = NULL FROM f WHERE t.id = f.task AND f.final < 6`

// A burial is the parameters of buryTasks.
type burial struct {
	ids      [][16]byte
	states   []int16
	attempts []int32
	crashes  []int32
	numbers  []int32 // of the attempts that ended
}

// crashed finds out what becomes of the tasks of a dead process.
func (s *Store) crashed(ctx context.Context, r runner, dead suspect, swept *durable.Swept) (o burial, err error) {
	err = r.run(ctx, func(row row) error {
		var id string
		var cancelled bool
		status := durable.Status{State: durable.Running}
		if err := row.Scan(&id, &status.Fence, &status.Attempt, &status.Crashes, &status.RunAt, &cancelled); err != nil {
			return err
		}
		parsed, err := durable.ParseID(id)
		if err != nil {
			return err
		}
		next, err := durable.Advance(status, durable.MoveCrash, status.RunAt, 0)
		if err == nil && cancelled && !next.State.Finished() {
			next, err = durable.Advance(next, durable.MoveCancel, status.RunAt, 0)
		}
		switch {
		case err != nil:
			return err
		case !next.State.Finished():
			swept.Recovered++
		case next.State == durable.Dead:
			swept.Dead++
		}
		o.ids = append(o.ids, parsed)
		o.states = append(o.states, int16(next.State))
		o.attempts = append(o.attempts, int32(next.Attempt))
		o.crashes = append(o.crashes, int32(next.Crashes))
		o.numbers = append(o.numbers, int32(status.Attempt))
		return nil
	}, runningTasks, dead.boot[:])
	return o, err
}
