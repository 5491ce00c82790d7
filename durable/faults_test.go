package durable_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wake-go/wake/durable"
)

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
