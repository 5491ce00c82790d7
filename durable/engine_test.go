package durable_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
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

func TestASlotIsFreeWhenTheOutcomeIsCommitted(t *testing.T) {
	inBubble(t, func(b *bed) {
		b.run(durable.EngineConfig{Queues: map[string]int{"default": 1}}, handler(nothing))
		first := make(chan struct{})
		b.faults.set(func(batch *durable.Batch) error {
			if len(batch.Finishes) > 0 {
				<-first
			}
			return nil
		}, nil)
		one := b.add(work.With("one"))
		synctest.Wait()
		if b.get(one).State != durable.Running {
			t.Error("the outcome is there before its commit")
		}
		if p := b.e.Stats().Queues[0]; p.Running != 1 {
			t.Errorf("%+v", p)
		}
		close(first)
		b.wantState(one, durable.Succeeded)
	})
}

func TestOutcomesAreKeptWhileTheStoreIsAway(t *testing.T) {
	inBubble(t, func(b *bed) {
		var down atomic.Bool
		ran := 0
		b.run(durable.EngineConfig{}, handler(func(context.Context, string) error {
			ran++
			down.Store(true)
			return nil
		}))
		b.faults.set(func(*durable.Batch) error {
			if down.Load() {
				return durable.ErrUnavailable
			}
			return nil
		}, nil)
		id := b.add(work.With(""))
		rest(5 * time.Minute)
		b.wantState(id, durable.Running)
		if err := b.e.Healthy(); !errors.Is(err, durable.ErrUnavailable) {
			t.Errorf("healthy: %v", err)
		}
		if n := len(b.faults.seen()); n > 500 {
			t.Errorf("%d commits were tried in five minutes", n)
		}
		down.Store(false)
		b.faults.set(nil, nil)
		rest(2 * time.Second)
		b.wantState(id, durable.Succeeded)
		if ran != 1 {
			t.Errorf("it ran %d times", ran)
		}
		if failed, back := of[durable.CommitFailed](b.events), of[durable.StoreBack](b.events); len(failed) != 1 || len(back) != 1 || back[0].After < 5*time.Minute {
			t.Errorf("events %v, %v", failed, back)
		}
		if n := strings.Count(b.log.String(), "does not commit"); n != 1 {
			t.Errorf("the outage was logged %d times", n)
		}
		if err := b.e.Healthy(); err != nil {
			t.Error(err)
		}
	})
}

func TestAnOutcomeWhoseAnswerWasLostCounts(t *testing.T) {
	inBubble(t, func(b *bed) {
		lost := false
		b.faults.set(nil, func(batch *durable.Batch) error {
			if len(batch.Finishes) > 0 && !lost {
				lost = true
				return errLost
			}
			return nil
		})
		b.run(durable.EngineConfig{}, handler(nothing))
		id := b.add(work.With(""))
		rest(time.Minute)
		b.wantState(id, durable.Succeeded)
		if !lost || len(of[durable.TaskLost](b.events)) > 0 || b.e.Stats().Succeeded != 1 {
			t.Errorf("lost %v, stats %+v", lost, b.e.Stats())
		}
	})
}

func TestAClaimWhoseAnswerWasLostIsReconciled(t *testing.T) {
	inBubble(t, func(b *bed) {
		b.run(durable.EngineConfig{}, handler(nothing))
		rest(2 * time.Second)
		id := b.add(work.With("").In(10 * time.Second))
		lost := false
		b.faults.set(nil, func(batch *durable.Batch) error {
			if len(batch.Claims) > 0 && !lost && b.running(id) {
				lost = true
				return errLost
			}
			return nil
		})
		rest(11 * time.Second)
		task := b.wantState(id, durable.Succeeded)
		if !lost || task.Attempt != 1 || task.Crashes != 0 {
			t.Errorf("lost %v; attempt %d, crashes %d", lost, task.Attempt, task.Crashes)
		}
	})
}

func (b *bed) running(id durable.ID) bool {
	task, err := b.memory.Get(b.ctx, id)
	return err == nil && task.State == durable.Running
}

func TestAnOutcomeThatTheStoreRefuses(t *testing.T) {
	inBubble(t, func(b *bed) {
		b.faults.set(func(batch *durable.Batch) error {
			for _, f := range batch.Finishes {
				if f.Result != nil {
					return errors.New("no results today")
				}
			}
			return nil
		}, nil)
		kind := durable.DeclareResult[int, int]("k")
		b.run(durable.EngineConfig{}, kind.Run(func(context.Context, int) (int, error) { return 1, nil }), handler(nothing))
		id := b.add(kind.With(1))
		good := b.add(work.With(""))
		rest(time.Minute)
		b.wantState(good, durable.Succeeded)
		if task := b.wantState(id, durable.Dead); !strings.Contains(task.Errors[0].Message, "no results today") {
			t.Errorf("errors %+v", task.Errors)
		}
	})
}

func TestAnErrorThatTheStoreRefuses(t *testing.T) {
	inBubble(t, func(b *bed) {
		b.faults.set(func(batch *durable.Batch) error {
			for _, f := range batch.Finishes {
				if f.Error != nil && f.Error.Stack != "" {
					return errors.New("no stacks today")
				}
			}
			return nil
		}, nil)
		kind := durable.Declare[string]("work", durable.MaxAttempts(1))
		b.run(durable.EngineConfig{}, kind.Run(func(context.Context, string) error { panic("oh") }))
		id := b.add(kind.With(""))
		rest(time.Minute)
		b.wantState(id, durable.Dead)
	})
}

func TestAnOutageIsSaidOnceThoughTasksAreAdded(t *testing.T) {
	inBubble(t, func(b *bed) {
		b.run(durable.EngineConfig{}, handler(nothing))
		b.faults.set(func(batch *durable.Batch) error {
			if len(batch.Finishes)+len(batch.Claims) > 0 {
				return durable.ErrUnavailable
			}
			return nil
		}, nil)
		added := 0
		for range 1000 {
			if _, err := b.q.Add(b.ctx, work.With("")); err == nil {
				added++
			}
			time.Sleep(10 * time.Millisecond)
		}
		if added < 900 {
			t.Errorf("%d of 1000 tasks were added", added)
		}
		if n := len(of[durable.CommitFailed](b.events)); n != 1 {
			t.Errorf("the outage was said %d times", n)
		}
		b.faults.set(nil, nil)
		rest(time.Minute)
		if n := b.e.Stats().Succeeded; n < uint64(added) {
			t.Errorf("%d tasks ran of %d", n, added)
		}
	})
}

func TestALostLease(t *testing.T) {
	inBubble(t, func(b *bed) {
		causes := make(chan error, 10)
		b.run(durable.EngineConfig{Lease: 30 * time.Second}, handler(func(ctx context.Context, _ string) error {
			info, _ := durable.InfoFrom(ctx)
			if info.Crashes > 0 {
				return nil
			}
			<-ctx.Done()
			causes <- context.Cause(ctx)
			return ctx.Err()
		}))
		id := b.add(work.With(""))
		b.wantState(id, durable.Running)
		b.faults.setBeat(func() error { return durable.ErrLeaseLost })
		rest(11 * time.Second)
		b.faults.setBeat(nil)
		if cause := <-causes; !errors.Is(cause, durable.ErrLeaseLost) {
			t.Errorf("the cause is %v", cause)
		}
		b.faults.setBeat(nil)
		if n := len(of[durable.LeaseLost](b.events)); n != 1 {
			t.Errorf("%d events", n)
		}
		next := b.add(work.With("next"))
		if task := b.get(next); task.State != durable.Running {
			t.Errorf("under the new lease, a task is %v", task.State)
		}
		if nodes, _ := b.q.Nodes(b.ctx); len(nodes) == 0 {
			t.Error("the process is not registered")
		}
		for _, id := range []durable.ID{id, next} {
			if _, err := b.q.Cancel(b.ctx, id); err != nil {
				t.Error(err)
			}
		}
		rest(time.Minute)
	})
}

func TestNoBeatForLongerThanTheLease(t *testing.T) {
	inBubble(t, func(b *bed) {
		start := time.Now()
		var runs, lost atomic.Int64
		b.run(durable.EngineConfig{Lease: 30 * time.Second}, handler(func(ctx context.Context, _ string) error {
			if runs.Add(1) > 1 {
				return nil
			}
			<-ctx.Done()
			lost.Store(int64(time.Since(start)))
			return context.Cause(ctx)
		}))
		b.faults.setBeat(func() error { return durable.ErrUnavailable })
		id := b.add(work.With(""))
		rest(29 * time.Second)
		if lost.Load() > 0 {
			t.Errorf("the lease was lost after %v", lost.Load())
		}
		rest(2 * time.Second)
		if at := time.Duration(lost.Load()); at != 30*time.Second {
			t.Errorf("the lease was lost after %v", at)
		}
		b.faults.setBeat(nil)
		rest(2 * time.Minute)
		b.wantState(id, durable.Succeeded)
	})
}

// TestALateFinishDoesNotCount gives the task to another process while the
// first does not notice.
func TestALateFinishDoesNotCount(t *testing.T) {
	inBubble(t, func(b *bed) {
		release := make(chan struct{})
		b.run(durable.EngineConfig{}, handler(func(ctx context.Context, _ string) error {
			<-release
			durable.Progress(ctx, 1, 2, "late")
			return nil
		}))
		id := b.add(work.With(""))
		b.wantState(id, durable.Running)
		b.memory.Advance(time.Hour) // the lease ends
		boot := durable.Boot(durable.NewID())
		if _, err := b.memory.Register(b.ctx, durable.Node{Boot: boot, Name: "sweeper", Lease: time.Hour}); err != nil {
			t.Fatal(err)
		}
		if _, err := b.memory.Sweep(b.ctx, boot); err != nil {
			t.Fatal(err)
		}
		close(release)
		synctest.Wait()
		if lost := of[durable.TaskLost](b.events); len(lost) != 1 || lost[0].ID != id || b.e.Stats().Lost != 1 {
			t.Errorf("events %+v", lost)
		}
		if task := b.get(id); task.State == durable.Succeeded || task.Progress != nil {
			t.Errorf("the late outcome counts: %+v", task)
		}
		rest(time.Minute)
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
