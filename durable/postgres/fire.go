package postgres

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/wake-go/wake/durable"
)

// keptTicks is how long it is remembered that a tick was fired.
const keptTicks = 7 * 24 * time.Hour

// fire fires a schedule that nobody else has fired, in a transaction of its
// own. It counts as not fired, and is tried again, when somebody's open
// transaction holds what it needs.
func (s *Store) fire(ctx context.Context, f *durable.Fire, res *durable.FireResult, again bool) error {
	err := s.write(ctx, func(db pgx.Tx) error {
		*res = durable.FireResult{}
		return s.fireIn(ctx, tx{s, db}, f, res, again)
	})
	if hasCode(err, codeLockTimeout) {
		*res = durable.FireResult{}
		return nil
	}
	return err
}

func (s *Store) fireIn(ctx context.Context, r runner, f *durable.Fire, res *durable.FireResult, again bool) error {
	if again {
		if done, err := s.firedBefore(ctx, r, f, res); done || err != nil {
			return err
		}
	}
	var next *time.Time
	var paused bool
	var last *string
	found, err := one(ctx, r, []any{&next, &paused, &last}, `SELECT next_at, paused, last_task::text FROM wake.schedule WHERE name = $1 FOR UPDATE`, f.Name)
	if err != nil || !found || !f.Manual && (paused || !timeOf(next).Equal(micro(f.Expect))) {
		return err
	}
	res.Fired = true
	inserts := f.Inserts
	if len(inserts) > 0 && last != nil && f.Overlap != "allow" {
		id, err := durable.ParseID(*last)
		if err != nil {
			return err
		}
		unfinished, err := one(ctx, r, []any{new(int32)}, `SELECT 1 FROM wake.task WHERE id = $1::uuid`, [16]byte(id))
		if err != nil {
			return err
		}
		switch {
		case unfinished && f.Overlap == "replace":
			res.Replaced = id
			if _, err := s.cancel(ctx, r, id); err != nil {
				return err
			}
		case unfinished:
			res.Skipped, inserts = len(inserts), nil
		}
	}
	for i := range inserts {
		if err := s.fireOne(ctx, r, f.Name, inserts[i:i+1], res, again); err != nil {
			return err
		}
	}
	return s.fired(ctx, r, f, res)
}

// micro is a time as the database keeps it.
func micro(t time.Time) time.Time { return t.Truncate(time.Microsecond) }

// firedBefore settles a tick whose first answer was lost: it has fired if its
// first task is there.
func (s *Store) firedBefore(ctx context.Context, r runner, f *durable.Fire, res *durable.FireResult) (bool, error) {
	for i := range f.Inserts {
		existing, found, err := find(ctx, r, f.Inserts[i].ID)
		if err != nil || !found {
			return false, err
		}
		res.Inserted = append(res.Inserted, durable.Inserted{ID: existing, Duplicate: existing != f.Inserts[i].ID})
	}
	res.Fired = len(f.Inserts) > 0
	return res.Fired, nil
}

// fireOne inserts the task of a tick, unless the tick has had one.
func (s *Store) fireOne(ctx context.Context, r runner, name string, in []durable.Insert, res *durable.FireResult, again bool) error {
	if tick := in[0].Meta.Tick; tick != 0 {
		fresh, err := one(ctx, r, []any{new(int32)}, `INSERT INTO wake.tick (schedule, tick, task) VALUES ($1, $2, $3::uuid) ON CONFLICT DO NOTHING RETURNING 1`, name, tick, [16]byte(in[0].ID))
		if err != nil {
			return err
		}
		if !fresh {
			res.Skipped++
			return nil
		}
	}
	inserted, err := s.insertAll(ctx, r, in, again)
	res.Inserted = append(res.Inserted, inserted...)
	return err
}

// fired notes when the schedule fires next.
func (s *Store) fired(ctx context.Context, r runner, f *durable.Fire, res *durable.FireResult) error {
	if n := len(res.Inserted); n > 0 {
		if err := r.run(ctx, nil, `UPDATE wake.schedule SET last_task = $2::uuid WHERE name = $1`, f.Name, [16]byte(res.Inserted[n-1].ID)); err != nil {
			return err
		}
	}
	if f.Manual {
		return nil
	}
	if err := r.run(ctx, nil, `UPDATE wake.schedule SET next_at = $2, last_tick = $3, version = version + 1 WHERE name = $1`, f.Name, nullable(f.Next), nullable(f.LastTick)); err != nil {
		return err
	}
	return r.run(ctx, nil, `DELETE FROM wake.tick WHERE schedule = $2 AND tick < extract(epoch FROM `+clock+`) - $3::bigint`, s.clockArg(), f.Name, int64(keptTicks/time.Second))
}

func nullable(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}
