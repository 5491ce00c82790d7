package durable_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wake-go/wake/durable"
)

func TestDrainLetsTasksEnd(t *testing.T) {
	inBubble(t, func(b *bed) {
		b.start(durable.EngineConfig{}, handler(func(ctx context.Context, _ string) error {
			time.Sleep(10 * time.Second)
			return ctx.Err()
		}))
		id := b.add(work.With(""))
		synctest.Wait()
		start := time.Now()
		later := make(chan durable.ID, 1)
		go func() {
			time.Sleep(time.Second)
			later <- b.add(work.With("later"))
		}()
		if err := b.e.Drain(b.ctx); err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took != 10*time.Second {
			t.Errorf("the drain took %v", took)
		}
		b.wantState(id, durable.Succeeded)
		b.wantState(<-later, durable.Ready) // nothing is claimed during a drain
		if nodes, _ := b.q.Nodes(b.ctx); len(nodes) != 0 {
			t.Errorf("the process is still registered: %+v", nodes)
		}
		if err := b.e.Drain(b.ctx); !errors.Is(err, durable.ErrClosed) {
			t.Errorf("a second drain: %v", err)
		}
	})
}

func TestDrainCancelsAtItsEnd(t *testing.T) {
	inBubble(t, func(b *bed) {
		b.start(durable.EngineConfig{DrainTimeout: 5 * time.Second}, handler(func(ctx context.Context, arg string) error {
			<-ctx.Done()
			if !errors.Is(context.Cause(ctx), durable.ErrDraining) {
				t.Errorf("the cause is %v", context.Cause(ctx))
			}
			switch arg {
			case "ends":
				return nil
			case "dies":
				return durable.Cancel(errors.New("no"))
			}
			return ctx.Err()
		}))
		back, ends := b.add(work.With("")), b.add(work.With("ends"))
		synctest.Wait()
		ctx, cancel := context.WithTimeout(b.ctx, 5*time.Second)
		defer cancel()
		if err := b.e.Drain(ctx); err != nil {
			t.Error(err)
		}
		if task := b.wantState(back, durable.Ready); task.Attempt != 0 || task.Crashes != 0 {
			t.Errorf("the task that went back has %d attempts", task.Attempt)
		}
		b.wantState(ends, durable.Succeeded)
	})
}

func TestDrainNamesWhatIgnoresIt(t *testing.T) {
	inBubble(t, func(b *bed) {
		release := make(chan struct{})
		b.start(durable.EngineConfig{Grace: 3 * time.Second}, handler(func(context.Context, string) error {
			<-release
			return nil
		}))
		id := b.add(work.With(""))
		synctest.Wait()
		ctx, cancel := context.WithTimeout(b.ctx, time.Second)
		defer cancel()
		start := time.Now()
		err := b.e.Drain(ctx)
		if took := time.Since(start); took != 4*time.Second {
			t.Errorf("the drain took %v", took)
		}
		var abandoned *durable.AbandonedError
		if !errors.As(err, &abandoned) || len(abandoned.Tasks) != 1 || abandoned.Tasks[0].ID != id ||
			!strings.Contains(abandoned.Tasks[0].Stack, "TestDrainNamesWhatIgnoresIt") || !strings.Contains(err.Error(), `"work"`) {
			t.Errorf("got %v", err)
		}
		if task := b.wantState(id, durable.Ready); task.Attempt != 0 {
			t.Errorf("it cost %d attempts", task.Attempt)
		}
		if b.e.Stats().Abandoned != 1 {
			t.Errorf("stats %+v", b.e.Stats())
		}
		close(release)
		b.wantState(id, durable.Ready)
	})
}

func TestDrainWhileTheStoreIsAway(t *testing.T) {
	inBubble(t, func(b *bed) {
		b.start(durable.EngineConfig{}, handler(nothing))
		b.faults.set(func(batch *durable.Batch) error {
			if len(batch.Finishes) > 0 {
				return durable.ErrUnavailable
			}
			return nil
		}, nil)
		id := b.add(work.With(""))
		synctest.Wait()
		ctx, cancel := context.WithTimeout(b.ctx, 5*time.Second)
		defer cancel()
		if err := b.e.Drain(ctx); !errors.Is(err, durable.ErrUnavailable) || !strings.Contains(err.Error(), "1 tasks") {
			t.Errorf("got %v", err)
		}
		if nodes, _ := b.q.Nodes(b.ctx); len(nodes) != 1 {
			t.Error("the lease was given up over an outcome that is not committed")
		}
		b.faults.set(nil, nil)
		if err := b.q.Close(b.ctx); err != nil { // the queue has kept it
			t.Error(err)
		}
		if task, _ := b.memory.Get(b.ctx, id); task.State != durable.Succeeded {
			t.Errorf("the task is %v", task.State)
		}
	})
}

func TestRun(t *testing.T) {
	inBubble(t, func(b *bed) {
		e, err := durable.EngineConfig{DrainTimeout: time.Minute, Logger: newLogger(b.log)}.NewEngine(b.q, handler(func(ctx context.Context, _ string) error {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(30 * time.Second):
				return nil
			}
		}))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(b.ctx)
		done := make(chan error)
		go func() { done <- e.Run(ctx) }()
		synctest.Wait()
		id := b.add(work.With(""))
		synctest.Wait()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		b.wantState(id, durable.Succeeded)
	})
}

func TestBeatsGoOnDuringADrain(t *testing.T) {
	inBubble(t, func(b *bed) {
		b.start(durable.EngineConfig{Lease: 3 * time.Second}, handler(func(ctx context.Context, _ string) error {
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-time.After(time.Minute):
				return nil
			}
		}))
		id := b.add(work.With(""))
		synctest.Wait()
		if err := b.e.Drain(b.ctx); err != nil {
			t.Error(err)
		}
		b.wantState(id, durable.Succeeded)
	})
}

func TestDrainWaitsForClaimsUnderWay(t *testing.T) {
	inBubble(t, func(b *bed) {
		b.faults.deaf = true
		b.start(durable.EngineConfig{Poll: time.Hour}, handler(func(context.Context, string) error {
			t.Error("it was begun")
			return nil
		}))
		rest(time.Second)
		g := newGate()
		b.faults.set(nil, g.pass)
		added := b.addLater(b.ctx, work.With("").Tags("x")) // and claims it
		done := make(chan error)
		go func() { done <- b.e.Drain(b.ctx) }()
		synctest.Wait()
		close(g.closed)
		if err := errors.Join(<-added, <-done); err != nil {
			t.Error(err)
		}
		tasks, err := b.q.List(b.ctx, durable.Filter{Tag: "x"}, durable.Page{})
		if err != nil || len(tasks) != 1 || tasks[0].State != durable.Ready || tasks[0].Attempt != 0 {
			t.Errorf("the task is %+v, %v", tasks, err)
		}
		if lost := of[durable.TaskLost](b.events); len(lost) > 0 || b.faults.held > 0 {
			t.Errorf("%d tasks were claimed when the process signed off; events %+v", b.faults.held, lost)
		}
	})
}

func TestDrainGivesBackWhatWasClaimedUnknowingly(t *testing.T) {
	inBubble(t, func(b *bed) {
		b.faults.deaf = true
		b.start(durable.EngineConfig{Poll: time.Hour}, handler(nothing))
		rest(time.Second)
		g := newGate()
		b.faults.set(nil, func(*durable.Batch) error { _ = g.pass(nil); return errLost })
		b.addLater(b.ctx, work.With("").Tags("x"))
		done := make(chan error)
		go func() { done <- b.e.Drain(b.ctx) }()
		synctest.Wait()
		close(g.closed)
		<-done
		b.faults.set(nil, nil)
		rest(10 * time.Second)
		if tasks, err := b.q.List(b.ctx, durable.Filter{Tag: "x"}, durable.Page{}); err != nil || len(tasks) != 1 || tasks[0].State != durable.Ready {
			t.Errorf("the task is %+v, %v", tasks, err)
		}
		if b.faults.held > 0 {
			t.Errorf("%d tasks were claimed when the process signed off", b.faults.held)
		}
	})
}

func TestDrainNamesWhatWasGivenUpBefore(t *testing.T) {
	inBubble(t, func(b *bed) {
		release := make(chan struct{})
		kind := durable.Declare[string]("work", durable.HardTimeout(time.Minute))
		b.start(durable.EngineConfig{}, kind.Run(func(context.Context, string) error { <-release; return durable.Cancel(errors.New("late")) }))
		b.add(kind.With(""))
		rest(61 * time.Second)
		var abandoned *durable.AbandonedError
		if err := b.e.Drain(b.ctx); !errors.As(err, &abandoned) || len(abandoned.Tasks) == 0 {
			t.Errorf("got %v", err)
		}
		close(release)
	})
}
