package background_test

import (
	"context"
	"errors"
	"net/http"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wake-go/wake/background"
)

// ordinary is a cpu lane without threads, which a bubble of synctest can hold.
func ordinary(running, waiting int) map[string]background.Lane {
	return map[string]background.Lane{background.CPULane: {Running: running, Waiting: waiting}}
}

func TestOffloadReturnsWhatTheFunctionReturns(t *testing.T) {
	r := newRunner(t, background.Config{})
	cause := errors.New("no")
	if n, err := background.Offload(t.Context(), r, func(context.Context) (int, error) { return 42, nil }); n != 42 || err != nil {
		t.Errorf("got %d, %v", n, err)
	}
	if n, err := background.Offload(t.Context(), r, func(context.Context) (int, error) { return 1, cause }); n != 1 || err != cause {
		t.Errorf("got %d, %v", n, err)
	}
	_, err := background.Offload(t.Context(), r, func(context.Context) (int, error) { panic(cause) })
	if !errors.Is(err, cause) || !isPanic(err, "TestOffloadReturns") {
		t.Errorf("got %v", err)
	}
	if _, err := background.Offload(t.Context(), r, func(context.Context) (int, error) { runtime.Goexit(); return 0, nil }); err != background.ErrGoexit {
		t.Errorf("got %v", err)
	}
	if s := r.Stats(); s.Added != 0 || s.Failed != 0 {
		t.Errorf("an offloaded function is no task: %+v", s)
	}
}

func TestOffloadKeepsTheRequestsContext(t *testing.T) {
	r := newRunner(t, background.Config{})
	log := &ledger{}
	serve(t, r, func(w http.ResponseWriter, req *http.Request) {
		ctx := context.WithValue(req.Context(), key("a"), "value")
		got, err := background.Offload(ctx, r, func(ctx context.Context) (string, error) {
			background.From(ctx).AddTask(log.task("added"))
			return background.RequestID(ctx) + ctx.Value(key("a")).(string), nil
		})
		if err != nil || got != background.RequestID(ctx)+"value" {
			t.Errorf("got %q, %v", got, err)
		}
	})
	log.want(t, "added")
}

func TestOffloadDoesNotStartWhatNobodyWaitsFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRunner(t, background.Config{Lanes: ordinary(1, 1)})
		leave, cause := make(chan struct{}), errors.New("gone")
		go background.Offload(t.Context(), r, func(context.Context) (int, error) { <-leave; return 0, nil })
		synctest.Wait()
		never := func(context.Context) (int, error) { t.Error("ran"); return 0, nil }
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(cause) })
		for range 2 { // waiting, then cancelled already
			if _, err := background.Offload(ctx, r, never); err != cause {
				t.Errorf("got %v", err)
			}
			if l := laneStats(r, background.CPULane); l.Waiting != 0 || l.Running != 1 {
				t.Errorf("the place is not free: %+v", l)
			}
		}
		close(leave)
	})
}

func TestOffloadReturnsAtOnceWhenItsContextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRunner(t, background.Config{Lanes: ordinary(1, 1)})
		cause, seen := errors.New("gone"), make(chan error, 1)
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(cause) })
		started := time.Now()
		n, err := background.Offload(ctx, r, func(ctx context.Context) (int, error) {
			<-ctx.Done()
			seen <- context.Cause(ctx)
			time.Sleep(time.Hour)
			return 1, nil
		})
		if n != 0 || err != cause || time.Since(started) != time.Second {
			t.Errorf("got %d, %v after %v", n, err, time.Since(started))
		}
		if err := <-seen; err != cause {
			t.Errorf("the function saw %v", err)
		}
		if err := r.Drain(t.Context()); err != nil || time.Since(started) != time.Hour+time.Second {
			t.Errorf("the drain ended after %v: %v", time.Since(started), err)
		}
	})
}

func TestOffloadToAFullLaneIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRunner(t, background.Config{Lanes: ordinary(1, 1)})
		leave := make(chan struct{})
		for range 2 {
			go background.Offload(t.Context(), r, func(context.Context) (int, error) { <-leave; return 0, nil })
		}
		synctest.Wait()
		_, err := background.Offload(t.Context(), r, func(context.Context) (int, error) { t.Error("ran"); return 0, nil })
		var full *background.FullError
		if !errors.As(err, &full) || full.Lane != background.CPULane || full.Capacity != 2 {
			t.Errorf("got %v", err)
		}
		close(leave)
	})
}

func TestOffloadInTheLaneRunsInPlace(t *testing.T) {
	r := newRunner(t, background.Config{})
	inner := func(ctx context.Context) (string, error) {
		return background.Offload(ctx, r, func(context.Context) (string, error) { return "in place", nil })
	}
	all := 4 * runtime.NumCPU() // more than there are workers
	var waiting sync.WaitGroup
	for range all {
		waiting.Go(func() {
			if s, err := background.Offload(t.Context(), r, inner); s != "in place" || err != nil {
				t.Errorf("in an offloaded function: %q, %v", s, err)
			}
		})
		waiting.Go(func() {
			serve(t, r, func(w http.ResponseWriter, req *http.Request) {
				background.From(req.Context()).AddTask(background.Task{Name: "x", Lane: background.CPULane, Run: func(ctx context.Context) error {
					if s, err := inner(ctx); s != "in place" || err != nil {
						t.Errorf("in a task: %q, %v", s, err)
					}
					_, err := background.Offload(ctx, r, func(context.Context) (int, error) { panic("no") })
					if !isPanic(err, "") {
						t.Errorf("in a task: %v", err)
					}
					return nil
				}})
			})
		})
	}
	waiting.Wait()
}

func TestOffloadAfterADrainIsRefused(t *testing.T) {
	r := newRunner(t, background.Config{})
	if err := r.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := background.Offload(t.Context(), r, func(context.Context) (int, error) { t.Error("ran"); return 0, nil }); err != background.ErrClosed {
		t.Errorf("got %v", err)
	}
}

func TestADrainDeadlineCancelsOffloadedFunctions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		seen := &events{}
		r := newRunnerUnchecked(t, background.Config{Lanes: ordinary(1, 1), OnEvent: seen.add})
		results := make(chan error, 2)
		call := func(f func(context.Context) (int, error)) {
			_, err := background.Offload(t.Context(), r, f)
			results <- err
		}
		go call(func(ctx context.Context) (int, error) { <-ctx.Done(); return 0, context.Cause(ctx) })
		synctest.Wait()
		go call(func(context.Context) (int, error) { t.Error("ran"); return 0, nil })
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var abandoned *background.AbandonedError
		if err := r.Drain(ctx); !errors.As(err, &abandoned) || len(abandoned.Tasks) != 2 {
			t.Fatalf("got %v", err)
		}
		if cut, waited := abandoned.Tasks[0], abandoned.Tasks[1]; cut.Name != "offload" || !cut.Started || cut.Err != background.ErrDrainDeadline || waited.Started {
			t.Errorf("got %v", abandoned)
		}
		for range 2 {
			if err := <-results; err != background.ErrDrainDeadline {
				t.Errorf("the caller got %v", err)
			}
		}
		if n := len(of[background.TaskAbandoned](seen)); n != 2 {
			t.Errorf("%d events", n)
		}
		checkSettled(t, r)
	})
}
