package background_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wake-go/wake/background"
)

func nothing(context.Context) error { return nil }

func TestTasksRunOneAfterAnotherInTheirOrder(t *testing.T) {
	log := &ledger{}
	var want []string
	serve(t, newRunner(t, background.Config{}), func(w http.ResponseWriter, r *http.Request) {
		for i := range 50 {
			name := fmt.Sprint(i)
			lane := []string{"", background.CPULane}[i%2]
			want = append(want, name+" starts", name+" ends")
			background.From(r.Context()).AddTask(background.Task{Name: name, Lane: lane, Run: func(context.Context) error {
				log.add(name + " starts")
				runtime.Gosched()
				log.add(name + " ends")
				return nil
			}})
		}
	})
	log.want(t, want...)
}

func TestATaskThatEndsBadlyDoesNotStopTheNext(t *testing.T) {
	cause := errors.New("no such mailbox")
	for name, bad := range map[string]struct {
		run  func(context.Context) error
		want func(error) bool
	}{
		"error":  {func(context.Context) error { return cause }, func(err error) bool { return err == cause }},
		"panic":  {func(context.Context) error { panic(cause) }, func(err error) bool { return errors.Is(err, cause) && isPanic(err, "TestATaskThatEndsBadly") }},
		"text":   {func(context.Context) error { panic("no") }, func(err error) bool { return err.Error() == "panic: no" && isPanic(err, "TestATaskThatEndsBadly") }},
		"abort":  {func(context.Context) error { panic(http.ErrAbortHandler) }, func(err error) bool { return errors.Is(err, http.ErrAbortHandler) }},
		"goexit": {func(context.Context) error { runtime.Goexit(); return nil }, func(err error) bool { return err == background.ErrGoexit }},
		"nil":    {func(context.Context) error { panic(nil) }, func(err error) bool { return isPanic(err, "") }}, //nolint:govet
	} {
		for _, lane := range []string{background.DefaultLane, background.CPULane} {
			t.Run(name+" "+lane, func(t *testing.T) {
				log, seen := &ledger{}, &events{}
				r := newRunner(t, background.Config{OnEvent: seen.add})
				serve(t, r, func(w http.ResponseWriter, r *http.Request) {
					tasks := background.From(r.Context())
					tasks.AddTask(background.Task{Name: "bad", Lane: lane, Run: bad.run}, log.task("next"))
					tasks.Group(background.Task{Name: "bad too", Lane: lane, Run: bad.run}, log.task("member"))
					tasks.AddTask(log.task("last"))
				})
				log.want(t, "next", "member", "last")
				finished := of[background.TaskFinished](seen)
				if len(finished) != 5 {
					t.Fatalf("got %d events, want 5", len(finished))
				}
				for _, e := range finished {
					if strings.HasPrefix(e.Name, "bad") != (e.Err != nil) || e.Err != nil && !bad.want(e.Err) {
						t.Errorf("%s ended with %v", e.Name, e.Err)
					}
				}
				if s := r.Stats(); s.Failed != 2 || s.Finished != 3 {
					t.Errorf("got %+v", s)
				}
			})
		}
	}
}

func isPanic(err error, function string) bool {
	var p *background.PanicError
	return errors.As(err, &p) && strings.Contains(string(p.Stack), function)
}

func TestRequestsRunBesideEachOther(t *testing.T) {
	r := newRunner(t, background.Config{})
	meet := make(chan struct{})
	var done sync.WaitGroup
	for _, f := range []func(){func() { meet <- struct{}{} }, func() { <-meet }} {
		done.Go(func() {
			serve(t, r, func(w http.ResponseWriter, r *http.Request) {
				background.From(r.Context()).Add("meet", func(context.Context) error { f(); return nil })
			})
		})
	}
	done.Wait()
}

// The queue must not forget a worker that was woken for another list.
func TestAListDoesNotWaitForAnotherThatWokeTheSameWorker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRunner(t, background.Config{})
		r.Add(t.Context(), background.Task{Name: "warm up", Run: nothing})
		synctest.Wait() // one idle worker
		leave := make(chan struct{})
		log := &ledger{}
		for range 2 {
			r.Add(t.Context(), background.Task{Name: "blocks", Run: func(context.Context) error {
				log.add("started")
				<-leave
				return nil
			}})
		}
		synctest.Wait()
		log.want(t, "started", "started")
		close(leave)
	})
}

func TestARunningTaskAddsToTheSameList(t *testing.T) {
	log := &ledger{}
	r := newRunner(t, background.Config{})
	serve(t, r, func(w http.ResponseWriter, req *http.Request) {
		background.From(req.Context()).AddTask(background.Task{Name: "a", Run: func(ctx context.Context) error {
			log.add("a")
			tasks := background.From(ctx)
			tasks.AddTask(log.task("c"))
			tasks.Group(log.task("d"))
			tasks.AddTask(background.Task{Name: "e", Run: func(ctx context.Context) error {
				log.add("e " + background.RequestID(ctx))
				background.From(ctx).AddTask(log.task("f"))
				return nil
			}})
			return nil
		}}, log.task("b"))
		req.Header.Set("X-Request-Id", "r1")
	})
	log.want(t, "a", "b", "c", "d", "e r1", "f")
}

func TestATaskMayAddItselfWithoutEndInTheSameMemory(t *testing.T) {
	const times = 50_000
	r := newRunner(t, background.Config{})
	n, before, after := 0, int64(0), int64(0)
	var again func(ctx context.Context) error
	again = func(ctx context.Context) error {
		switch n++; {
		case n == 100:
			before = heap()
		case n == times:
			after = heap()
			return nil
		case n > times:
			return nil
		}
		background.From(ctx).Add("again", again)
		return nil
	}
	serve(t, r, func(w http.ResponseWriter, r *http.Request) {
		background.From(r.Context()).Add("again", again)
		background.From(r.Context()).Add("again", again) // so that the list is never empty
	})
	if after-before > 1<<20 {
		t.Errorf("the list has grown by %d bytes", after-before)
	}
}

func TestGroupMembersRunBesideEachOtherAndLaterTasksWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &ledger{}
		r := newRunner(t, background.Config{})
		leave := make(chan struct{})
		member := func(name string) background.Task {
			return background.Task{Name: name, Run: func(context.Context) error { log.add("in"); <-leave; log.add("out"); return nil }}
		}
		answer(r, func(w http.ResponseWriter, req *http.Request) {
			tasks := background.From(req.Context())
			tasks.AddTask(log.task("first"))
			tasks.Group(member("1"), member("2"), member("3"))
			tasks.Group()
			tasks.AddTask(log.task("last"))
		})
		synctest.Wait()
		log.want(t, "first", "in", "in", "in")
		close(leave)
		synctest.Wait()
		log.want(t, "first", "in", "in", "in", "out", "out", "out", "last")
	})
}

func TestHoldCommitAndDiscard(t *testing.T) {
	cases := []struct {
		name string
		do   func(*background.Tasks)
		runs bool
	}{
		{"plain", func(*background.Tasks) {}, true},
		{"held", (*background.Tasks).Hold, false},
		{"committed", func(l *background.Tasks) { l.Hold(); l.Commit() }, true},
		{"discarded", (*background.Tasks).Discard, false},
		{"committed and discarded", func(l *background.Tasks) { l.Hold(); l.Commit(); l.Discard() }, false},
		{"panicked", func(l *background.Tasks) { l.Hold(); l.Commit(); panic(http.ErrAbortHandler) }, false},
	}
	for _, late := range []bool{false, true} {
		for _, c := range cases {
			t.Run(fmt.Sprintf("%s, deferred %v", c.name, late), func(t *testing.T) {
				log, seen := &ledger{}, &events{}
				r := newRunner(t, background.Config{OnEvent: seen.add})
				serve(t, r, func(w http.ResponseWriter, req *http.Request) {
					tasks := background.From(req.Context())
					if late {
						tasks.Defer()
					}
					tasks.AddTask(log.task("mail"))
					tasks.Group(log.task("group"))
					tasks.Always(log.task("audit"))
					c.do(tasks)
				})
				if c.runs {
					log.want(t, "mail", "group", "audit")
				} else {
					log.want(t, "audit")
					if s := r.Stats(); s.Dropped != 2 || len(of[background.TaskDropped](seen)) != 2 {
						t.Errorf("got %+v", s)
					}
				}
			})
		}
	}
}

func TestWhatIsAddedAfterTheEndIsRefused(t *testing.T) {
	for _, other := range []bool{false, true} { // whether the request has tasks that run meanwhile
		seen := &events{}
		r := newRunner(t, background.Config{OnEvent: seen.add})
		var tasks *background.Tasks
		var ctx context.Context
		leave := make(chan struct{})
		ended := make(chan struct{})
		r.Middleware(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			ctx = req.Context()
			tasks = background.From(ctx)
			tasks.OnEnd(func() { close(ended) })
			if other {
				tasks.Add("other", func(context.Context) error { <-leave; return nil })
			}
		})).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
		if err := tasks.TryAdd(background.Task{Name: "late", Run: nothing}); err != background.ErrSealed {
			t.Errorf("TryAdd: %v", err)
		}
		tasks.Add("late", func(context.Context) error { t.Error("ran"); return nil })
		background.From(context.WithoutCancel(ctx)).Group(background.Task{Name: "later", Run: nothing}, background.Task{Name: "latest", Run: nothing})
		if err := tasks.Commit(); err != background.ErrSealed {
			t.Errorf("Commit: %v", err)
		}
		close(leave)
		wait(t, ended, "the end")
		var names []string
		for _, e := range of[background.TaskRefused](seen) {
			if names = append(names, e.Name); e.Err != background.ErrSealed || e.RequestID == "" || e.Lane != "default" {
				t.Errorf("got %+v", e)
			}
		}
		if !slices.Equal(names, []string{"late", "later", "latest"}) || r.Stats().Refused != 3 {
			t.Errorf("refused %q, %+v", names, r.Stats())
		}
	}
}

func TestATasksHandleIsRefusedAfterThatTaskHasEnded(t *testing.T) {
	seen := &events{}
	r := newRunner(t, background.Config{OnEvent: seen.add})
	serve(t, r, func(w http.ResponseWriter, req *http.Request) {
		var first *background.Tasks
		background.From(req.Context()).Add("first", func(ctx context.Context) error {
			first = background.From(ctx)
			return nil
		})
		background.From(req.Context()).Add("second", func(ctx context.Context) error {
			if err := first.TryAdd(background.Task{Name: "late", Run: nothing}); err != background.ErrSealed {
				t.Errorf("got %v", err)
			}
			first.Add("late", nothing)
			return nil
		})
	})
	if e := of[background.TaskRefused](seen); len(e) != 1 || e[0].Err != background.ErrSealed || e[0].RequestID == "" {
		t.Errorf("got %+v", e)
	}
}

func TestMistakesPanicWhereTheyAreMade(t *testing.T) {
	r := newRunner(t, background.Config{})
	good := background.Task{Name: "good", Run: nothing}
	for name, task := range map[string]background.Task{
		"needs a name":              {Run: nothing},
		"has no function":           {Name: "x"},
		`"x" asks for lane "other"`: {Name: "x", Run: nothing, Lane: "other"},
	} {
		serve(t, r, func(w http.ResponseWriter, req *http.Request) {
			tasks := background.From(req.Context())
			for _, add := range []func(){
				func() { tasks.AddTask(good, task) }, func() { tasks.TryAdd(good, task) }, func() { tasks.Group(good, task) },
				func() { tasks.Always(good, task) }, func() { r.Add(t.Context(), task) },
			} {
				mustPanic(t, name, add)
			}
		})
	}
	for _, add := range []func(){
		func() { background.From(t.Context()).Add("lost", nothing) },
		func() { background.From(t.Context()).Group(background.Task{Name: "lost", Run: nothing}) },
	} {
		mustPanic(t, `"lost" was added with a context that belongs to no request`, add)
	}
	if err := background.From(t.Context()).TryAdd(good); err != background.ErrSealed {
		t.Errorf("got %v", err)
	}
	background.From(t.Context()).AddTask() // nothing is lost
	if s := r.Stats(); s.Added != 0 {
		t.Errorf("a mistake added %d tasks", s.Added)
	}
}

func mustPanic(t *testing.T, message string, f func()) {
	t.Helper()
	defer func() {
		if v := recover(); v == nil || !strings.Contains(fmt.Sprint(v), message) {
			t.Errorf("panicked with %v, want %q", v, message)
		}
	}()
	f()
}

func TestOutsideOfRequestsTheListDoesNothing(t *testing.T) {
	tasks := background.From(t.Context())
	tasks.Hold()
	tasks.Discard()
	tasks.Defer()
	called := false
	tasks.OnEnd(func() { called = true })
	if err := tasks.Commit(); err != background.ErrSealed || tasks.Err() != nil || !called || background.RequestID(t.Context()) != "" {
		t.Errorf("got %v, %v, %v", err, tasks.Err(), called)
	}
}

func TestTheMiddlewareTwiceIsOnce(t *testing.T) {
	log := &ledger{}
	r := newRunner(t, background.Config{})
	serve(t, r, func(w http.ResponseWriter, req *http.Request) {
		r.Middleware(http.HandlerFunc(func(w http.ResponseWriter, inner *http.Request) {
			if inner.Context() != req.Context() {
				t.Error("the second middleware made a context")
			}
			background.From(inner.Context()).AddTask(log.task("task"))
		})).ServeHTTP(w, req)
		log.add("returned")
	})
	log.want(t, "returned", "task")
}

func TestAnInnerApplicationsTasksWaitForTheOuterResponse(t *testing.T) {
	for name, c := range map[string]struct {
		fail func(*http.Request)
		want []string
	}{
		"succeeds": {func(*http.Request) {}, []string{"inner ended", "outer returned", "inner", "inner always"}},
		"panics":   {func(*http.Request) { panic(http.ErrAbortHandler) }, []string{"inner ended", "outer returned"}},
		"discards": {func(r *http.Request) { background.From(r.Context()).Discard() }, []string{"inner ended", "outer returned"}},
	} {
		t.Run(name, func(t *testing.T) {
			log, seen := &ledger{}, &events{}
			outer, inner := newRunner(t, background.Config{}), newRunner(t, background.Config{OnEvent: seen.add})
			ended := make(chan struct{})
			serve(t, outer, func(w http.ResponseWriter, req *http.Request) {
				defer log.add("outer returned")
				inner.Middleware(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
					tasks := background.From(req.Context())
					tasks.AddTask(log.task("inner"))
					tasks.Always(log.task("inner always"))
					tasks.OnEnd(func() { close(ended) })
				})).ServeHTTP(w, req)
				log.add("inner ended")
				c.fail(req)
			})
			wait(t, ended, "the inner tasks")
			log.want(t, c.want...)
			if dropped := len(of[background.TaskDropped](seen)); dropped != 4-len(c.want) {
				t.Errorf("%d tasks dropped", dropped)
			}
		})
	}
}

func TestAnInnerApplicationThatIsTooLateIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		seen := &events{}
		outer, inner := newRunner(t, background.Config{}), newRunner(t, background.Config{OnEvent: seen.add})
		h := outer.Middleware(http.TimeoutHandler(inner.Middleware(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			background.From(req.Context()).Add("inner", func(context.Context) error { t.Error("ran"); return nil })
			time.Sleep(2 * time.Second)
		})), time.Second, ""))
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if d := of[background.TaskDropped](seen); len(d) != 1 || d[0].Err != background.ErrSealed {
			t.Errorf("got %+v", d)
		}
	})
}

func TestOnEndIsCalledOnceInEachWayAListEnds(t *testing.T) {
	for name, h := range map[string]func(tasks *background.Tasks){
		"no tasks": func(*background.Tasks) {},
		"tasks":    func(l *background.Tasks) { l.Add("x", nothing) },
		"tasks that add": func(l *background.Tasks) {
			l.Add("x", func(ctx context.Context) error { background.From(ctx).Add("y", nothing); return nil })
		},
		"dropped": func(l *background.Tasks) { l.Add("x", nothing); l.Discard() },
		"panic":   func(l *background.Tasks) { l.Add("x", nothing); panic(http.ErrAbortHandler) },
		"always":  func(l *background.Tasks) { l.Always(background.Task{Name: "x", Run: nothing}); l.Discard() },
		"goexit":  func(l *background.Tasks) { l.Add("x", func(context.Context) error { runtime.Goexit(); return nil }) },
		"group":   func(l *background.Tasks) { l.Group(background.Task{Name: "x", Run: nothing}) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log := &ledger{}
				r := newRunner(t, background.Config{})
				var tasks *background.Tasks
				serve(t, r, func(w http.ResponseWriter, req *http.Request) {
					tasks = background.From(req.Context())
					tasks.OnEnd(func() { log.add("first") })
					tasks.Always(background.Task{Name: "on end", Run: func(ctx context.Context) error {
						background.From(ctx).OnEnd(func() { log.add("second") })
						return nil
					}})
					h(tasks)
				})
				synctest.Wait()
				log.want(t, "first", "second")
				tasks.OnEnd(func() { log.add("at once") })
				log.want(t, "first", "second", "at once")
			})
		})
	}
}

func TestDeferTakesPlacesWhenTheHandlerReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &ledger{}
		r := newRunner(t, background.Config{Lanes: map[string]background.Lane{"small": {Running: 1, Waiting: 1}}})
		small := func() background.LaneStats { return r.Stats().Lanes[2] }
		serve(t, r, func(w http.ResponseWriter, req *http.Request) {
			tasks := background.From(req.Context())
			tasks.Defer()
			for range 3 {
				if err := tasks.TryAdd(background.Task{Name: "x", Lane: "small", Run: func(context.Context) error {
					log.add(fmt.Sprint(small().Waiting + small().Running))
					return nil
				}}); err != nil {
					t.Error(err)
				}
			}
			if n := small().Waiting; n != 0 {
				t.Errorf("an open stream holds %d places", n)
			}
		})
		log.want(t, "3", "2", "1")
	})
}

func TestDeferHasNoEffectOnceATaskHasBeenAdded(t *testing.T) {
	r := newRunner(t, background.Config{})
	serve(t, r, func(w http.ResponseWriter, req *http.Request) {
		tasks := background.From(req.Context())
		tasks.Add("x", nothing)
		tasks.Defer()
		tasks.Add("y", nothing)
		if n := r.Stats().Lanes[1].Waiting; n != 2 {
			t.Errorf("%d places are held, want 2", n)
		}
	})
}

func TestSeveralGoroutinesAddAtOnce(t *testing.T) {
	r := newRunner(t, background.Config{})
	serve(t, r, func(w http.ResponseWriter, req *http.Request) {
		var adding sync.WaitGroup
		for range 8 {
			adding.Go(func() {
				tasks := background.From(context.WithValue(req.Context(), key("a"), 1))
				for range 50 {
					tasks.Add("x", nothing)
					tasks.Err()
					background.RequestID(req.Context())
				}
			})
		}
		adding.Wait()
	})
	if s := r.Stats(); s.Finished != 400 {
		t.Errorf("got %+v", s)
	}
}

func TestAFailingTaskLeavesTheConnectionAlone(t *testing.T) {
	r := newRunner(t, background.Config{})
	srv := httptest.NewUnstartedServer(r.Middleware(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		background.From(req.Context()).Add("panics", func(context.Context) error { panic("no") })
		io.WriteString(w, req.RemoteAddr)
	})))
	r.Configure(srv.Config)
	srv.Start()
	defer srv.Close()
	var addrs []string
	for range 5 {
		resp, err := srv.Client().Get(srv.URL)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		addrs = append(addrs, string(b))
	}
	if len(slices.Compact(addrs)) != 1 {
		t.Errorf("the connection was cut: %q", addrs)
	}
}
