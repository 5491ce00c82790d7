package durable_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wake-go/wake/durable"
)

func TestAnIdleEngineOnlyPolls(t *testing.T) {
	inBubble(t, func(b *bed) {
		b.run(durable.EngineConfig{}, handler(nothing))
		rest(time.Second)
		before := len(b.faults.seen())
		rest(time.Minute)
		if n := len(b.faults.seen()) - before; n < 55 || n > 62 {
			t.Errorf("%d commits in an idle minute with a poll each second", n)
		}
		if err := b.e.Healthy(); err != nil {
			t.Error(err)
		}
	})
}

func TestATaskIsClaimedByTheCommitThatAddsIt(t *testing.T) {
	inBubble(t, func(b *bed) {
		b.faults.deaf = true
		b.run(durable.EngineConfig{}, handler(nothing))
		rest(time.Second)
		before := len(b.faults.seen())
		id := b.add(work.With(""))
		b.wantState(id, durable.Succeeded)
		seen := b.faults.seen()[before:]
		if len(seen[0].Inserts) != 1 || len(seen[0].Claims) != 1 || len(seen[1].Finishes) != 1 {
			t.Errorf("commits %+v", seen)
		}
		if len(seen) > 2 {
			t.Errorf("%d commits for one task on an idle engine, want two", len(seen))
		}
	})
}

func TestABusyEngineClaimsWhatIsThere(t *testing.T) {
	inBubble(t, func(b *bed) {
		var jobs []durable.Queueable
		for range 100 {
			jobs = append(jobs, work.With(""))
		}
		if _, err := b.q.AddAll(b.ctx, jobs...); err != nil {
			t.Fatal(err)
		}
		var most, now atomic.Int64
		b.run(durable.EngineConfig{Queues: map[string]int{"default": 7}, Poll: time.Hour}, handler(func(context.Context, string) error {
			most.Store(max(most.Load(), now.Add(1)))
			time.Sleep(time.Millisecond)
			now.Add(-1)
			return nil
		}))
		rest(time.Minute) // the poll is an hour away
		if n := b.e.Stats().Succeeded; n != 100 {
			t.Errorf("%d tasks have run", n)
		}
		if most.Load() != 7 {
			t.Errorf("%d ran at once, want 7", most.Load())
		}
	})
}

func TestLanes(t *testing.T) {
	inBubble(t, func(b *bed) {
		var started, now, most atomic.Int64
		slow := durable.Declare[int]("slow", durable.Lane("cpu"))
		b.run(durable.EngineConfig{
			Queues: map[string]int{"default": 4},
			Lanes: map[string]durable.EngineLane{"cpu": {Workers: 2, Go: func(run func()) {
				started.Add(1)
				go run()
			}}},
		}, handler(nothing), slow.Run(func(context.Context, int) error {
			most.Store(max(most.Load(), now.Add(1)))
			time.Sleep(time.Minute)
			now.Add(-1)
			return nil
		}))
		for i := range 10 {
			b.add(slow.With(i))
		}
		quick := b.add(work.With(""))
		b.wantState(quick, durable.Succeeded) // the lane does not fill the queue
		rest(10 * time.Minute)
		if started.Load() != 10 || most.Load() != 2 {
			t.Errorf("%d were started by the lane, %d at once", started.Load(), most.Load())
		}
		stats := b.e.Stats()
		if len(stats.Lanes) != 2 || stats.Lanes[1].Name != "cpu" || stats.Lanes[1].Workers != 2 || stats.Lanes[0].Workers != 0 {
			t.Errorf("lanes %+v", stats.Lanes)
		}
	})
}

func TestProgress(t *testing.T) {
	inBubble(t, func(b *bed) {
		b.run(durable.EngineConfig{}, handler(func(ctx context.Context, _ string) error {
			for i := range 1000 {
				durable.Progress(ctx, i, 1000, "at it")
				time.Sleep(time.Millisecond)
			}
			durable.Progress(ctx, 1000, 1000, "\xff done")
			return nil
		}))
		durable.Progress(b.ctx, 1, 1, "outside of tasks it does nothing")
		id := b.add(work.With(""))
		rest(600 * time.Millisecond)
		if p := b.get(id).Progress; p == nil || p.Total != 1000 || p.Done < 250 {
			t.Errorf("half-way: %+v", p)
		}
		rest(time.Minute)
		if p := b.wantState(id, durable.Succeeded).Progress; p == nil || p.Done != 1000 || p.Message != "\uFFFD done" {
			t.Errorf("at the end: %+v", p)
		}
		n := 0
		for _, batch := range b.faults.seen() {
			n += len(batch.Progress)
		}
		if n < 4 || n > 7 {
			t.Errorf("%d reports were stored in a second", n)
		}
	})
}

func TestProgressAndOutcomeWhileTheStoreIsAway(t *testing.T) {
	inBubble(t, func(b *bed) {
		var down atomic.Bool
		b.faults.set(func(*durable.Batch) error {
			if down.Load() {
				return durable.ErrUnavailable
			}
			return nil
		}, nil)
		b.run(durable.EngineConfig{}, handler(func(ctx context.Context, _ string) error {
			down.Store(true)
			durable.Progress(ctx, 1, 2, "")
			time.Sleep(10 * time.Second)
			durable.Progress(ctx, 2, 2, "")
			return nil
		}))
		id := b.add(work.With(""))
		rest(time.Minute)
		down.Store(false)
		rest(10 * time.Second)
		b.wantState(id, durable.Succeeded)
	})
}

func TestAPanickingHookStopsNothing(t *testing.T) {
	inBubble(t, func(b *bed) {
		e, err := durable.EngineConfig{OnEvent: func(durable.Event) { panic("hook") }, Logger: newLogger(b.log)}.NewEngine(b.q, handler(nothing))
		if err != nil {
			t.Fatal(err)
		}
		if err := e.Start(b.ctx); err != nil {
			t.Fatal(err)
		}
		b.wantState(b.add(work.With("")), durable.Succeeded)
		if err := e.Drain(b.ctx); err != nil {
			t.Error(err)
		}
		if !strings.Contains(b.log.String(), "OnEvent panicked") {
			t.Errorf("log %s", b.log)
		}
	})
}

func TestPauseResumeRetry(t *testing.T) {
	inBubble(t, func(b *bed) {
		fails := true
		b.run(durable.EngineConfig{Poll: time.Hour}, handler(func(context.Context, string) error {
			if fails {
				return durable.Cancel(errors.New("no"))
			}
			return nil
		}))
		if err := b.q.Pause(b.ctx, "default"); err != nil {
			t.Fatal(err)
		}
		id := b.add(work.With(""))
		b.wantState(id, durable.Ready)
		if err := b.q.Resume(b.ctx, "default"); err != nil {
			t.Fatal(err)
		}
		b.wantState(id, durable.Dead)
		fails = false
		if err := b.q.Retry(b.ctx, id); err != nil {
			t.Fatal(err)
		}
		b.wantState(id, durable.Succeeded)
		if err := b.q.Delete(b.ctx, id); err != nil {
			t.Fatal(err)
		}
		if _, err := b.q.Get(b.ctx, id); !errors.Is(err, durable.ErrNotFound) {
			t.Errorf("after Delete: %v", err)
		}
	})
}

func TestScheduledTasksRunOnTime(t *testing.T) {
	inBubble(t, func(b *bed) {
		var at []time.Time
		b.faults.deaf = true
		b.run(durable.EngineConfig{Poll: time.Hour}, handler(func(context.Context, string) error { at = append(at, time.Now()); return nil }))
		start := time.Now()
		b.add(work.With("").In(93 * time.Second))
		b.add(work.With("").At(start.Add(33 * time.Second)))
		rest(2 * time.Minute)
		if len(at) != 2 || at[0].Sub(start).Round(10*time.Millisecond) != 33*time.Second || at[1].Sub(start).Round(10*time.Millisecond) != 93*time.Second {
			t.Errorf("they ran at %v after %v", at, start)
		}
	})
}

func TestTwoEngines(t *testing.T) {
	inBubble(t, func(b *bed) {
		b.run(durable.EngineConfig{}, handler(nothing))
		second := durable.NewEngine(b.q, handler(nothing))
		if err := second.Start(b.ctx); err == nil || !strings.Contains(err.Error(), "another engine") {
			t.Errorf("a second engine on one queue: %v", err)
		}
		if err := b.e.Start(b.ctx); err == nil {
			t.Error("an engine was started twice")
		}
		q := durable.NewQueue(b.memory)
		other := durable.NewEngine(q, handler(nothing))
		if err := other.Start(b.ctx); err != nil {
			t.Fatal(err)
		}
		for range 50 {
			b.add(work.With(""))
		}
		rest(2 * time.Second)
		if n := b.e.Stats().Succeeded + other.Stats().Succeeded; n != 50 {
			t.Errorf("%d tasks ran", n)
		}
		if err := errors.Join(other.Drain(b.ctx), q.Close(b.ctx)); err != nil {
			t.Error(err)
		}
	})
}

func TestHealthy(t *testing.T) {
	inBubble(t, func(b *bed) {
		e := durable.NewEngine(b.q, handler(nothing))
		if e.Healthy() == nil {
			t.Error("an engine that was not started is healthy")
		}
		b.run(durable.EngineConfig{}, handler(nothing))
		rest(time.Minute)
		if err := b.e.Healthy(); err != nil {
			t.Error(err)
		}
		hang := make(chan struct{})
		b.faults.set(func(*durable.Batch) error { <-hang; return nil }, nil)
		rest(12 * time.Second)
		if err := b.e.Healthy(); err == nil || !strings.Contains(err.Error(), "stuck") {
			t.Errorf("with a store that hangs: %v", err)
		}
		close(hang)
		b.faults.set(nil, nil)
		rest(3 * time.Second)
		if err := b.e.Healthy(); err != nil {
			t.Error(err)
		}
	})
}

func TestAFullEngineIsHealthy(t *testing.T) {
	inBubble(t, func(b *bed) {
		b.run(durable.EngineConfig{Queues: map[string]int{"default": 1}}, handler(func(context.Context, string) error {
			time.Sleep(time.Hour)
			return nil
		}))
		b.add(work.With(""))
		rest(30 * time.Minute)
		if err := b.e.Healthy(); err != nil {
			t.Error(err)
		}
	})
}

func TestPruning(t *testing.T) {
	inBubble(t, func(b *bed) {
		b.run(durable.EngineConfig{Retention: map[string]durable.Retention{"": {Succeeded: time.Hour}}}, handler(nothing))
		id := b.add(work.With(""))
		rest(59 * time.Minute)
		b.wantState(id, durable.Succeeded)
		rest(3 * time.Minute)
		if _, err := b.q.Get(b.ctx, id); !errors.Is(err, durable.ErrNotFound) {
			t.Errorf("the task is kept: %v", err)
		}
	})
}

func TestTheContextHook(t *testing.T) {
	type key struct{}
	inBubble(t, func(b *bed) {
		got := make(chan any, 1)
		b.run(durable.EngineConfig{Context: func(ctx context.Context, task *durable.Claimed) context.Context {
			if task.Kind == "bad" {
				panic("hook")
			}
			return context.WithValue(ctx, key{}, "v")
		}}, handler(func(ctx context.Context, _ string) error { got <- ctx.Value(key{}); return nil }),
			durable.Declare[int]("bad", durable.MaxAttempts(1)).Run(func(context.Context, int) error { return nil }))
		b.wantState(b.add(work.With("")), durable.Succeeded)
		if v := <-got; v != "v" {
			t.Errorf("the context has %v", v)
		}
		b.wantState(b.add(durable.Declare[int]("bad", durable.MaxAttempts(1)).With(1)), durable.Dead)
	})
}

func TestMistakesOfTheProgram(t *testing.T) {
	inBubble(t, func(b *bed) {
		other := durable.Declare[string]("other", durable.Aliases("work"))
		for name, c := range map[string]struct {
			cfg      durable.EngineConfig
			handlers []durable.Handler
			want     string
		}{
			"two handlers":  {handlers: []durable.Handler{handler(nothing), handler(nothing)}, want: `"work"`},
			"an alias":      {handlers: []durable.Handler{handler(nothing), other.Run(nothing)}, want: `"work"`},
			"no Run":        {handlers: []durable.Handler{{Kind: "x"}}, want: `"x"`},
			"no lane":       {handlers: []durable.Handler{durable.Declare[string]("x", durable.Lane("gpu")).Run(nothing)}, want: `"gpu"`},
			"queue workers": {cfg: durable.EngineConfig{Queues: map[string]int{"default": -1}}, want: "-1"},
			"lane workers":  {cfg: durable.EngineConfig{Lanes: map[string]durable.EngineLane{"x": {Workers: -1}}}, want: "-1"},
			"lease":         {cfg: durable.EngineConfig{Lease: time.Millisecond}, want: "Lease is 1ms"},
			"poll":          {cfg: durable.EngineConfig{Poll: -1}, want: "Poll"},
			"drain":         {cfg: durable.EngineConfig{DrainTimeout: -1}, want: "DrainTimeout"},
			"grace":         {cfg: durable.EngineConfig{Grace: -1}, want: "Grace"},
			"node":          {cfg: durable.EngineConfig{Node: "\n"}, want: "node"},
		} {
			if _, err := c.cfg.NewEngine(b.q, c.handlers...); err == nil || !strings.HasPrefix(err.Error(), "durable: ") || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: %v", name, err)
			}
		}
		for _, c := range []durable.QueueConfig{{MaxPayload: -1}, {MaxResult: -1}, {MaxWaiting: -1}, {CommitTimeout: -1}} {
			if _, err := c.NewQueue(b.memory); err == nil || !strings.Contains(err.Error(), "-1") {
				t.Errorf("%+v: %v", c, err)
			}
		}
		defer func() {
			if v := recover(); !strings.Contains(fmt.Sprint(v), `"work"`) {
				t.Errorf("panic %v", v)
			}
		}()
		durable.NewEngine(b.q, handler(nothing), handler(nothing))
	})
}

func TestStartNeedsTheStore(t *testing.T) {
	inBubble(t, func(b *bed) {
		b.memory.Close()
		e := durable.NewEngine(b.q, handler(nothing))
		if err := e.Start(b.ctx); err == nil || !strings.HasPrefix(err.Error(), "durable: start the engine") {
			t.Errorf("got %v", err)
		}
	})
}

// A time that is past means at once, not at the next poll.
func TestATaskOfAPastTimeRunsAtOnce(t *testing.T) {
	inBubble(t, func(b *bed) {
		b.faults.deaf = true
		b.run(durable.EngineConfig{Poll: time.Hour}, handler(nothing))
		rest(time.Second)
		b.wantState(b.add(work.With("").At(time.Now().Add(-time.Minute))), durable.Succeeded)
	})
}
