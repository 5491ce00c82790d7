package durable_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wake-go/wake/durable"
	"github.com/wake-go/wake/durable/memory"
)

// instant is a store that takes everything and keeps nothing. What it shows is
// the price of the batcher.
type instant struct {
	durable.Store
	commits atomic.Int64
}

func (s *instant) Traits() durable.Traits {
	return durable.Traits{Name: "instant", Committers: 1, MaxBatch: 1000}
}

func (s *instant) Commit(_ context.Context, b *durable.Batch) (*durable.BatchResult, error) {
	s.commits.Add(1)
	res := &durable.BatchResult{Inserted: make([]durable.Inserted, len(b.Inserts))}
	for i := range b.Inserts {
		res.Inserted[i].ID = b.Inserts[i].ID
	}
	return res, nil
}

// BenchmarkAdd adds tasks from 1, 64 and 512 goroutines.
func BenchmarkAdd(b *testing.B) {
	for _, callers := range []int{1, 64, 512} {
		b.Run(fmt.Sprint(callers), func(b *testing.B) {
			store := &instant{}
			q := durable.NewQueue(store)
			defer q.Close(context.Background())
			job := work.With("somebody@example.test")
			b.ReportAllocs()
			var left atomic.Int64
			left.Store(int64(b.N))
			var wg sync.WaitGroup
			for range callers {
				wg.Go(func() {
					for left.Add(-1) >= 0 {
						if _, err := q.Add(context.Background(), job); err != nil {
							b.Error(err)
						}
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "adds/s")
			b.ReportMetric(float64(b.N)/float64(store.commits.Load()), "adds/commit")
		})
	}
}

// BenchmarkWork adds tasks and runs them, through a store in memory.
func BenchmarkWork(b *testing.B) {
	store := memory.New(memory.Config{MaxTasks: max(1_000_000, b.N)})
	q := durable.NewQueue(store)
	var done sync.WaitGroup
	e := durable.NewEngine(q, handler(func(context.Context, string) error { done.Done(); return nil }))
	if err := e.Start(context.Background()); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	done.Add(b.N)
	var left atomic.Int64
	left.Store(int64(b.N))
	for range 64 {
		go func() {
			for left.Add(-1) >= 0 {
				if _, err := q.Add(context.Background(), work.With("a")); err != nil {
					b.Error(err)
				}
			}
		}()
	}
	done.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tasks/s")
	b.StopTimer()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := e.Drain(ctx); err != nil {
		b.Error(err)
	}
	if err := q.Close(ctx); err != nil {
		b.Error(err)
	}
}
