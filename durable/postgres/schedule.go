package postgres

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/wake-go/wake/durable"
)

// Schedules returns all schedules.
func (s *Store) Schedules(ctx context.Context) ([]durable.ScheduleRow, error) {
	var all []durable.ScheduleRow
	err := s.read(ctx, func(r runner) error {
		all = nil
		return r.run(ctx, func(row row) error {
			schedule, err := scanSchedule(row)
			all = append(all, schedule)
			return err
		}, `SELECT name, spec, zone, misfire, overlap, jitter, revision, task, override_spec, override_zone, paused,
				next_at, last_tick, coalesce(last_task::text, ''), s.version,
				EXISTS (SELECT 1 FROM wake.node n WHERE n.lease_until >= `+clock+` AND s.name = ANY(n.schedules))
			FROM wake.schedule s ORDER BY name COLLATE "C"`, s.clockArg())
	})
	return all, err
}

// scanSchedule reads a row. One whose task cannot be read is still a schedule,
// which fails by itself and stops no other.
func scanSchedule(row row) (r durable.ScheduleRow, err error) {
	var task []byte
	var jitter int64
	var next, last *time.Time
	var lastTask string
	if err := row.Scan(&r.Name, &r.Spec, &r.Zone, &r.Misfire, &r.Overlap, &jitter, &r.Revision, &task, &r.OverrideSpec, &r.OverrideZone, &r.Paused,
		&next, &last, &lastTask, &r.Version, &r.Declared); err != nil {
		return r, err
	}
	r.Jitter, r.Next, r.LastTick = time.Duration(jitter), timeOf(next), timeOf(last)
	if json.Unmarshal(task, &r.Task) != nil {
		r.Task = durable.Insert{}
	}
	if lastTask != "" {
		r.LastTask, err = durable.ParseID(lastTask)
	}
	return r, err
}

// DeclareSchedules writes what code says.
func (s *Store) DeclareSchedules(ctx context.Context, rows []durable.ScheduleRow) error {
	if len(rows) == 0 {
		return nil
	}
	err := s.write(ctx, func(db pgx.Tx) error {
		for _, i := range byName(rows) {
			if err := s.declare(ctx, tx{s, db}, &rows[i]); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		s.tell(durable.SignalSchedules)
	}
	return err
}

func (s *Store) declare(ctx context.Context, r runner, row *durable.ScheduleRow) error {
	task, err := json.Marshal(row.Task)
	if err != nil {
		return err
	}
	// Next is kept where it still is that of the specification in force.
	return r.run(ctx, nil, `INSERT INTO wake.schedule AS s (name, spec, zone, misfire, overlap, jitter, revision, task, next_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
		ON CONFLICT (name) DO UPDATE SET
			next_at = CASE WHEN s.override_spec = '' AND (s.spec <> excluded.spec OR s.zone <> excluded.zone) THEN excluded.next_at ELSE s.next_at END,
			spec = excluded.spec, zone = excluded.zone, misfire = excluded.misfire, overlap = excluded.overlap,
			jitter = excluded.jitter, revision = excluded.revision, task = excluded.task, version = s.version + 1
		WHERE s.revision <= excluded.revision
			AND (s.spec, s.zone, s.misfire, s.overlap, s.jitter, s.revision, s.task)
				IS DISTINCT FROM (excluded.spec, excluded.zone, excluded.misfire, excluded.overlap, excluded.jitter, excluded.revision, excluded.task)`,
		row.Name, row.Spec, row.Zone, row.Misfire, row.Overlap, int64(row.Jitter), row.Revision, task, nullable(row.Next))
}

// ChangeSchedule writes what people say.
func (s *Store) ChangeSchedule(ctx context.Context, row durable.ScheduleRow) error {
	err := s.write(ctx, func(db pgx.Tx) error {
		changed, err := db.Exec(ctx, s.sql(`UPDATE wake.schedule SET override_spec = $1, override_zone = $2, paused = $3, next_at = $4, version = version + 1 WHERE name = $5 AND version = $6`),
			row.OverrideSpec, row.OverrideZone, row.Paused, nullable(row.Next), row.Name, row.Version)
		if err != nil || changed.RowsAffected() == 1 {
			return err
		}
		found, err := one(ctx, tx{s, db}, []any{new(int32)}, `SELECT 1 FROM wake.schedule WHERE name = $1`, row.Name)
		switch {
		case err != nil:
			return err
		case !found:
			return fmt.Errorf("durable: schedule %q: %w", row.Name, durable.ErrNotFound)
		}
		return fmt.Errorf("durable: schedule %q was changed meanwhile: %w", row.Name, durable.ErrState)
	})
	if err == nil {
		s.tell(durable.SignalSchedules)
	}
	return err
}

// DeleteSchedule forgets a schedule.
func (s *Store) DeleteSchedule(ctx context.Context, name string) error {
	err := s.write(ctx, func(db pgx.Tx) error {
		gone, err := db.Exec(ctx, s.sql(`DELETE FROM wake.schedule WHERE name = $1`), name)
		if err == nil && gone.RowsAffected() == 0 {
			err = fmt.Errorf("durable: schedule %q: %w", name, durable.ErrNotFound)
		}
		if err == nil {
			_, err = db.Exec(ctx, s.sql(`DELETE FROM wake.tick WHERE schedule = $1`), name)
		}
		return err
	})
	if err == nil {
		s.tell(durable.SignalSchedules)
	}
	return err
}

// byName are the numbers of rows in the order of their names, in which all
// processes lock them.
func byName(rows []durable.ScheduleRow) []int {
	order := make([]int, len(rows))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return strings.Compare(rows[a].Name, rows[b].Name) })
	return order
}
