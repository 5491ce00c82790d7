package durable_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wake-go/wake/durable"
	"github.com/wake-go/wake/durable/memory"
)

var tickKind = durable.Declare[string]("tick")

// ran remembers the ticks of tasks that have run, in order of their start.
type ran struct {
	mu    sync.Mutex
	ticks []time.Time
	names []string
}

func (r *ran) run(ctx context.Context, _ string) error {
	info, _ := durable.InfoFrom(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ticks = append(r.ticks, time.Unix(info.Meta.Tick, 0).UTC())
	r.names = append(r.names, info.Meta.Schedule)
	return nil
}

// take returns what has run since it was called last.
func (r *ran) take() []time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	ticks := r.ticks
	r.ticks, r.names = nil, nil
	return ticks
}

// process starts an engine with schedules on a store, as a process has it, and
// returns its queue and what stops it.
func process(t *testing.T, store durable.Store, run func(context.Context, string) error, schedules ...durable.Schedule) (*durable.Queue, func()) {
	t.Helper()
	q := durable.NewQueue(store)
	e, err := durable.EngineConfig{Schedules: schedules, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))}.NewEngine(q, tickKind.Run(run))
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	stop := sync.OnceFunc(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := e.Drain(ctx); err != nil {
			t.Errorf("drain: %v", err)
		}
		if err := q.Close(context.Background()); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	t.Cleanup(stop)
	return q, stop
}

// pass lets time pass, in the bubble of synctest, and what happens then.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// info returns what is known of one schedule.
func info(t *testing.T, q *durable.Queue, name string) durable.ScheduleInfo {
	t.Helper()
	all, err := q.Schedules(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range all {
		if s.Name == name {
			return s
		}
	}
	t.Fatalf("there is no schedule %q in %+v", name, all)
	return durable.ScheduleInfo{}
}

func every(name, spec string, opts ...durable.ScheduleOption) durable.Schedule {
	return durable.NewSchedule(name, durable.Cron(spec), tickKind.With(name), opts...)
}

func equalTimes(t *testing.T, got []time.Time, want ...string) {
	t.Helper()
	var wanted []time.Time
	for _, s := range want {
		wanted = append(wanted, at(t, s))
	}
	if !slices.EqualFunc(got, wanted, time.Time.Equal) {
		t.Fatalf("ticks that ran: %v, not %v", got, wanted)
	}
}

// Time in a bubble begins at midnight UTC of 1 January 2000.

func TestScheduleTicksOnTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var late time.Duration
		var r ran
		run := func(ctx context.Context, name string) error {
			in, _ := durable.InfoFrom(ctx)
			late = max(late, time.Since(time.Unix(in.Meta.Tick, 0)))
			if name != "minutely" || in.Meta.Schedule != "minutely" {
				t.Errorf("the task has the argument %q and the schedule %q", name, in.Meta.Schedule)
			}
			return r.run(ctx, name)
		}
		process(t, memory.New(memory.Config{}), run, every("minutely", "* * * * *"))
		pass(30*time.Minute + time.Second)
		ticks := r.take()
		if len(ticks) != 30 {
			t.Fatalf("%d ticks in 30 minutes: %v", len(ticks), ticks)
		}
		for i, tick := range ticks {
			if want := at(t, "2000-01-01 00:01").Add(time.Duration(i) * time.Minute); !tick.Equal(want) {
				t.Errorf("tick %d is %v, not %v", i, tick, want)
			}
		}
		if late > 100*time.Millisecond {
			t.Errorf("a task ran %v after its tick", late)
		}
	})
}

func TestScheduleOverTwoYears(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New(memory.Config{})
		var r ran
		q, _ := process(t, store, r.run, every("morning", "30 2 * * *", durable.InZone("Europe/Berlin")))
		synctest.Wait()
		berlin, err := time.LoadLocation("Europe/Berlin")
		if err != nil {
			t.Fatal(err)
		}
		day, odd := time.Date(2000, 1, 1, 12, 0, 0, 0, time.UTC), 0
		for range 731 {
			next := info(t, q, "morning").Next
			now, err := store.Now(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			store.Advance(next.Sub(now))
			pass(15 * time.Second) // the process has lost its lease, and registers again
			ticks := r.take()
			if len(ticks) != 1 || !ticks[0].Equal(next) {
				t.Fatalf("at %v these ticks ran: %v", next, ticks)
			}
			local := next.In(berlin)
			if local.Format(time.DateOnly) != day.Format(time.DateOnly) {
				t.Fatalf("the tick of %v is at %v", day.Format(time.DateOnly), local)
			}
			if clock := local.Format(time.TimeOnly); clock != "02:30:00" {
				odd++
				if clock != "03:00:00" {
					t.Fatalf("a tick is at %v", local)
				}
			}
			day = day.AddDate(0, 0, 1)
		}
		if odd != 2 {
			t.Fatalf("%d ticks were not at 02:30; there are two gaps in two years", odd)
		}
	})
}

func TestEachTickIsFiredOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New(memory.Config{})
		var r ran
		overlap := durable.WithOverlap(durable.OverlapAllow)
		for range 3 {
			process(t, store, r.run, every("often", "*/5 * * * * *", overlap), every("same", "*/5 * * * * *", overlap))
		}
		pass(5*time.Minute + time.Second)
		r.mu.Lock()
		defer r.mu.Unlock()
		seen := map[string]int{}
		for i, tick := range r.ticks {
			seen[r.names[i]+tick.String()]++
		}
		for tick, n := range seen {
			if n != 1 {
				t.Errorf("%s ran %d times", tick, n)
			}
		}
		if len(seen) != 2*60 {
			t.Errorf("%d ticks of two schedules in five minutes, not %d", len(seen), 2*60)
		}
	})
}

func TestMisfires(t *testing.T) {
	tests := []struct {
		name string
		rule durable.Misfire
		spec string
		away time.Duration
		want []string // that ran within two minutes of the return
		n    int      // how many instead, the first and the last being those of want
	}{
		{"once", durable.MisfireOnce, "0 * * * *", 5*time.Hour + 30*time.Minute, []string{"2000-01-01 05:00"}, 0},
		{"once, none missed", durable.MisfireOnce, "0 * * * *", 30 * time.Minute, nil, 0},
		{"skip", durable.MisfireSkip, "0 * * * *", 5*time.Hour + 30*time.Minute, nil, 0},
		{"skip, the last one late by less than its grace", durable.MisfireSkip, "0 * * * *", 5*time.Hour + 30*time.Second, []string{"2000-01-01 05:00"}, 0},
		{"all", durable.MisfireAll, "0 * * * *", 3*time.Hour + 30*time.Minute, []string{"2000-01-01 01:00", "2000-01-01 02:00", "2000-01-01 03:00"}, 0},
		{"all, which are too many", durable.MisfireAll, "0 * * * *", 200*time.Hour + 30*time.Minute, []string{"2000-01-05 05:00", "2000-01-09 08:00"}, 100},
		{"all of a year's seconds", durable.MisfireAll, "* * 0 1 1 *", 200 * 24 * time.Hour, []string{"2000-01-01 00:58:20", "2000-01-01 00:59:59"}, 100},
		{"once of a year's seconds", durable.MisfireOnce, "*/10 * * * * *", 365*24*time.Hour + 3*time.Second, nil, 13},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := memory.New(memory.Config{})
				var r ran
				schedule := every("s", tt.spec, durable.WithMisfire(tt.rule), durable.WithOverlap(durable.OverlapAllow))
				_, stop := process(t, store, r.run, schedule)
				synctest.Wait()
				stop()
				r.take()
				store.Advance(tt.away)
				process(t, store, r.run, schedule)
				pass(2*time.Minute + time.Second)
				got := r.take()
				if tt.n == 0 {
					equalTimes(t, got, tt.want...)
					return
				}
				if len(got) != tt.n {
					t.Fatalf("%d ticks ran, not %d: %v", len(got), tt.n, got)
				}
				if len(tt.want) == 2 {
					equalTimes(t, []time.Time{got[0], got[len(got)-1]}, tt.want...)
				}
			})
		})
	}
}

func TestMisfiresAreSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New(memory.Config{})
		var mu sync.Mutex
		var starts []time.Time
		run := func(context.Context, string) error {
			mu.Lock()
			defer mu.Unlock()
			starts = append(starts, time.Now())
			return nil
		}
		schedule := every("s", "0 * * * *", durable.WithMisfire(durable.MisfireAll))
		_, stop := process(t, store, run, schedule)
		synctest.Wait()
		stop()
		store.Advance(30*time.Hour + 30*time.Minute)
		process(t, store, run, schedule)
		pass(2 * time.Minute)
		if len(starts) != 30 {
			t.Fatalf("%d tasks ran, not 30", len(starts))
		}
		if d := starts[29].Sub(starts[0]); d < 50*time.Second || d > 70*time.Second {
			t.Errorf("all ran within %v; they are to be spread over a minute", d)
		}
	})
}

// mirror is a Codec that stores payloads backwards.
type mirror struct{}

func (mirror) Seal(_ string, plain []byte) ([]byte, error) {
	sealed := slices.Clone(plain)
	slices.Reverse(sealed)
	return sealed, nil
}

func (m mirror) Open(kind string, sealed []byte) ([]byte, error) { return m.Seal(kind, sealed) }

func TestTickAddsTheJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New(memory.Config{})
		q, err := durable.QueueConfig{Codec: mirror{}}.NewQueue(store)
		if err != nil {
			t.Fatal(err)
		}
		args := make(chan string, 10)
		job := tickKind.With("argument").In(30 * time.Second).Priority(7).Tags("nightly").Owner("me")
		e, err := durable.EngineConfig{Schedules: []durable.Schedule{durable.NewSchedule("s", durable.Interval(time.Hour), job)}}.NewEngine(q,
			tickKind.Run(func(_ context.Context, arg string) error { args <- arg; return nil }))
		if err != nil {
			t.Fatal(err)
		}
		if err := e.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		pass(time.Hour + 29*time.Second)
		if len(args) != 0 {
			t.Error("the task ran before its delay was over")
		}
		id := info(t, q, "s").LastTask
		task, err := q.Get(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if task.Priority != 7 || !slices.Equal(task.Tags, []string{"nightly"}) || task.Meta.Owner != "me" || task.Meta.Tick != at(t, "2000-01-01 01:00").Unix() {
			t.Errorf("the task is %+v", task)
		}
		pass(2 * time.Second)
		if arg := <-args; arg != "argument" {
			t.Errorf("the task ran with %q", arg)
		}
		if err := errors.Join(e.Drain(t.Context()), q.Close(t.Context())); err != nil {
			t.Error(err)
		}
	})
}

func TestOverlaps(t *testing.T) {
	tests := []struct {
		rule      durable.Overlap
		begun     int // within five minutes, of tasks that do not end by themselves
		cancelled int
		refused   bool // to be run now besides
	}{
		{durable.OverlapSkip, 1, 0, true},
		{durable.OverlapAllow, 5, 0, false},
		{durable.OverlapReplace, 5, 4, false},
	}
	for _, tt := range tests {
		t.Run(string(tt.rule), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var mu sync.Mutex
				begun, cancelled := 0, 0
				run := func(ctx context.Context, _ string) error {
					mu.Lock()
					begun++
					mu.Unlock()
					<-ctx.Done()
					if errors.Is(context.Cause(ctx), durable.ErrCancelled) {
						mu.Lock()
						cancelled++
						mu.Unlock()
					}
					return ctx.Err()
				}
				q, _ := process(t, memory.New(memory.Config{}), run, every("s", "* * * * *", durable.WithOverlap(tt.rule)))
				pass(5*time.Minute + 30*time.Second)
				mu.Lock()
				if begun != tt.begun || cancelled != tt.cancelled {
					t.Errorf("%d tasks begun, %d cancelled; not %d and %d", begun, cancelled, tt.begun, tt.cancelled)
				}
				mu.Unlock()
				if next := info(t, q, "s").Next; !next.Equal(at(t, "2000-01-01 00:06")) {
					t.Errorf("the next tick is %v", next)
				}
				_, err := q.RunSchedule(t.Context(), "s")
				if refused := errors.Is(err, durable.ErrState); refused != tt.refused || !refused && err != nil {
					t.Errorf("run now: %v", err)
				}
			})
		})
	}
}

func TestJitter(t *testing.T) {
	// delays returns how long after its tick each task of a schedule may run.
	delays := func(t *testing.T, name string) (delays []time.Duration) {
		synctest.Test(t, func(t *testing.T) {
			var r ran
			q, _ := process(t, memory.New(memory.Config{}), r.run, every(name, "* * * * *", durable.WithJitter(10*time.Minute), durable.WithOverlap(durable.OverlapAllow)))
			pass(40*time.Minute + time.Second)
			tasks, err := q.List(t.Context(), durable.Filter{}, durable.Page{})
			if err != nil {
				t.Fatal(err)
			}
			for _, task := range tasks {
				delays = append(delays, task.RunAt.Sub(time.Unix(task.Meta.Tick, 0)).Round(time.Second))
			}
			id, err := q.RunSchedule(t.Context(), name)
			if err != nil {
				t.Fatal(err)
			}
			if task, err := q.Get(t.Context(), id); err != nil || task.RunAt.After(time.Now()) {
				t.Errorf("what is run now is put off: %+v, %v", task, err)
			}
		})
		return delays
	}
	one, again, other := delays(t, "one"), delays(t, "one"), delays(t, "other")
	if len(one) != 40 || !slices.Equal(one, again) {
		t.Errorf("the same ticks are put off by\n%v and\n%v", one, again)
	}
	if slices.Equal(one, other) {
		t.Errorf("two schedules are put off by the same: %v", one)
	}
	if first, last := slices.Min(one), slices.Max(one); first < 0 || last > 10*time.Minute || first > 2*time.Minute || last < 8*time.Minute {
		t.Errorf("put off by %v to %v; it should be anything up to 10 minutes", first, last)
	}
}

func TestClockJumps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New(memory.Config{})
		var r ran
		q, _ := process(t, store, r.run, every("s", "*/10 * * * *"))
		pass(11 * time.Minute) // 00:11
		equalTimes(t, r.take(), "2000-01-01 00:10")
		store.Advance(2 * time.Hour) // 02:11
		pass(2 * time.Second)
		equalTimes(t, r.take(), "2000-01-01 02:10")

		// An hour back: its ticks have been.
		store.Advance(-time.Hour) // 01:11
		pass(time.Hour)           // 02:11
		equalTimes(t, r.take())
		pass(10 * time.Minute)
		equalTimes(t, r.take(), "2000-01-01 02:20")

		// Years ahead for a moment: it does not wait until then.
		store.Advance(10 * 365 * 24 * time.Hour)
		pass(2 * time.Second)
		if got := r.take(); len(got) != 1 {
			t.Errorf("ten years ahead: %v", got)
		}
		store.Advance(-10 * 365 * 24 * time.Hour)
		pass(9 * time.Minute)
		equalTimes(t, r.take(), "2000-01-01 02:30")
		if next := info(t, q, "s").Next; !next.Equal(at(t, "2000-01-01 02:40")) {
			t.Errorf("the next tick is %v", next)
		}
	})
}

// A task that is replaced hears of it at once, not at the next beat.
func TestAReplacedTaskEndsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var cancelled atomic.Int64
		process(t, &faults{Store: memory.New(memory.Config{}), deaf: true}, func(ctx context.Context, _ string) error {
			<-ctx.Done()
			if errors.Is(context.Cause(ctx), durable.ErrCancelled) {
				cancelled.Add(1)
			}
			return ctx.Err()
		}, every("s", "5 * * * * *", durable.WithOverlap(durable.OverlapReplace)))
		pass(time.Minute + 6*time.Second) // beats are at full tens of seconds
		if cancelled.Load() != 1 {
			t.Errorf("%d tasks cancelled a second after the second tick", cancelled.Load())
		}
	})
}
