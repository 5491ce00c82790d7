package background_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wake-go/wake/background"
)

// nap sleeps in a bubble's time and notes that it has.
func nap(log *ledger, name string, d time.Duration) background.Task {
	return background.Task{Name: name, Run: func(context.Context) error {
		time.Sleep(d)
		log.add(name)
		return nil
	}}
}

func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

func TestDrainWithNothingToDo(t *testing.T) {
	r := newRunner(t, background.Config{})
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.Drain(over); err != nil {
		t.Errorf("got %v", err)
	}
	if err := r.Drain(t.Context()); err != background.ErrClosed {
		t.Errorf("the second: %v", err)
	}
}

func TestDrainWaitsForEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &ledger{}
		r := newRunner(t, background.Config{Lanes: map[string]background.Lane{background.DefaultLane: {Running: 1}}})
		answer(r, func(w http.ResponseWriter, req *http.Request) {
			tasks := background.From(req.Context())
			tasks.AddTask(nap(log, "running", time.Hour))
			tasks.Group(nap(log, "member", time.Hour), nap(log, "member", time.Hour))
			tasks.AddTask(background.Task{Name: "adds", Run: func(ctx context.Context) error {
				background.From(ctx).AddTask(nap(log, "added", time.Hour))
				if err := r.Add(ctx, nap(log, "added outside", time.Hour)); err != nil {
					t.Error(err)
				}
				return nil
			}})
			tasks.OnEnd(func() { log.add("ended") })
		})
		answer(r, func(w http.ResponseWriter, req *http.Request) {
			background.From(req.Context()).AddTask(nap(log, "waiting", time.Hour))
		})
		time.Sleep(time.Minute)
		if err := r.Drain(t.Context()); err != nil {
			t.Error(err)
		}
		if n := len(log.all()); n != 7 {
			t.Errorf("the drain ended after %q", log.all())
		}
	})
}

func TestWhatComesAfterADrainIsRefused(t *testing.T) {
	seen := &events{}
	r := newRunner(t, background.Config{OnEvent: seen.add})
	never := background.Task{Name: "never", Run: func(context.Context) error { t.Error("ran"); return nil }}
	serve(t, r, func(w http.ResponseWriter, req *http.Request) {
		tasks := background.From(req.Context())
		tasks.Hold()
		tasks.AddTask(never)
		if err := tasks.Commit(); err != nil {
			t.Error(err)
		}
		if err := r.Drain(t.Context()); err != nil { // which does not wait for requests
			t.Error(err)
		}
		if err := tasks.TryAdd(never); err != background.ErrClosed {
			t.Errorf("TryAdd: %v", err)
		}
		if err := tasks.Commit(); err != background.ErrClosed {
			t.Errorf("Commit: %v", err)
		}
	})
	if err := r.Add(t.Context(), never); err != background.ErrClosed {
		t.Errorf("Add: %v", err)
	}
	if d := of[background.TaskDropped](seen); len(d) != 1 || d[0].Err != background.ErrClosed || d[0].RequestID == "" {
		t.Errorf("dropped %+v", d)
	}
	serve(t, r, func(w http.ResponseWriter, req *http.Request) {
		background.From(req.Context()).AddTask(never)
		if err := context.Cause(req.Context()); err != background.ErrClosed {
			t.Errorf("the operation goes on: %v", err)
		}
	})
	if e := of[background.TaskRefused](seen); len(e) != 1 || e[0].Err != background.ErrClosed {
		t.Errorf("refused %+v", e)
	}
}

func stuckForGood(leave <-chan struct{}) { <-leave }

func TestADrainDeadlineNamesWhatItLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		seen := &events{}
		r := newRunnerUnchecked(t, background.Config{OnEvent: seen.add, Grace: 3 * time.Second, RequestID: func(*http.Request) string { return "r1" },
			Lanes: map[string]background.Lane{background.DefaultLane: {Running: 2}}})
		leave, ended := make(chan struct{}), make(chan struct{})
		never := func(context.Context) error { t.Error("ran"); return nil }
		started := time.Now()
		answer(r, func(w http.ResponseWriter, req *http.Request) {
			tasks := background.From(req.Context())
			tasks.Add("stuck", func(context.Context) error { stuckForGood(leave); return nil })
			tasks.Add("behind", never)
			tasks.Group(background.Task{Name: "in a group", Run: never})
			tasks.OnEnd(func() { close(ended) })
		})
		answer(r, func(w http.ResponseWriter, req *http.Request) {
			background.From(req.Context()).Add("obeys", func(ctx context.Context) error {
				<-ctx.Done()
				if time.Since(started) != time.Minute {
					t.Errorf("cancelled after %v", time.Since(started))
				}
				time.Sleep(2 * time.Second)
				return context.Cause(ctx)
			})
			background.From(req.Context()).Add("behind obeys", never)
		})
		r.Add(t.Context(), background.Task{Name: "waiting", Run: never})
		err := r.Drain(within(t, time.Minute))
		if took := time.Since(started); took != time.Minute+3*time.Second {
			t.Errorf("the drain took %v", took)
		}
		checkAbandoned(t, err)
		if n := len(of[background.TaskAbandoned](seen)); n != 6 {
			t.Errorf("%d events", n)
		}
		close(leave)
		<-ended
		synctest.Wait()
		if n := len(seen.all); n != 6 {
			t.Errorf("the task that came back sent an event: %+v", seen.all)
		}
		checkSettled(t, r)
	})
}

func checkAbandoned(t *testing.T, err error) {
	t.Helper()
	var abandoned *background.AbandonedError
	if !errors.As(err, &abandoned) || !errors.Is(err, background.ErrDrainDeadline) {
		t.Fatalf("got %v", err)
	}
	got := map[string]background.AbandonedTask{}
	for _, task := range abandoned.Tasks {
		got[task.Name] = task
		if wantID := task.Name != "waiting"; (task.RequestID == "r1") != wantID || task.Age < time.Minute || task.Lane == "" {
			t.Errorf("got %+v", task)
		}
	}
	if len(got) != 6 || len(abandoned.Tasks) != 6 {
		t.Errorf("got %v", abandoned)
	}
	for _, name := range []string{"behind", "in a group", "behind obeys", "waiting"} {
		if got[name].Started {
			t.Errorf("%s has not started", name)
		}
	}
	if s := got["stuck"]; !s.Started || s.Err != nil || !strings.Contains(s.Stack, "stuckForGood") {
		t.Errorf("got %+v", s)
	}
	if s := got["obeys"]; !s.Started || s.Err != background.ErrDrainDeadline || s.Stack != "" {
		t.Errorf("got %+v", s)
	}
	for _, want := range []string{`6 tasks abandoned (background: the drain ran out of time)`, `"stuck" (request r1, 1m3s old, still running: it ignores its context)`, `"waiting" (1m2s old, not started)`, `cut short: background: the drain ran out`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in: %v", want, err)
		}
	}
}

// With a stuck task in each of two lanes, lists and groups that would go on in
// the other lane end when the tasks come back, whatever comes first.
func TestStuckTasksMayComeBackAfterTheDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRunnerUnchecked(t, background.Config{Lanes: map[string]background.Lane{"a": {Running: 1}, "b": {Running: 1}}})
		leave, log := make(chan struct{}), &ledger{}
		for _, lanes := range [][2]string{{"a", "b"}, {"b", "a"}} {
			answer(r, func(w http.ResponseWriter, req *http.Request) {
				tasks := background.From(req.Context())
				tasks.OnEnd(func() { log.add("ended") })
				stuck := func(ctx context.Context) error {
					<-leave
					if err := background.From(ctx).TryAdd(background.Task{Name: "more", Run: nothing}); err != background.ErrClosed {
						t.Errorf("adding more: %v", err)
					}
					return errors.New("late")
				}
				tasks.Group(background.Task{Name: "stuck", Lane: lanes[0], Run: stuck}, background.Task{Name: "member", Lane: lanes[1], Run: stuck})
				tasks.AddTask(background.Task{Name: "next", Lane: lanes[1], Run: nothing})
			})
		}
		synctest.Wait()
		var abandoned *background.AbandonedError
		if err := r.Drain(within(t, time.Second)); !errors.As(err, &abandoned) || len(abandoned.Tasks) != 6 {
			t.Fatalf("got %v", err)
		}
		if err := r.Add(t.Context(), background.Task{Name: "late", Run: nothing}); err != background.ErrClosed {
			t.Errorf("got %v", err)
		}
		close(leave)
		synctest.Wait()
		log.want(t, "ended", "ended")
		checkSettled(t, r)
	})
}

func TestADrainCutByTheCallerSaysWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRunnerUnchecked(t, background.Config{})
		cause := errors.New("second signal")
		ctx, cancel := context.WithCancelCause(t.Context())
		r.Add(t.Context(), background.Task{Name: "x", Run: func(ctx context.Context) error {
			cancel(cause)
			<-ctx.Done()
			return context.Cause(ctx)
		}})
		if err := r.Drain(ctx); !errors.Is(err, cause) {
			t.Errorf("got %v", err)
		}
	})
}

func TestATaskThatSucceedsDuringTheGraceIsNotAbandoned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRunner(t, background.Config{})
		r.Add(t.Context(), background.Task{Name: "x", Run: func(ctx context.Context) error { <-ctx.Done(); time.Sleep(time.Second); return nil }})
		if err := r.Drain(within(t, time.Second)); err != nil {
			t.Error(err)
		}
		if s := r.Stats(); s.Finished != 1 {
			t.Errorf("got %+v", s)
		}
	})
}

func TestDrainWaitsForResponsesOnTheirWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &ledger{}
		r := newRunner(t, background.Config{})
		srv := &http.Server{Handler: r.Middleware(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			background.From(req.Context()).AddTask(log.task("task"))
			io.WriteString(w, "hello")
		}))}
		r.Configure(srv)
		l := newPipeListener()
		stop := serveOn(t, l, srv)
		defer stop()
		c := l.dial()
		defer c.Close()
		io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		synctest.Wait() // the handler has returned; the client has read nothing
		log.want(t)
		time.AfterFunc(time.Hour, func() {
			resp, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				t.Error(err)
				return
			}
			io.Copy(io.Discard, resp.Body)
		})
		if err := r.Drain(t.Context()); err != nil {
			t.Error(err)
		}
		log.want(t, "task")
	})
}

func TestAClientThatNeverReadsDoesNotHoldUpADrainForEver(t *testing.T) {
	for name, request := range map[string]string{"HTTP/1": "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/2": ""} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ended := make(chan struct{})
				r := newRunnerUnchecked(t, background.Config{})
				h := r.Middleware(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
					background.From(req.Context()).Add("waits", func(context.Context) error { t.Error("ran"); return nil })
					background.From(req.Context()).OnEnd(func() { close(ended) })
					io.WriteString(w, "hello")
				}))
				if request == "" {
					c, stop := newH2(t, r, h)
					defer stop()
					c.get(1, "/")
				} else {
					srv := &http.Server{Handler: h}
					r.Configure(srv)
					l := newPipeListener()
					stop := serveOn(t, l, srv)
					defer stop()
					c := l.dial()
					defer c.Close()
					io.WriteString(c, request)
				}
				synctest.Wait()
				started := time.Now()
				var abandoned *background.AbandonedError
				if err := r.Drain(within(t, time.Second)); !errors.As(err, &abandoned) || len(abandoned.Tasks) != 1 || abandoned.Tasks[0].Started {
					t.Errorf("got %v", err)
				}
				if took := time.Since(started); took > time.Second {
					t.Errorf("the drain needed its grace for nothing: %v", took)
				}
				<-ended
				checkSettled(t, r)
			})
		})
	}
}

// Shutdown may return before the server's last hook has run, so a drain must
// count what has been promised and not what the hooks have told.
func TestDrainAfterShutdownLosesNothing(t *testing.T) {
	for range 200 {
		log := &ledger{}
		r := newRunnerUnchecked(t, background.Config{})
		srv := httptest.NewUnstartedServer(r.Middleware(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			background.From(req.Context()).AddTask(log.task("task"))
		})))
		r.Configure(srv.Config)
		srv.Start()
		resp, err := srv.Client().Get(srv.URL)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if err := srv.Config.Shutdown(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := r.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		if len(log.all()) != 1 {
			t.Fatalf("the drain lost a task: %+v", r.Stats())
		}
		srv.Close()
		checkSettled(t, r)
	}
}

// Work that arrives while a drain ends is either accepted and waited for, or
// refused.
func TestWhatArrivesWhileADrainEndsIsRunOrRefused(t *testing.T) {
	for range 200 {
		r := newRunner(t, background.Config{Lanes: ordinary(1, 10)})
		accepted := make(chan int)
		go func() {
			n := 0
			for r.Add(context.Background(), background.Task{Name: "x", Run: nothing}) == nil {
				n++
			}
			accepted <- n
		}()
		var draining sync.WaitGroup
		var closed atomic.Int64
		for range 2 {
			draining.Go(func() {
				if r.Drain(context.Background()) == background.ErrClosed {
					closed.Add(1)
				}
			})
		}
		draining.Wait()
		n := <-accepted
		if s := r.Stats(); s.Finished != uint64(n) || s.Added != uint64(n) || closed.Load() != 1 {
			t.Fatalf("%d accepted, %+v, %d drains refused", n, s, closed.Load())
		}
	}
}

func TestALongReportIsCutAtTwentyTasks(t *testing.T) {
	err := &background.AbandonedError{Cause: background.ErrDrainDeadline, Tasks: make([]background.AbandonedTask, 25)}
	if s := err.Error(); !strings.HasSuffix(s, "; and 5 more") || strings.Count(s, "not started") != 20 {
		t.Errorf("got %q", s)
	}
}
