package durable_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wake-go/wake/durable"
	"github.com/wake-go/wake/durable/memory"
)

// flaky is a store that fails when it is told to.
type flaky struct {
	durable.Store
	mu   sync.Mutex
	down bool
	bad  string // the schedule whose fires fail
	lost bool   // answers to fires get lost
}

var errDown = fmt.Errorf("down: %w", durable.ErrUnavailable)

func (f *flaky) set(down bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.down = down
}

func (f *flaky) err() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.down {
		return errDown
	}
	return nil
}

func (f *flaky) Commit(ctx context.Context, b *durable.Batch) (*durable.BatchResult, error) {
	if err := f.err(); err != nil {
		return nil, err
	}
	for _, fire := range b.Fires {
		if fire.Name == f.bad {
			return nil, errors.New("this fire is bad")
		}
	}
	res, err := f.Store.Commit(ctx, b)
	if f.lost && len(b.Fires) > 0 && !b.Again {
		return nil, durable.ErrUnknown
	}
	return res, err
}

func (f *flaky) Schedules(ctx context.Context) ([]durable.ScheduleRow, error) {
	if err := f.err(); err != nil {
		return nil, err
	}
	return f.Store.Schedules(ctx)
}

func (f *flaky) Now(ctx context.Context) (time.Time, error) {
	if err := f.err(); err != nil {
		return time.Time{}, err
	}
	return f.Store.Now(ctx)
}

func TestOutageOfTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &flaky{Store: memory.New(memory.Config{})}
		var r ran
		process(t, store, r.run, every("once", "*/10 * * * *"), every("skip", "*/10 * * * *", durable.WithMisfire(durable.MisfireSkip)))
		pass(11 * time.Minute) // 00:11
		equalTimes(t, r.take(), "2000-01-01 00:10", "2000-01-01 00:10")
		store.set(true)
		pass(34 * time.Minute) // 00:45
		equalTimes(t, r.take())
		store.set(false)
		pass(time.Minute) // 00:46
		equalTimes(t, r.take(), "2000-01-01 00:40")
		pass(5 * time.Minute)
		equalTimes(t, r.take(), "2000-01-01 00:50", "2000-01-01 00:50")
	})
}

// deaf is a store that does not pass on that something has changed.
type deaf struct{ *memory.Store }

func (deaf) Watch(ctx context.Context, _ func(durable.Signal)) error {
	<-ctx.Done()
	return ctx.Err()
}

func TestChangeIsFoundWithoutSignal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New(memory.Config{})
		var r ran
		process(t, deaf{store}, r.run, every("s", "@yearly"))
		pass(time.Second)
		q := durable.NewQueue(store) // of another process
		defer q.Close(context.Background())
		if err := q.SetSchedule(t.Context(), "s", "* * * * * *", ""); err != nil {
			t.Fatal(err)
		}
		pass(12 * time.Second)
		if got := r.take(); len(got) == 0 {
			t.Error("12 seconds after a tick each second was asked for, there was none")
		}
	})
}

// noisy is a store that says all the time that something may have changed, as
// one on a busy file does.
type noisy struct {
	*memory.Store
	mu    sync.Mutex
	reads int
}

func (n *noisy) Watch(ctx context.Context, f func(durable.Signal)) error {
	for ctx.Err() == nil {
		time.Sleep(time.Millisecond)
		f(durable.SignalSchedules)
	}
	return ctx.Err()
}

func (n *noisy) Schedules(ctx context.Context) ([]durable.ScheduleRow, error) {
	n.mu.Lock()
	n.reads++
	n.mu.Unlock()
	return n.Store.Schedules(ctx)
}

func TestStormOfSignals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &noisy{Store: memory.New(memory.Config{})}
		var r ran
		process(t, store, r.run, every("s", "* * * * * *", durable.WithOverlap(durable.OverlapAllow)))
		pass(10*time.Second + 500*time.Millisecond)
		if got := r.take(); len(got) != 10 {
			t.Errorf("ticks in ten seconds: %v", got)
		}
		store.mu.Lock()
		defer store.mu.Unlock()
		if store.reads > 60 {
			t.Errorf("the schedules were read %d times in ten seconds", store.reads)
		}
	})
}

func TestLostAnswerFiresOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &flaky{Store: memory.New(memory.Config{}), lost: true}
		var r ran
		process(t, store, r.run, every("s", "* * * * *", durable.WithMisfire(durable.MisfireAll)))
		pass(3*time.Minute + 30*time.Second)
		equalTimes(t, r.take(), "2000-01-01 00:01", "2000-01-01 00:02", "2000-01-01 00:03")
	})
}

func TestOneBadScheduleStopsNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &flaky{Store: memory.New(memory.Config{}), bad: "bad"}
		var r ran
		process(t, store, r.run, every("bad", "* * * * *"), every("good", "* * * * *"))
		pass(10*time.Minute + 30*time.Second)
		if got := r.take(); len(got) != 10 {
			t.Errorf("%d ticks of the good one in 10 minutes: %v", len(got), got)
		}
	})
}

func TestUnreadableScheduleStopsNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New(memory.Config{})
		var r ran
		q, _ := process(t, store, r.run, every("bad", "* * * * *"), every("good", "* * * * *"))
		pass(time.Second)
		rows, err := store.Schedules(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		rows[0].OverrideSpec = "from a version to come"
		if err := store.ChangeSchedule(t.Context(), rows[0]); err != nil {
			t.Fatal(err)
		}
		pass(3 * time.Minute)
		equalTimes(t, r.take(), "2000-01-01 00:01", "2000-01-01 00:02", "2000-01-01 00:03")
		if err := q.ResetSchedule(t.Context(), "bad"); err != nil {
			t.Fatal(err)
		}
		pass(time.Minute)
		if got := r.take(); len(got) != 2 {
			t.Errorf("after the reset: %v", got)
		}
	})
}
