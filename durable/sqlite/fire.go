package sqlite

import (
	"context"
	"database/sql/driver"
	"encoding/json"
	"fmt"
	"time"

	"github.com/wake-go/wake/durable"
)

// keptTicks is how long it is remembered that a tick was fired.
const keptTicks = 7 * 24 * time.Hour

// fireAll fires schedules that nobody else has fired.
func (w *writer) fireAll(fires []durable.Fire, now time.Time, again bool) ([]durable.FireResult, error) {
	results := make([]durable.FireResult, len(fires))
	for i := range fires {
		if err := w.fire(&fires[i], &results[i], now, again); err != nil {
			return nil, err
		}
	}
	return results, nil
}

func (w *writer) fire(f *durable.Fire, res *durable.FireResult, now time.Time, again bool) error {
	if again {
		done, err := w.firedBefore(f, res)
		if done || err != nil {
			return err
		}
	}
	found, paused := false, false
	var next int64
	var last durable.ID
	err := w.query(func(row []driver.Value) error {
		found, next, paused, last = true, integer(row[0]), integer(row[1]) != 0, idOf(row[2])
		return nil
	}, `SELECT next_at, paused, last_task FROM wake_schedule WHERE name = ?`, f.Name)
	if err != nil || !found || !f.Manual && (paused || next != microsOrZero(f.Expect)) {
		return err
	}
	res.Fired = true
	inserts := f.Inserts
	if len(inserts) > 0 && !last.IsZero() && f.Overlap != "allow" {
		_, unfinished, err := w.one(`SELECT 1 FROM wake_task WHERE id = ?`, last)
		if err != nil {
			return err
		}
		switch {
		case unfinished && f.Overlap == "replace":
			res.Replaced = last
			if _, err := w.cancel(last, now); err != nil {
				return err
			}
		case unfinished:
			res.Skipped, inserts = len(inserts), nil
		}
	}
	for i := range inserts {
		if err := w.fireOne(f.Name, inserts[i:i+1], res, now, again); err != nil {
			return err
		}
	}
	return w.fired(f, res, now)
}

// firedBefore settles a tick whose first answer was lost: it has fired if its
// first task is there.
func (w *writer) firedBefore(f *durable.Fire, res *durable.FireResult) (bool, error) {
	for i := range f.Inserts {
		existing, found, err := find(w, f.Inserts[i].ID)
		if err != nil || !found {
			return false, err
		}
		res.Inserted = append(res.Inserted, durable.Inserted{ID: existing, Duplicate: existing != f.Inserts[i].ID})
	}
	res.Fired = len(f.Inserts) > 0
	return res.Fired, nil
}

// fireOne inserts the task of a tick, unless the tick has had one.
func (w *writer) fireOne(name string, in []durable.Insert, res *durable.FireResult, now time.Time, again bool) error {
	if tick := in[0].Meta.Tick; tick != 0 {
		n, err := w.exec(`INSERT INTO wake_tick (schedule, tick, task) VALUES (?, ?, ?) ON CONFLICT DO NOTHING`, name, tick, in[0].ID)
		if err != nil {
			return err
		}
		if n == 0 {
			res.Skipped++
			return nil
		}
	}
	var err error
	res.Inserted, err = insertAll(w, in, now, again, res.Inserted)
	return err
}

// fired notes when the schedule fires next.
func (w *writer) fired(f *durable.Fire, res *durable.FireResult, now time.Time) error {
	if n := len(res.Inserted); n > 0 {
		if _, err := w.exec(`UPDATE wake_schedule SET last_task = ? WHERE name = ?`, res.Inserted[n-1].ID, f.Name); err != nil {
			return err
		}
	}
	if f.Manual {
		return nil
	}
	if _, err := w.exec(`UPDATE wake_schedule SET next_at = ?, last_tick = ?, version = version + 1 WHERE name = ?`,
		nullable(f.Next), nullable(f.LastTick), f.Name); err != nil {
		return err
	}
	_, err := w.exec(`DELETE FROM wake_tick WHERE schedule = ? AND tick < ?`, f.Name, now.Add(-keptTicks).Unix())
	return err
}

func microsOrZero(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return micros(t)
}

func nullable(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return micros(t)
}

const scheduleColumns = `name, spec, zone, misfire, overlap, jitter, revision, task, override_spec, override_zone, paused, next_at, last_tick, last_task, version`

// scheduleOf reads a row. One whose task cannot be read is still a schedule,
// which fails by itself and stops no other.
func scheduleOf(row []driver.Value) durable.ScheduleRow {
	r := durable.ScheduleRow{
		Name: text(row[0]), Spec: text(row[1]), Zone: text(row[2]), Misfire: text(row[3]), Overlap: text(row[4]),
		Jitter: time.Duration(integer(row[5])), Revision: integer(row[6]),
		OverrideSpec: text(row[8]), OverrideZone: text(row[9]), Paused: integer(row[10]) != 0,
		Next: timeOf(integer(row[11])), LastTick: timeOf(integer(row[12])), LastTask: idOf(row[13]), Version: integer(row[14]),
	}
	if json.Unmarshal(blob(row[7]), &r.Task) != nil {
		r.Task = durable.Insert{}
	}
	return r
}

// Schedules returns all schedules.
func (s *Store) Schedules(ctx context.Context) ([]durable.ScheduleRow, error) {
	var all []durable.ScheduleRow
	declared := map[string]bool{}
	err := s.read(ctx, func(r *reader) error {
		err := r.query(func(row []driver.Value) error {
			all = append(all, scheduleOf(row))
			return nil
		}, `SELECT `+scheduleColumns+` FROM wake_schedule ORDER BY name`)
		if err != nil {
			return err
		}
		return r.query(func(row []driver.Value) error {
			var names []string
			_ = json.Unmarshal([]byte(text(row[0])), &names)
			for _, name := range names {
				declared[name] = true
			}
			return nil
		}, `SELECT schedules FROM wake_node WHERE lease_until >= ? AND machine = ?`, int64(s.clock.lease()/time.Microsecond), s.machine)
	})
	for i := range all {
		all[i].Declared = declared[all[i].Name]
	}
	return all, err
}

// DeclareSchedules writes what code says.
func (s *Store) DeclareSchedules(ctx context.Context, rows []durable.ScheduleRow) error {
	err := s.write(ctx, func(w *writer) error {
		for i := range rows {
			if err := w.declare(&rows[i]); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		s.signals.send(durable.SignalSchedules)
	}
	return err
}

func (w *writer) declare(r *durable.ScheduleRow) error {
	task, err := json.Marshal(r.Task)
	if err != nil {
		return err
	}
	// Next is kept where it still is that of the specification in force.
	_, err = w.exec(`INSERT INTO wake_schedule (name, spec, zone, misfire, overlap, jitter, revision, task, next_at)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (name) DO UPDATE SET
			next_at = CASE WHEN override_spec = '' AND (spec <> excluded.spec OR zone <> excluded.zone) THEN excluded.next_at ELSE next_at END,
			spec = excluded.spec, zone = excluded.zone, misfire = excluded.misfire, overlap = excluded.overlap,
			jitter = excluded.jitter, revision = excluded.revision, task = excluded.task, version = version + 1
		WHERE revision <= excluded.revision
			AND (spec, zone, misfire, overlap, jitter, revision, task)
				IS NOT (excluded.spec, excluded.zone, excluded.misfire, excluded.overlap, excluded.jitter, excluded.revision, excluded.task)`,
		r.Name, r.Spec, r.Zone, r.Misfire, r.Overlap, int64(r.Jitter), r.Revision, task, nullable(r.Next))
	return err
}

// ChangeSchedule writes what people say.
func (s *Store) ChangeSchedule(ctx context.Context, r durable.ScheduleRow) error {
	err := s.write(ctx, func(w *writer) error {
		n, err := w.exec(`UPDATE wake_schedule SET override_spec = ?, override_zone = ?, paused = ?, next_at = ?, version = version + 1 WHERE name = ? AND version = ?`,
			r.OverrideSpec, r.OverrideZone, r.Paused, nullable(r.Next), r.Name, r.Version)
		if err != nil || n == 1 {
			return err
		}
		_, found, err := w.one(`SELECT 1 FROM wake_schedule WHERE name = ?`, r.Name)
		switch {
		case err != nil:
			return err
		case !found:
			return fmt.Errorf("durable: schedule %q: %w", r.Name, durable.ErrNotFound)
		}
		return fmt.Errorf("durable: schedule %q was changed meanwhile: %w", r.Name, durable.ErrState)
	})
	if err == nil {
		s.signals.send(durable.SignalSchedules)
	}
	return err
}

// DeleteSchedule forgets a schedule.
func (s *Store) DeleteSchedule(ctx context.Context, name string) error {
	err := s.write(ctx, func(w *writer) error {
		n, err := w.exec(`DELETE FROM wake_schedule WHERE name = ?`, name)
		if err == nil && n == 0 {
			err = fmt.Errorf("durable: schedule %q: %w", name, durable.ErrNotFound)
		}
		if err == nil {
			_, err = w.exec(`DELETE FROM wake_tick WHERE schedule = ?`, name)
		}
		return err
	})
	if err == nil {
		s.signals.send(durable.SignalSchedules)
	}
	return err
}
