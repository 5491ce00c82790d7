package durable

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// A ScheduleInfo is what is known of a schedule.
type ScheduleInfo struct {
	Name string `json:"name"`
	Spec string `json:"spec"` // in force: people's, or else code's
	Zone string `json:"zone"` // likewise

	CodeSpec   string        `json:"code_spec"` // what code says
	CodeZone   string        `json:"code_zone"`
	Overridden bool          `json:"overridden"` // by people, until ResetSchedule
	Misfire    Misfire       `json:"misfire"`
	Overlap    Overlap       `json:"overlap"`
	Jitter     time.Duration `json:"jitter,omitempty"`
	Kind       string        `json:"kind"` // of its tasks
	Queue      string        `json:"queue"`

	Paused   bool      `json:"paused"`
	Orphan   bool      `json:"orphan"`             // no living process declares it, and so it does not fire
	Next     time.Time `json:"next,omitzero"`      // tick, without jitter; zero while it is paused or an orphan
	LastTick time.Time `json:"last_tick,omitzero"` //
	LastTask ID        `json:"last_task,omitzero"` // that a tick or RunSchedule added
}

// Schedules returns the schedules of all programs on the store, by name.
func (q *Queue) Schedules(ctx context.Context) ([]ScheduleInfo, error) {
	rows, err := q.store.Schedules(ctx)
	if err != nil {
		return nil, fmt.Errorf("durable: schedules: %w", err)
	}
	infos := make([]ScheduleInfo, 0, len(rows))
	for i := range rows {
		infos = append(infos, rows[i].info())
	}
	return infos, nil
}

func (r *ScheduleRow) info() ScheduleInfo {
	info := ScheduleInfo{
		Name: r.Name, CodeSpec: r.Spec, CodeZone: r.Zone,
		Overridden: r.OverrideSpec != "" || r.OverrideZone != "",
		Misfire:    Misfire(r.Misfire), Overlap: Overlap(r.Overlap), Jitter: r.Jitter,
		Kind: r.Task.Kind, Queue: r.Task.Queue,
		Paused: r.Paused, Orphan: !r.Declared, LastTick: r.LastTick, LastTask: r.LastTask,
	}
	info.Spec, info.Zone = r.inForce()
	if !info.Paused && !info.Orphan {
		info.Next = r.Next
	}
	return info
}

// PauseSchedule stops a schedule from ticking, in all processes. An unknown
// name is an error that matches [ErrNotFound], here and in what follows.
//
// Such a change takes effect within a second where the store passes on that
// something has changed, and within ten seconds otherwise.
func (q *Queue) PauseSchedule(ctx context.Context, name string) error {
	return q.changeSchedule(ctx, "pause", name, func(row *ScheduleRow, _ time.Time) error {
		row.Paused = true
		return nil
	})
}

// ResumeSchedule undoes [Queue.PauseSchedule]. The ticks in between are left
// out, whatever the schedule's rule for missed ones.
func (q *Queue) ResumeSchedule(ctx context.Context, name string) error {
	return q.changeSchedule(ctx, "resume", name, func(row *ScheduleRow, now time.Time) error {
		if !row.Paused {
			return nil
		}
		row.Paused = false
		return row.setNext(now)
	})
}

// SetSchedule gives a schedule another cron expression, zone or both, instead
// of what code says, until [Queue.ResetSchedule]. An empty one stays as it is.
// The next tick is the first one from now.
func (q *Queue) SetSchedule(ctx context.Context, name, spec, zone string) error {
	return q.changeSchedule(ctx, "set", name, func(row *ScheduleRow, now time.Time) error {
		if spec == "" && zone == "" {
			return errors.New("it needs a cron expression or a zone; ResetSchedule goes back to the code's")
		}
		row.OverrideSpec, row.OverrideZone = row.inForce()
		if spec != "" {
			row.OverrideSpec = Cron(spec).spec
		}
		if zone != "" {
			row.OverrideZone = zone
		}
		return row.setNext(now)
	})
}

// ResetSchedule goes back to the expression and the zone that code says. The
// next tick is the first one from now.
func (q *Queue) ResetSchedule(ctx context.Context, name string) error {
	return q.changeSchedule(ctx, "reset", name, func(row *ScheduleRow, now time.Time) error {
		if row.OverrideSpec == "" && row.OverrideZone == "" {
			return nil
		}
		row.OverrideSpec, row.OverrideZone = "", ""
		return row.setNext(now)
	})
}

// RunSchedule adds a schedule's task at once, paused or not, to be run without
// delay, and leaves the next tick as it is. It is no tick: [Meta].Tick is 0.
// The overlap rule holds: if that leaves the task out, the error matches
// [ErrState].
func (q *Queue) RunSchedule(ctx context.Context, name string) (ID, error) {
	row, err := q.scheduleRow(ctx, name)
	if err != nil {
		return ID{}, fmt.Errorf("durable: run schedule %q: %w", name, err)
	}
	in := row.Task
	in.ID, in.Delay = NewID(), 0
	in.Meta.Schedule = name
	res, err := q.fire(ctx, Fire{Name: name, Overlap: row.Overlap, Inserts: []Insert{in}, Manual: true})
	switch {
	case err != nil:
		return ID{}, err
	case res.Skipped > 0:
		return ID{}, fmt.Errorf("durable: run schedule %q: task %v has not finished, and its overlap rule is %q: %w", name, row.LastTask, row.Overlap, ErrState)
	case !res.Fired || len(res.Inserted) != 1:
		return ID{}, fmt.Errorf("durable: run schedule %q: %w", name, ErrNotFound)
	case res.Inserted[0].Err != nil:
		return ID{}, fmt.Errorf("durable: run schedule %q: %w", name, res.Inserted[0].Err)
	}
	return in.ID, nil
}

// DeleteSchedule forgets a schedule, with what people have set. One that a
// living process declares is an error that matches [ErrState], unless it is
// forced: then that process soon declares it again, as its code says.
func (q *Queue) DeleteSchedule(ctx context.Context, name string, force bool) error {
	row, err := q.scheduleRow(ctx, name)
	switch {
	case err != nil:
	case row.Declared && !force:
		err = fmt.Errorf("a running program declares it; pause it, or take it out of the program: %w", ErrState)
	default:
		err = q.store.DeleteSchedule(ctx, name)
	}
	if err != nil {
		return fmt.Errorf("durable: delete schedule %q: %w", name, err)
	}
	q.signals.publish(SignalSchedules)
	return nil
}

// changeTries is how often a change is made again because the schedule was
// changed, or has ticked, since it was read.
const changeTries = 10

// changeSchedule changes what people say of a schedule.
func (q *Queue) changeSchedule(ctx context.Context, verb, name string, change func(row *ScheduleRow, now time.Time) error) error {
	err := ErrState
	for range changeTries {
		if err = q.tryChange(ctx, name, change); !errors.Is(err, ErrState) {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("durable: %s schedule %q: %w", verb, name, err)
	}
	q.signals.publish(SignalSchedules)
	return nil
}

func (q *Queue) tryChange(ctx context.Context, name string, change func(row *ScheduleRow, now time.Time) error) error {
	row, err := q.scheduleRow(ctx, name)
	if err != nil {
		return err
	}
	now, err := q.store.Now(ctx)
	if err != nil {
		return err
	}
	if err := change(&row, now); err != nil {
		return err
	}
	return q.store.ChangeSchedule(ctx, row)
}

func (q *Queue) scheduleRow(ctx context.Context, name string) (ScheduleRow, error) {
	rows, err := q.store.Schedules(ctx)
	if err != nil {
		return ScheduleRow{}, err
	}
	i := slices.IndexFunc(rows, func(r ScheduleRow) bool { return r.Name == name })
	if i < 0 {
		return ScheduleRow{}, ErrNotFound
	}
	return rows[i], nil
}

// setNext computes the next tick from now, by what is in force.
func (r *ScheduleRow) setNext(now time.Time) error {
	ticks, err := parseTicks(r.inForce())
	if err != nil {
		return err
	}
	r.Next = ticks.next(now)
	return nil
}
