package background_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/wake-go/wake/background"
)

// small is a lane that is soon full.
var small = map[string]background.Lane{"small": {Running: 2, Waiting: 3}}

func inSmall(name string, run func(context.Context) error) background.Task {
	return background.Task{Name: name, Lane: "small", Run: run}
}

func laneStats(r *background.Runner, name string) background.LaneStats {
	for _, l := range r.Stats().Lanes {
		if l.Name == name {
			return l
		}
	}
	return background.LaneStats{}
}

// fill fills the lane "small" with tasks that block until the caller lets them go.
func fill(t *testing.T, r *background.Runner) (leave func()) {
	t.Helper()
	gate := make(chan struct{})
	for range 5 {
		if err := r.Add(t.Context(), inSmall("blocks", func(context.Context) error { <-gate; return nil })); err != nil {
			t.Fatal(err)
		}
	}
	return func() { close(gate) }
}

func TestALaneTakesWhatItIsMadeFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRunner(t, background.Config{Lanes: small})
		leave := fill(t, r)
		synctest.Wait()
		want := background.LaneStats{Name: "small", Running: 2, Waiting: 3, Capacity: 5, Workers: 2}
		if got := laneStats(r, "small"); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
		if !r.Full("small") || r.Full("") {
			t.Error("Full does not tell the full lane")
		}
		err := r.Add(t.Context(), inSmall("sixth", nothing))
		var full *background.FullError
		if !errors.Is(err, background.ErrFull) || !errors.As(err, &full) || *full != (background.FullError{Lane: "small", Task: "sixth", Capacity: 5}) {
			t.Errorf("got %v", err)
		}
		leave()
		synctest.Wait()
		if r.Full("small") {
			t.Error("the lane is still full")
		}
	})
}

func TestNoMoreTasksRunThanALaneAllows(t *testing.T) {
	r := newRunner(t, background.Config{Lanes: map[string]background.Lane{"small": {Running: 3, Waiting: 1000}}})
	var running, most atomic.Int64
	for range 200 {
		answer(r, func(w http.ResponseWriter, req *http.Request) {
			task := inSmall("x", func(context.Context) error {
				n := running.Add(1)
				defer running.Add(-1)
				for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
				}
				runtime.Gosched()
				return nil
			})
			background.From(req.Context()).Group(task, task, task, task)
			background.From(req.Context()).AddTask(task)
		})
	}
	if err := r.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s := r.Stats(); most.Load() > 3 || s.Finished != 1000 {
		t.Errorf("%d ran at once: %+v", most.Load(), s)
	}
}

func TestAddToAFullLaneFailsTheRequest(t *testing.T) {
	for name, refused := range map[string]func(*background.Tasks){
		"AddTask": func(l *background.Tasks) { l.AddTask(inSmall("mail", nothing)) },
		"Group":   func(l *background.Tasks) { l.Group(inSmall("mail", nothing)) },
		"Always":  func(l *background.Tasks) { l.Always(inSmall("mail", nothing)) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log, seen := &ledger{}, &events{}
				r := newRunner(t, background.Config{Lanes: small, OnEvent: seen.add})
				leave := fill(t, r)
				serve(t, r, func(w http.ResponseWriter, req *http.Request) {
					ctx := req.Context()
					before, cancel := context.WithCancel(context.WithValue(ctx, key("a"), 1))
					defer cancel()
					tasks := background.From(before)
					tasks.Hold()
					tasks.AddTask(log.task("dropped"))
					tasks.Always(log.task("audit"))
					if err := tasks.Err(); err != nil || ctx.Err() != nil {
						t.Errorf("got %v before", err)
					}
					refused(tasks)
					synctest.Wait()
					after, cancel := context.WithCancel(ctx)
					defer cancel()
					for _, c := range []context.Context{ctx, before, after} {
						if err := context.Cause(c); !errors.Is(err, background.ErrFull) || c.Err() != context.Canceled {
							t.Errorf("the context says %v, %v", c.Err(), err)
						}
					}
					if err := tasks.Err(); !errors.Is(err, background.ErrFull) || tasks.Commit() != err {
						t.Errorf("Err says %v, Commit %v", err, tasks.Commit())
					}
				})
				log.want(t, "audit")
				if e := of[background.TaskRefused](seen); len(e) != 1 || e[0].Name != "mail" || e[0].RequestID == "" || !errors.Is(e[0].Err, background.ErrFull) {
					t.Errorf("refused %+v", e)
				}
				if e := of[background.TaskDropped](seen); len(e) != 1 || e[0].Name != "dropped" || !errors.Is(e[0].Err, background.ErrFull) {
					t.Errorf("dropped %+v", e)
				}
				leave()
			})
		})
	}
}

func TestTryAddLeavesTheRequestAlone(t *testing.T) {
	log, seen := &ledger{}, &events{}
	r := newRunner(t, background.Config{Lanes: small, OnEvent: seen.add})
	leave := fill(t, r)
	serve(t, r, func(w http.ResponseWriter, req *http.Request) {
		tasks := background.From(req.Context())
		tasks.Hold()
		tasks.AddTask(log.task("stays"))
		if err := tasks.TryAdd(inSmall("mail", nothing)); !errors.Is(err, background.ErrFull) {
			t.Errorf("got %v", err)
		}
		if err := errors.Join(req.Context().Err(), tasks.Err(), tasks.Commit()); err != nil {
			t.Error(err)
		}
	})
	leave()
	log.want(t, "stays")
	if e := of[background.TaskRefused](seen); len(e) != 0 {
		t.Errorf("got %+v", e)
	}
}

func TestABatchThatDoesNotFitReservesNothing(t *testing.T) {
	r := newRunner(t, background.Config{Lanes: small})
	task, other := inSmall("x", nothing), background.Task{Name: "other", Run: nothing}
	six := []background.Task{other, task, task, task, task, task, task}
	serve(t, r, func(w http.ResponseWriter, req *http.Request) {
		tasks := background.From(req.Context())
		if err := tasks.TryAdd(six...); !errors.Is(err, background.ErrFull) {
			t.Errorf("got %v", err)
		}
		if laneStats(r, "small").Waiting != 0 || laneStats(r, "default").Waiting != 0 {
			t.Errorf("places were kept: %+v", r.Stats().Lanes)
		}
		if err := tasks.TryAdd(six[:6]...); err != nil {
			t.Errorf("the places are not free: %v", err)
		}
		tasks.Group(six...)
		if laneStats(r, "small").Waiting != 5 || laneStats(r, "default").Waiting != 1 {
			t.Errorf("places were kept: %+v", r.Stats().Lanes)
		}
	})
	if s := r.Stats(); s.Added != 6 || s.Dropped != 6 || s.Refused != 7 {
		t.Errorf("got %+v", s)
	}
}

func TestARunningTaskThatAddsToAFullLaneFails(t *testing.T) {
	seen := &events{}
	r := newRunner(t, background.Config{Lanes: small, OnEvent: seen.add})
	leave := fill(t, r)
	log := &ledger{}
	serve(t, r, func(w http.ResponseWriter, req *http.Request) {
		background.From(req.Context()).AddTask(background.Task{Name: "adds", Run: func(ctx context.Context) error {
			tasks := background.From(ctx)
			tasks.AddTask(log.task("kept"))
			tasks.AddTask(inSmall("mail", nothing))
			if err := context.Cause(ctx); !errors.Is(err, background.ErrFull) || tasks.Err() != err {
				t.Errorf("got %v, %v", err, tasks.Err())
			}
			return nil
		}}, log.task("next"))
	})
	leave()
	log.want(t, "next", "kept")
	for _, e := range of[background.TaskFinished](seen) {
		if e.Name == "adds" && !errors.Is(e.Err, background.ErrFull) {
			t.Errorf("it ended with %v", e.Err)
		}
	}
	if s := r.Stats(); s.Failed != 1 {
		t.Errorf("got %+v", s)
	}
}

func TestPlacesAreGivenBackHoweverARequestEnds(t *testing.T) {
	ends := map[string]func(http.ResponseWriter, *http.Request){
		"well":     func(http.ResponseWriter, *http.Request) {},
		"panic":    func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"discard":  func(w http.ResponseWriter, r *http.Request) { background.From(r.Context()).Discard() },
		"not held": func(w http.ResponseWriter, r *http.Request) { background.From(r.Context()).Hold() },
		"full": func(w http.ResponseWriter, r *http.Request) {
			background.From(r.Context()).AddTask(inSmall("one too many", nothing))
		},
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			r := newRunner(t, background.Config{Lanes: small})
			for range 3 {
				serve(t, r, func(w http.ResponseWriter, req *http.Request) {
					task := inSmall("x", nothing)
					if err := background.From(req.Context()).TryAdd(task, task, task, task, task); err != nil {
						t.Errorf("the lane is not free: %v", err)
					}
					end(w, req)
				})
			}
		})
	}
}

// However requests and tasks end, nothing is lost, counted twice or kept.
func TestRandomEndingsAddUp(t *testing.T) {
	const clients, each = 8, 60
	r := newRunner(t, background.Config{OnEvent: func(background.Event) {}, Lanes: map[string]background.Lane{
		"small": {Running: 2, Waiting: 20}, background.CPULane: {Waiting: 20, Threads: true},
	}})
	var all sync.WaitGroup
	for i := range clients {
		all.Go(func() {
			rng := rand.New(rand.NewPCG(1, uint64(i)))
			for range each {
				s := &script{rng: rand.New(rand.NewPCG(rng.Uint64(), 2)), r: r}
				serve(t, r, s.handle)
			}
		})
	}
	all.Wait()
	if err := r.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	checkSettled(t, r)
	s := r.Stats()
	t.Logf("%+v", s)
	for name, n := range map[string]uint64{"finished": s.Finished, "failed": s.Failed, "dropped": s.Dropped, "refused": s.Refused} {
		if n == 0 {
			t.Errorf("no task was %s: the test does not test that", name)
		}
	}
}

// A script is a request that does something else each time.
type script struct {
	mu  sync.Mutex
	rng *rand.Rand
	r   *background.Runner
}

func (s *script) n(n int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rng.IntN(n)
}

func (s *script) handle(w http.ResponseWriter, req *http.Request) {
	tasks := background.From(req.Context())
	if s.n(5) == 0 {
		tasks.Defer()
	}
	if s.n(3) == 0 {
		tasks.Hold()
	}
	for range s.n(6) {
		s.add(tasks, 3)
	}
	switch s.n(6) {
	case 0:
		tasks.Commit()
	case 1:
		tasks.Discard()
	case 2:
		panic(http.ErrAbortHandler)
	case 3:
		s.r.Add(req.Context(), s.task(2))
	case 4:
		background.Offload(req.Context(), s.r, func(context.Context) (int, error) { return 1, nil })
	}
}

func (s *script) add(tasks *background.Tasks, depth int) {
	switch s.n(4) {
	case 0:
		tasks.AddTask(s.task(depth))
	case 1:
		tasks.TryAdd(s.task(depth), s.task(depth))
	case 2:
		tasks.Group(s.task(depth), s.task(depth), s.task(depth))
	case 3:
		tasks.Always(s.task(depth))
	}
}

func (s *script) task(depth int) background.Task {
	lane := []string{"", "small", background.CPULane}[s.n(3)]
	return background.Task{Name: fmt.Sprint("depth ", depth), Lane: lane, Run: func(ctx context.Context) error {
		if depth > 0 && s.n(3) == 0 {
			s.add(background.From(ctx), depth-1)
		}
		switch s.n(8) {
		case 0:
			return errors.New("no")
		case 1:
			panic("no")
		case 2:
			runtime.Goexit()
		}
		return ctx.Err()
	}}
}

func TestStatsCanBeReadUnderLoad(t *testing.T) {
	var counted atomic.Uint64
	r := newRunner(t, background.Config{Lanes: small, OnEvent: func(e background.Event) {
		if _, ok := e.(background.TaskFinished); ok {
			counted.Add(1)
		}
	}})
	stop := make(chan struct{})
	var reading, load sync.WaitGroup
	reading.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			s := r.Stats()
			for _, l := range s.Lanes {
				if l.Running > l.Workers || l.Waiting < 0 {
					t.Errorf("got %+v", l)
				}
			}
		}
	})
	for range 4 {
		load.Go(func() {
			for range 100 {
				serve(t, r, func(w http.ResponseWriter, req *http.Request) {
					background.From(req.Context()).TryAdd(inSmall("x", nothing))
					background.From(req.Context()).Add("y", nothing)
				})
			}
		})
	}
	load.Wait()
	close(stop)
	reading.Wait()
	if s := r.Stats(); s.Finished != counted.Load() || s.Finished < 400 {
		t.Errorf("%d events, %+v", counted.Load(), s)
	}
}

func TestErrorsSayWhatToDo(t *testing.T) {
	full := &background.FullError{Lane: "small", Task: "mail", Capacity: 5}
	for err, want := range map[error]string{
		full:                             `no place for task "mail": lane "small" holds its 5 tasks already; raise Lane.Waiting`,
		&background.PanicError{Value: 1}: "panic: 1",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("got %q", err)
		}
	}
	if errors.Is(full, background.ErrClosed) || errors.Unwrap(&background.PanicError{Value: "text"}) != nil {
		t.Error("an error matches what it is not")
	}
}
