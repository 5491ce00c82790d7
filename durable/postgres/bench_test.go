package postgres_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wake-go/wake/durable"
	"github.com/wake-go/wake/durable/postgres"
)

func median(all []time.Duration) time.Duration {
	all = slices.Clone(all)
	slices.Sort(all)
	return all[len(all)/2]
}

// adders adds tasks from 64 callers, and returns how long each took.
func adders(b *testing.B, q *durable.Queue, n int) []time.Duration {
	var left atomic.Int64
	left.Store(int64(n))
	var mu sync.Mutex
	var all []time.Duration
	var adding sync.WaitGroup
	for range 64 {
		adding.Go(func() {
			var took []time.Duration
			for i := left.Add(-1); i >= 0; i = left.Add(-1) {
				start := time.Now()
				if _, err := q.Add(context.Background(), work.With(int(i))); err != nil {
					b.Error(err)
					return
				}
				took = append(took, time.Since(start))
			}
			mu.Lock()
			defer mu.Unlock()
			all = append(all, took...)
		})
	}
	adding.Wait()
	slices.Sort(all)
	return all
}

// BenchmarkAdd adds tasks from 64 callers.
func BenchmarkAdd(b *testing.B) {
	q := durable.NewQueue(open(b, postgres.Config{}))
	defer q.Close(context.Background())
	b.ResetTimer()
	took := adders(b, q, b.N)
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "adds/s")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
}

// BenchmarkWork runs tasks that were added before, by 100 workers.
func BenchmarkWork(b *testing.B) { benchmarkWork(b, true) }

// BenchmarkMixed runs tasks while 64 callers add them.
func BenchmarkMixed(b *testing.B) { benchmarkWork(b, false) }

func benchmarkWork(b *testing.B, before bool) {
	q := durable.NewQueue(open(b, postgres.Config{}))
	var left sync.WaitGroup
	left.Add(b.N)
	e := durable.NewEngine(q, work.Run(func(context.Context, int) error { left.Done(); return nil }))
	b.ResetTimer()
	if before {
		b.StopTimer()
		adders(b, q, b.N)
		b.StartTimer()
	}
	if err := e.Start(context.Background()); err != nil {
		b.Fatal(err)
	}
	if !before {
		adders(b, q, b.N)
	}
	left.Wait()
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

// BenchmarkLatency adds a task to an idle queue and waits until it runs, on
// another handle.
func BenchmarkLatency(b *testing.B) {
	for _, handles := range []int{1, 2} {
		b.Run(fmt.Sprint(handles), func(b *testing.B) {
			cfg := postgres.Config{URL: serverURL(b)}
			cfg.Schema = newSchema(b, cfg.URL)
			q := durable.NewQueue(open(b, cfg))
			adding := q
			if handles == 2 {
				adding = durable.NewQueue(open(b, cfg))
				defer adding.Close(context.Background())
			}
			defer q.Close(context.Background())
			ran := make(chan struct{})
			e := durable.NewEngine(q, work.Run(func(context.Context, int) error { ran <- struct{}{}; return nil }))
			if err := e.Start(context.Background()); err != nil {
				b.Fatal(err)
			}
			defer e.Drain(context.Background())
			for range b.N {
				if _, err := adding.Add(context.Background(), work.With(1)); err != nil {
					b.Fatal(err)
				}
				<-ran
			}
		})
	}
}
