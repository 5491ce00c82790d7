package background_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wake-go/wake/background"
)

var errGone = errors.New("the other place is gone")

// movable is a task that can be handed off; its Handoff is its name.
func (l *ledger) movable(name string) background.Task {
	t := l.task(name)
	t.Handoff = name
	return t
}

// handoffs keeps what is withdrawn.
type handoffs []background.Withdrawn

func (h *handoffs) take(tasks []background.Withdrawn) error {
	*h = append(*h, tasks...)
	return nil
}

func (h *handoffs) names() (names []any) {
	for _, w := range *h {
		names = append(names, w.Handoff)
	}
	return names
}

// one lane with one worker, that the test keeps busy.
func narrow(waiting int) background.Config {
	return background.Config{Lanes: map[string]background.Lane{background.DefaultLane: {Running: 1, Waiting: waiting}}}
}

// occupy keeps a worker of the default lane busy.
func occupy(t *testing.T, r *background.Runner) (leave func()) {
	t.Helper()
	started, release := make(chan struct{}), make(chan struct{})
	err := r.Add(t.Context(), background.Task{Name: "occupier", Handoff: "never: it has started", Run: func(context.Context) error {
		close(started)
		<-release
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	<-started
	return func() { close(release) }
}

type valueKey struct{}

func TestWithdrawTakesWhatHasNotStartedInItsOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &ledger{}
		r := newRunner(t, narrow(100))
		leave := occupy(t, r)
		req := httptest.NewRequest("GET", "/", nil)
		req.Header.Set("X-Request-Id", "r-1")
		ended := 0
		r.Middleware(http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
			ctx := context.WithValue(req.Context(), valueKey{}, "value")
			tasks := background.From(ctx)
			tasks.OnEnd(func() { ended++ })
			tasks.AddTask(log.movable("a"), log.task("closure 1"), log.movable("b"))
			tasks.Group(log.movable("c"), log.task("closure 2"), log.movable("d"))
			tasks.Group(log.movable("e"))
			tasks.Always(log.movable("f"))
		})).ServeHTTP(httptest.NewRecorder(), req)
		answer(r, func(_ http.ResponseWriter, req *http.Request) {
			background.From(req.Context()).AddTask(log.movable("g"))
		})

		var h handoffs
		if err := r.Withdraw(h.take); err != nil {
			t.Fatal(err)
		}
		if got := h.names(); !slices.Equal(got, []any{"a", "b", "c", "d", "e", "f", "g"}) {
			t.Errorf("withdrawn: %q", got)
		}
		if w := h[0]; w.Name != "a" || w.RequestID != "r-1" || w.Lane != "default" || w.Values.Value(valueKey{}) != "value" {
			t.Errorf("withdrawn: %+v", w)
		}
		if got := r.Stats().Lanes[1]; got.Waiting != 2 || got.Name != "default" {
			t.Errorf("places: %+v, want those of the two closures", got)
		}
		keep := func(tasks []background.Withdrawn) error {
			for i := range tasks {
				tasks[i].Stay = tasks[i].Name == "h"
			}
			return nil
		}
		if err := r.AddAll(t.Context(), log.movable("h"), log.movable("i")); err != nil || r.Withdraw(keep) != nil {
			t.Error(err)
		}
		if err := r.Withdraw(h.take); err != nil || h[len(h)-1].Name != "h" || len(h) != 8 {
			t.Errorf("withdrawn: %q, %v", h.names(), err)
		}
		if err := r.Withdraw(func([]background.Withdrawn) error { t.Error("called with nothing to take"); return errGone }); err != nil {
			t.Error(err)
		}
		leave()
		synctest.Wait()
		log.want(t, "closure 1", "closure 2")
		if s := r.Stats(); ended != 1 || s.Withdrawn != 9 {
			t.Errorf("OnEnd was called %d times, %+v", ended, s)
		}
	})
}

func TestWithdrawTakesMembersOfAGroupThatHasBegun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &ledger{}
		r := newRunner(t, narrow(100))
		started, release := make(chan struct{}), make(chan struct{})
		answer(r, func(_ http.ResponseWriter, req *http.Request) {
			tasks := background.From(req.Context())
			tasks.Group(background.Task{Name: "first", Handoff: 1, Run: func(context.Context) error {
				close(started)
				<-release
				return nil
			}}, log.movable("second"), log.task("third"), log.movable("fourth"))
			tasks.AddTask(log.task("after"))
		})
		<-started
		var h handoffs
		if err := r.Withdraw(h.take); err != nil {
			t.Fatal(err)
		}
		if got := h.names(); !slices.Equal(got, []any{"second", "fourth"}) {
			t.Errorf("withdrawn: %q", got)
		}
		synctest.Wait()
		log.want(t)
		close(release)
		synctest.Wait()
		log.want(t, "third", "after")
	})
}

func TestWhatCannotGoElsewhereRunsHereAfterAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &ledger{}
		r := newRunner(t, narrow(100))
		leave := occupy(t, r)
		answer(r, func(_ http.ResponseWriter, req *http.Request) {
			background.From(req.Context()).AddTask(log.movable("a"), log.task("closure"), log.movable("b"))
			background.From(req.Context()).Group(log.movable("c"))
		})
		drained := make(chan error, 1)
		err := r.Withdraw(func([]background.Withdrawn) error {
			leave()
			go func() { drained <- r.Drain(context.Background()) }()
			synctest.Wait() // the closure has run: the list is at its end
			log.want(t, "closure")
			if len(drained) > 0 {
				t.Error("the drain has not waited for what is being taken")
			}
			return errGone
		})
		if !errors.Is(err, errGone) {
			t.Errorf("Withdraw: %v", err)
		}
		if err := <-drained; err != nil {
			t.Errorf("drain: %v", err)
		}
		log.want(t, "closure", "a", "b", "c")
		if s := r.Stats(); s.Withdrawn != 0 || s.Finished != 5 {
			t.Errorf("%+v", s)
		}
		checkSettled(t, r)
	})
}

func TestAPanicWhileTakingPutsTheTasksBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &ledger{}
		r := newRunner(t, narrow(100))
		leave := occupy(t, r)
		if err := r.Add(t.Context(), log.movable("a")); err != nil {
			t.Fatal(err)
		}
		var p *background.PanicError
		if err := r.Withdraw(func([]background.Withdrawn) error { panic("no") }); !errors.As(err, &p) {
			t.Errorf("Withdraw: %v", err)
		}
		leave()
		synctest.Wait()
		log.want(t, "a")
	})
}

// A drain that runs out of time while the tasks are being taken reports what
// could not be taken.
func TestWhatCannotGoElsewhereWhenTheDrainIsOverIsReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &ledger{}
		r := newRunnerUnchecked(t, narrow(100))
		leave := occupy(t, r)
		if err := r.Add(t.Context(), log.movable("a")); err != nil {
			t.Fatal(err)
		}
		err := r.Withdraw(func([]background.Withdrawn) error {
			err := r.Drain(within(t, time.Second))
			var abandoned *background.AbandonedError
			if !errors.As(err, &abandoned) || len(abandoned.Tasks) != 1 || abandoned.Tasks[0].Handoff != "never: it has started" {
				t.Errorf("drain: %v", err)
			}
			return errGone
		})
		if !errors.Is(err, errGone) {
			t.Errorf("Withdraw: %v", err)
		}
		leave()
		synctest.Wait()
		log.want(t)
		checkSettled(t, r)
	})
}

func TestWithdrawTakesTasksWhoseResponseIsBeingSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &ledger{}
		r := newRunner(t, background.Config{})
		srv := &http.Server{Handler: r.Middleware(http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
			background.From(req.Context()).AddTask(log.movable("a"), log.task("closure"))
		}))}
		r.Configure(srv)
		l := newPipeListener()
		stop := serveOn(t, l, srv)
		defer stop()
		c := l.dial()
		defer c.Close()
		go io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		synctest.Wait() // the response waits for its reader
		var h handoffs
		if err := r.Withdraw(h.take); err != nil || len(h) != 1 {
			t.Errorf("withdrawn: %q, %v", h.names(), err)
		}
		log.want(t)
		if _, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		log.want(t, "closure")
	})
}

// Neither the tasks of a request that is being handled are taken, nor those of
// an inner application whose outer request may yet fail.
func TestWithdrawLeavesWhatIsNotDecided(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &ledger{}
		inner, outer := newRunner(t, background.Config{}), newRunner(t, background.Config{})
		look := func() {
			err := inner.Withdraw(func(tasks []background.Withdrawn) error {
				t.Errorf("withdrawn: %+v", tasks)
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		}
		mounted := inner.Middleware(http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
			background.From(req.Context()).AddTask(log.movable("a"))
			look()
		}))
		answer(outer, func(w http.ResponseWriter, req *http.Request) {
			mounted.ServeHTTP(w, req)
			look()
			background.From(req.Context()).Discard()
		})
		synctest.Wait()
		log.want(t)
	})
}

func TestAbandonedTasksCanBeHandedOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRunnerUnchecked(t, narrow(100))
		forever := make(chan struct{})
		defer close(forever)
		for _, task := range []background.Task{
			{Name: "polite", Handoff: 1, Run: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }},
			{Name: "waits", Handoff: 2, Run: nothing},
		} {
			if err := r.Add(context.WithValue(t.Context(), valueKey{}, task.Name), task); err != nil {
				t.Fatal(err)
			}
		}
		var abandoned *background.AbandonedError
		if err := r.Drain(within(t, time.Second)); !errors.As(err, &abandoned) || len(abandoned.Tasks) != 2 {
			t.Fatalf("drain: %v", err)
		}
		for i, task := range abandoned.Tasks {
			if task.Handoff != i+1 || task.Started != (i == 0) || task.Values.Value(valueKey{}) != task.Name {
				t.Errorf("%+v", task)
			}
		}
	})
}

func TestTryGroupTellsOfAFullLane(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &ledger{}
		r := newRunner(t, narrow(2))
		leave := occupy(t, r)
		answer(r, func(_ http.ResponseWriter, req *http.Request) {
			tasks := background.From(req.Context())
			if err := tasks.TryGroup(); err != nil {
				t.Error(err)
			}
			if err := tasks.TryGroup(log.task("a"), log.task("b"), log.task("c")); !errors.Is(err, background.ErrFull) {
				t.Errorf("three in two places: %v", err)
			}
			if err := tasks.TryGroup(log.task("d"), log.task("e")); err != nil || req.Context().Err() != nil {
				t.Errorf("two in two places: %v, %v", err, req.Context().Err())
			}
		})
		leave()
		synctest.Wait()
		log.want(t, "d", "e")
	})
}
