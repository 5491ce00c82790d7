package background_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wake-go/wake/background"
)

func TestLentWorkersTakeTurnsWithTasks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &ledger{}
		r := newRunner(t, narrow(1))
		leave := occupy(t, r)
		if err := r.Add(t.Context(), log.task("task")); err != nil {
			t.Fatal(err)
		}
		for range 3 { // more than there are places
			r.Lend("default", func() { log.add("lent") })
		}
		synctest.Wait()
		log.want(t)
		if got := r.Stats().Lanes[1]; got.Running != 1 || got.Waiting != 4 {
			t.Errorf("%+v", got)
		}
		leave()
		synctest.Wait()
		log.want(t, "task", "lent", "lent", "lent")
		if s := r.Stats(); s.Added != 2 || s.Finished != 2 {
			t.Errorf("what is lent is no task: %+v", s)
		}
	})
	mustPanic(t, `background: Lend asks for the lane "no"; add it to Config.Lanes`, func() {
		newRunner(t, background.Config{}).Lend("no", func() {})
	})
}

func TestADrainWaitsForLentWorkers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &ledger{}
		r := newRunner(t, background.Config{})
		r.Lend("default", func() { time.Sleep(time.Minute); log.add("lent") })
		synctest.Wait()
		if err := r.Drain(context.Background()); err != nil {
			t.Error(err)
		}
		log.want(t, "lent")
		done := make(chan struct{})
		r.Lend("default", func() { close(done) })
		<-done
	})
}

// What is lent always runs, as its owner waits for it: also when a drain has
// found the only worker stuck.
func TestWhatADrainFindsNoWorkerForRunsAllTheSame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRunnerUnchecked(t, narrow(1))
		leave := occupy(t, r)
		done := make(chan struct{})
		r.Lend("default", func() { close(done) })
		if err := r.Drain(within(t, time.Second)); err == nil {
			t.Error("the stuck task is not reported")
		}
		<-done
		leave()
		synctest.Wait()
		checkSettled(t, r)
	})
}

func TestOffloadWithinItsLaneRunsInPlace(t *testing.T) {
	r := newRunner(t, background.Config{Lanes: ordinary(1, 1)})
	done := make(chan int)
	r.Lend(background.CPULane, func() {
		n, err := background.Offload(r.Within(t.Context(), background.CPULane), r, func(context.Context) (int, error) { return 7, nil })
		if err != nil {
			t.Error(err)
		}
		done <- n
	})
	if n := wait(t, done, "the offloaded function"); n != 7 {
		t.Errorf("got %d", n)
	}
	if ctx := t.Context(); r.Within(ctx, "no lane") != ctx {
		t.Error("an unknown lane changes the context")
	}
}
