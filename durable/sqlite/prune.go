package sqlite

import (
	"context"
	"database/sql/driver"
	"slices"
	"time"

	"github.com/wake-go/wake/durable"
)

// Prune deletes finished tasks that have been kept long enough. It looks for
// them without keeping writers waiting: there may be many that are kept longer.
func (s *Store) Prune(ctx context.Context, keep map[string]durable.Retention, limit int) (deleted int, err error) {
	var old []int64
	now := s.clock.now()
	err = s.read(ctx, func(r *reader) error {
		old, err = outlived(r, keep, now, limit)
		return err
	})
	if err != nil || len(old) == 0 {
		return 0, err
	}
	err = s.write(ctx, func(w *writer) error {
		deleted = 0
		for chunk := range slices.Chunk(old, 64) {
			n, err := w.prune(chunk, micros(now.Add(-durable.MinRetention)))
			if err != nil {
				return err
			}
			deleted += n
		}
		return nil
	})
	return deleted, err
}

// outlived finds up to limit tasks that have been kept long enough.
func outlived(r *reader, keep map[string]durable.Retention, now time.Time, limit int) (old []int64, err error) {
	var named []any // queues that have a rule of their own
	for queue := range keep {
		if queue != "" {
			named = append(named, queue)
		}
	}
	find := func(k durable.Retention, which string, queues []any) error {
		k = k.WithDefaults()
		for state, age := range map[durable.State]time.Duration{durable.Succeeded: k.Succeeded, durable.Cancelled: k.Cancelled, durable.Dead: k.Dead} {
			if len(old) >= limit {
				return nil
			}
			args := append([]any{state, micros(now.Add(-age))}, queues...)
			err := r.query(func(row []driver.Value) error { old = append(old, integer(row[0])); return nil },
				`SELECT seq FROM wake_done WHERE state = ? AND finished_at < ? AND lane `+which+` (SELECT id FROM wake_lane WHERE queue IN (`+marks(len(queues))+`)) ORDER BY finished_at LIMIT ?`, append(args, limit-len(old))...)
			if err != nil {
				return err
			}
		}
		return nil
	}
	err = find(keep[""], `NOT IN`, named)
	for _, queue := range named {
		if err == nil {
			err = find(keep[queue.(string)], `IN`, []any{queue})
		}
	}
	return old, err
}

// prune deletes tasks, unless they have been finished later than before: they
// have been retried meanwhile.
func (w *writer) prune(numbers []int64, before int64) (int, error) {
	args := make([]any, 0, len(numbers)+1)
	for _, n := range numbers {
		args = append(args, n)
	}
	var gone []foundTask
	err := w.query(func(row []driver.Value) error {
		gone = append(gone, foundTask{seq: integer(row[0]), id: idOf(row[1]), extras: integer(row[2])})
		return nil
	}, `DELETE FROM wake_done WHERE seq IN (`+marks(len(numbers))+`) AND finished_at < ? RETURNING seq, id, extras`, append(args, before)...)
	for i := range gone {
		if err == nil {
			err = w.deleteExtras(gone[i].seq, gone[i].id, gone[i].extras)
		}
	}
	return len(gone), err
}
