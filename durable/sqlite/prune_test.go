package sqlite_test

import (
	"context"
	"testing"
	"time"

	"github.com/wake-go/wake/durable"
	"github.com/wake-go/wake/durable/sqlite"
)

// Looking for what can be deleted waits for no writer and keeps none waiting,
// and queues keep their own rules.
func TestPruneByQueue(t *testing.T) {
	s := open(t, sqlite.Config{})
	long := newInsert("k")
	long.Queue = "long"
	short := newInsert("k")
	commit(t, s, &durable.Batch{Inserts: []durable.Insert{long, short}})
	for _, in := range []durable.Insert{long, short} {
		if _, err := s.Cancel(t.Context(), in.ID); err != nil {
			t.Fatal(err)
		}
	}
	keep := map[string]durable.Retention{"": {Cancelled: time.Hour}, "long": {Cancelled: 3 * time.Hour}}
	prune := func(ctx context.Context, want int) {
		t.Helper()
		if n, err := s.Prune(ctx, keep, 100); err != nil || n != want {
			t.Errorf("%d tasks were deleted, not %d: %v", n, want, err)
		}
	}
	tx, err := s.DB().Begin()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	prune(ctx, 0)
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	s.Advance(2 * time.Hour)
	prune(t.Context(), 1)
	if _, err := s.Get(t.Context(), long.ID); err != nil {
		t.Error(err)
	}
	s.Advance(2 * time.Hour)
	prune(t.Context(), 1)
	if _, err := s.Get(t.Context(), long.ID); err == nil {
		t.Error("it is still there")
	}
}
