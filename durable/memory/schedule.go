package memory

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/wake-go/wake/durable"
)

// Schedules implements [durable.Store].
func (s *Store) Schedules(ctx context.Context) ([]durable.ScheduleRow, error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	defer s.end()
	declared := map[string]bool{}
	for _, n := range s.nodes {
		if s.at.Before(n.until) {
			for _, name := range n.Schedules {
				declared[name] = true
			}
		}
	}
	var rows []durable.ScheduleRow
	for _, row := range s.schedules {
		copied := copyRow(*row)
		copied.Declared = declared[row.Name]
		rows = append(rows, copied)
	}
	slices.SortFunc(rows, func(a, b durable.ScheduleRow) int { return cmp.Compare(a.Name, b.Name) })
	return rows, nil
}

func copyRow(row durable.ScheduleRow) durable.ScheduleRow {
	row.Task.Tags = slices.Clone(row.Task.Tags)
	row.Task.Payload = slices.Clone(row.Task.Payload)
	row.Next, row.LastTick = plain(row.Next), plain(row.LastTick)
	return row
}

// plain drops a time's zone and monotonic reading, so that equal instants are
// equal values.
func plain(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return t.Round(0).UTC()
}

// DeclareSchedules implements [durable.Store].
func (s *Store) DeclareSchedules(ctx context.Context, rows []durable.ScheduleRow) error {
	if err := s.begin(ctx); err != nil {
		return err
	}
	defer s.end()
	for _, row := range rows {
		row = copyRow(row)
		if old := s.schedules[row.Name]; old != nil {
			if old.Revision > row.Revision {
				continue
			}
			overridden := old.OverrideSpec != "" || old.OverrideZone != ""
			if overridden || (old.Spec == row.Spec && old.Zone == row.Zone) {
				row.Next = old.Next
			}
			row.OverrideSpec, row.OverrideZone, row.Paused = old.OverrideSpec, old.OverrideZone, old.Paused
			row.LastTick, row.LastTask, row.Version = old.LastTick, old.LastTask, old.Version
		}
		row.Version++
		s.schedules[row.Name] = &row
	}
	s.raised |= durable.SignalSchedules
	return nil
}

// ChangeSchedule implements [durable.Store].
func (s *Store) ChangeSchedule(ctx context.Context, row durable.ScheduleRow) error {
	if err := s.begin(ctx); err != nil {
		return err
	}
	defer s.end()
	old := s.schedules[row.Name]
	switch {
	case old == nil:
		return fmt.Errorf("durable: schedule %q: %w", row.Name, durable.ErrNotFound)
	case old.Version != row.Version:
		return fmt.Errorf("durable: schedule %q has been changed since it was read; read it again: %w", row.Name, durable.ErrState)
	}
	old.OverrideSpec, old.OverrideZone, old.Paused, old.Next = row.OverrideSpec, row.OverrideZone, row.Paused, plain(row.Next)
	old.Version++
	s.raised |= durable.SignalSchedules
	return nil
}

// DeleteSchedule implements [durable.Store]. An unknown name is an error that
// matches [durable.ErrNotFound].
func (s *Store) DeleteSchedule(ctx context.Context, name string) error {
	if err := s.begin(ctx); err != nil {
		return err
	}
	defer s.end()
	if s.schedules[name] == nil {
		return fmt.Errorf("durable: schedule %q: %w", name, durable.ErrNotFound)
	}
	delete(s.schedules, name)
	s.raised |= durable.SignalSchedules
	return nil
}

// fire makes a tick, if nobody else has.
func (s *Store) fire(f *durable.Fire, again bool) durable.FireResult {
	var res durable.FireResult
	row := s.schedules[f.Name]
	switch {
	case row == nil:
		return res
	case again && len(f.Inserts) > 0 && s.find(f.Inserts[0].ID) != nil:
		// It has fired: only the answer was lost.
		res.Fired = true
		for i := range f.Inserts {
			res.Inserted = append(res.Inserted, s.insert(&f.Inserts[i], again))
		}
		return res
	case f.Manual:
	case row.Paused || !row.Next.Equal(f.Expect):
		return res
	}
	res.Fired = true
	if !f.Manual {
		row.Next, row.LastTick = plain(f.Next), plain(f.LastTick)
	}
	row.Version++
	s.raised |= durable.SignalSchedules
	if last := s.find(row.LastTask); last != nil && !last.State.Finished() && len(f.Inserts) > 0 {
		switch f.Overlap {
		case "skip":
			res.Skipped = len(f.Inserts)
			return res
		case "replace":
			if last.State == durable.Running {
				res.Replaced = last.ID
			}
			_, _ = s.cancel(last) // it is unfinished, which can be cancelled
		}
	}
	for i := range f.Inserts {
		in := s.insert(&f.Inserts[i], again)
		if in.Err == nil {
			row.LastTask = in.ID
		}
		res.Inserted = append(res.Inserted, in)
	}
	return res
}
