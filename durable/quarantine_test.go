package durable_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wake-go/wake/durable"
	"github.com/wake-go/wake/durable/memory"
)

// Of many tasks that were running in two crashes, one at a time runs again,
// and the third crash parks that one alone.
func TestSuspectsRunOneAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New(memory.Config{})
		defer store.Close()
		kind := durable.Declare[int]("job")
		q := durable.NewQueue(store)
		defer q.Close(t.Context())
		const tasks = 20
		for n := range tasks {
			if _, err := q.Add(t.Context(), kind.With(n)); err != nil {
				t.Fatal(err)
			}
		}
		for range durable.MaxCrashes - 1 { // a process claims all and dies
			boot := durable.Boot(durable.NewID())
			if _, err := store.Register(t.Context(), durable.Node{Boot: boot, Lease: time.Second}); err != nil {
				t.Fatal(err)
			}
			res, err := store.Commit(t.Context(), &durable.Batch{Boot: boot, Claims: []durable.Claim{{Queue: "default", Kinds: []string{"job"}, Limit: 100}}})
			if err != nil || len(res.Claimed) != tasks {
				t.Fatalf("claimed %d: %v", len(res.Claimed), err)
			}
			store.Advance(2 * time.Second)
			if _, err := store.Sweep(t.Context(), durable.Boot{}); err != nil {
				t.Fatal(err)
			}
		}
		var running, most, ran atomic.Int64
		e := durable.NewEngine(q, kind.Run(func(context.Context, int) error {
			most.Store(max(most.Load(), running.Add(1)))
			defer running.Add(-1)
			time.Sleep(300 * time.Millisecond)
			counts, err := store.Counts(context.Background())
			if err != nil {
				t.Error(err)
			}
			for _, c := range counts {
				if c.State == durable.Running && c.N > 1 {
					t.Errorf("%d tasks are in danger", c.N)
				}
			}
			ran.Add(1)
			return nil
		}))
		if err := e.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		for ran.Load() < tasks {
			time.Sleep(100 * time.Millisecond)
			if time.Since(began) > 10*time.Minute {
				t.Fatalf("%d have run", ran.Load())
			}
		}
		if most.Load() != 1 {
			t.Errorf("%d ran at once", most.Load())
		}
		if err := e.Drain(t.Context()); err != nil {
			t.Error(err)
		}
	})
}
