package durable_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wake-go/wake/durable"
	"github.com/wake-go/wake/durable/memory"
)

// mustDo fails the test with what somebody's change of a schedule returns.
func mustDo(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestPauseResumeAndRunNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		store := memory.New(memory.Config{})
		var r ran
		process(t, store, r.run, every("s", "0 * * * *", durable.WithMisfire(durable.MisfireAll)))
		q := durable.NewQueue(store) // of another process
		defer q.Close(context.Background())
		pass(time.Hour + time.Minute) // 01:01
		equalTimes(t, r.take(), "2000-01-01 01:00")
		if s := info(t, q, "s"); !s.Next.Equal(at(t, "2000-01-01 02:00")) || !s.LastTick.Equal(at(t, "2000-01-01 01:00")) || s.LastTask.IsZero() || s.Kind != "tick" || s.Queue != "default" {
			t.Errorf("after a tick: %+v", s)
		}

		mustDo(t, q.PauseSchedule(ctx, "s"))
		if s := info(t, q, "s"); !s.Paused || !s.Next.IsZero() {
			t.Errorf("paused: %+v", s)
		}
		pass(5 * time.Hour) // 06:01
		equalTimes(t, r.take())

		id, err := q.RunSchedule(ctx, "s")
		mustDo(t, err)
		pass(time.Second)
		if ticks := r.take(); len(ticks) != 1 || ticks[0].Unix() != 0 {
			t.Errorf("run now: %v; it is once, and no tick", ticks)
		}
		if task, err := q.Get(ctx, id); err != nil || task.State != durable.Succeeded || task.Meta.Schedule != "s" {
			t.Errorf("the task that was run now is %+v, %v", task, err)
		}

		mustDo(t, q.ResumeSchedule(ctx, "s"))
		pass(30 * time.Minute) // 06:31
		equalTimes(t, r.take())
		pass(30 * time.Minute) // 07:01
		equalTimes(t, r.take(), "2000-01-01 07:00")
	})
}

func TestSetAndResetSchedule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		store := memory.New(memory.Config{})
		var r ran
		process(t, store, r.run, every("s", "0 * * * *"))
		q := durable.NewQueue(store) // of another process
		defer q.Close(context.Background())
		pass(time.Minute) // 00:01
		mustDo(t, q.SetSchedule(ctx, "s", "  */10  * * * *", ""))
		if s := info(t, q, "s"); s.Spec != "*/10 * * * *" || s.CodeSpec != "0 * * * *" || !s.Overridden || !s.Next.Equal(at(t, "2000-01-01 00:10")) {
			t.Errorf("set: %+v", s)
		}
		pass(20 * time.Minute) // 00:21
		equalTimes(t, r.take(), "2000-01-01 00:10", "2000-01-01 00:20")

		// A change takes effect within a second.
		mustDo(t, q.SetSchedule(ctx, "s", "* * * * * *", ""))
		pass(3 * time.Second)
		if got := r.take(); len(got) < 2 {
			t.Errorf("three seconds after a tick each second was asked for: %v", got)
		}
		mustDo(t, q.SetSchedule(ctx, "s", "0 12 * * *", "Asia/Kathmandu"))
		pass(3 * time.Second)
		if got := r.take(); len(got) > 1 {
			t.Errorf("after the ticks were ended: %v", got)
		}
		if s := info(t, q, "s"); s.Zone != "Asia/Kathmandu" || s.CodeZone != "UTC" || !s.Next.Equal(at(t, "2000-01-01 06:15")) {
			t.Errorf("set with a zone: %+v", s)
		}

		for what, err := range map[string]error{
			"a bad expression": q.SetSchedule(ctx, "s", "0 0 30 2 *", ""),
			"a bad zone":       q.SetSchedule(ctx, "s", "", "Mars"),
			"nothing":          q.SetSchedule(ctx, "s", "", ""),
		} {
			if err == nil || !strings.HasPrefix(err.Error(), `durable: set schedule "s": `) {
				t.Errorf("%s is answered with %v", what, err)
			}
		}
		if s := info(t, q, "s"); s.Spec != "0 12 * * *" {
			t.Errorf("after what was refused: %+v", s)
		}

		mustDo(t, q.ResetSchedule(ctx, "s"))
		if s := info(t, q, "s"); s.Overridden || s.Spec != "0 * * * *" || s.Zone != "UTC" || !s.Next.Equal(at(t, "2000-01-01 01:00")) {
			t.Errorf("reset: %+v", s)
		}
		pass(time.Hour) // 01:21
		equalTimes(t, r.take(), "2000-01-01 01:00")
	})
}

func TestChangesAtTheSameTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, _ := process(t, memory.New(memory.Config{}), (&ran{}).run, every("s", "* * * * * *"))
		pass(time.Second)
		var people sync.WaitGroup
		for _, change := range []func() error{
			func() error { return q.PauseSchedule(t.Context(), "s") },
			func() error { return q.ResumeSchedule(t.Context(), "s") },
			func() error { return q.SetSchedule(t.Context(), "s", "@hourly", "") },
			func() error { return q.ResetSchedule(t.Context(), "s") },
		} {
			people.Go(func() {
				for range 50 {
					if err := change(); err != nil {
						t.Error(err)
					}
				}
			})
		}
		people.Wait()
	})
}

func TestUnknownSchedule(t *testing.T) {
	ctx := t.Context()
	q := durable.NewQueue(memory.New(memory.Config{}))
	defer q.Close(context.Background())
	_, err := q.RunSchedule(ctx, "other")
	for _, err := range []error{
		err, q.PauseSchedule(ctx, "other"), q.ResumeSchedule(ctx, "other"), q.SetSchedule(ctx, "other", "@daily", ""),
		q.ResetSchedule(ctx, "other"), q.DeleteSchedule(ctx, "other", true),
	} {
		if !errors.Is(err, durable.ErrNotFound) || !strings.Contains(err.Error(), `"other"`) {
			t.Errorf("an unknown schedule is answered with %v", err)
		}
	}
}

func TestDeploysOfSchedules(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		store := memory.New(memory.Config{})
		var r ran
		_, stop := process(t, store, r.run, every("s", "0 * * * *"), every("gone", "0 * * * *"))
		pass(time.Minute)
		stop()
		store.Advance(5 * time.Hour) // 05:01

		// Another expression: from now on, and nothing of what was missed.
		q, stop := process(t, store, r.run, every("s", "30 * * * *"))
		pass(20 * time.Minute) // 05:21
		equalTimes(t, r.take())
		if s := info(t, q, "gone"); !s.Orphan || !s.Next.IsZero() {
			t.Errorf("what no program declares any more: %+v", s)
		}
		pass(20 * time.Minute) // 05:41
		equalTimes(t, r.take(), "2000-01-01 05:30")
		if err := q.DeleteSchedule(ctx, "s", false); !errors.Is(err, durable.ErrState) {
			t.Errorf("deleting what a program declares: %v", err)
		}
		if err := q.DeleteSchedule(ctx, "gone", false); err != nil {
			t.Errorf("deleting an orphan: %v", err)
		}

		// People's settings survive a deploy, and code's are there when they are reset.
		if err := q.SetSchedule(ctx, "s", "45 * * * *", ""); err != nil {
			t.Fatal(err)
		}
		stop()
		q, _ = process(t, store, r.run, every("s", "15 * * * *", durable.InZone("Europe/Berlin")))
		pass(10 * time.Minute) // 05:51
		equalTimes(t, r.take(), "2000-01-01 05:45")
		if s := info(t, q, "s"); s.Spec != "45 * * * *" || s.Zone != "UTC" || s.CodeSpec != "15 * * * *" || s.CodeZone != "Europe/Berlin" || !s.Overridden {
			t.Errorf("after a deploy: %+v", s)
		}
		if err := q.ResetSchedule(ctx, "s"); err != nil {
			t.Fatal(err)
		}
		pass(30 * time.Minute) // 06:21
		equalTimes(t, r.take(), "2000-01-01 06:15")

		// Deleted all the same: code's comes back, as new.
		if err := q.PauseSchedule(ctx, "s"); err != nil {
			t.Fatal(err)
		}
		if err := q.DeleteSchedule(ctx, "s", true); err != nil {
			t.Fatal(err)
		}
		pass(2 * time.Second)
		if s := info(t, q, "s"); s.Paused || !s.LastTick.IsZero() {
			t.Errorf("after it was deleted: %+v", s)
		}
		pass(time.Hour) // 07:21
		equalTimes(t, r.take(), "2000-01-01 07:15")
	})
}

func TestLaterBuildWins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New(memory.Config{})
		task, err := durable.NewQueue(store).Encode(tickKind.With("later"))
		if err != nil {
			t.Fatal(err)
		}
		later := durable.ScheduleRow{
			Name: "s", Spec: "10 * * * *", Zone: "UTC", Misfire: "once", Overlap: "skip", Task: task,
			Revision: 1 << 40, Next: at(t, "2000-01-01 00:10"),
		}
		if err := store.DeclareSchedules(t.Context(), []durable.ScheduleRow{later}); err != nil {
			t.Fatal(err)
		}
		var r ran
		q, _ := process(t, store, r.run, every("s", "20 * * * *"))
		pass(30 * time.Minute)
		equalTimes(t, r.take(), "2000-01-01 00:10")

		// The way back to the build that runs.
		if err := q.DeleteSchedule(t.Context(), "s", true); err != nil {
			t.Fatal(err)
		}
		pass(time.Hour)
		equalTimes(t, r.take(), "2000-01-01 01:20")
		rows, err := store.Schedules(t.Context())
		if err != nil || rows[0].Revision <= 0 || rows[0].Revision >= later.Revision {
			t.Errorf("the revision of this build is not between 0 and %d: %+v, %v", later.Revision, rows, err)
		}
	})
}
