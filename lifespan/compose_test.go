package lifespan_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wake-go/wake/lifespan"
)

// noted is a lifespan that notes "+name" and "-name".
func (j *journal) noted(name string) lifespan.Func[string] {
	return func(ctx context.Context, yield func(string) error) error {
		j.add("+" + name)
		defer j.add("-" + name)
		return yield(name)
	}
}

type inner = func(context.Context, string, func(string) error) error

func (j *journal) notedInner(name string) inner {
	return func(ctx context.Context, outer string, yield func(string) error) error {
		return j.noted(outer+">"+name)(ctx, yield)
	}
}

func TestThenCleansUpInReverse(t *testing.T) {
	var j journal
	life := lifespan.Then(lifespan.Then(j.noted("a"), j.notedInner("b")), j.notedInner("c"))
	serve := func(_ context.Context, s string) error { j.add(s); return nil }
	if err := lifespan.Run(t.Context(), life, serve, lifespan.Config{}); err != nil {
		t.Error(err)
	}
	j.want(t, "+a, +a>b, +a>b>c, a>b>c, -a>b>c, -a>b, -a")
}

func TestThenUnwindsTheOuterOneWhenTheInnerOneFailsToStart(t *testing.T) {
	for name, test := range map[string]struct {
		inner inner
		want  error
	}{
		"error":    {func(context.Context, string, func(string) error) error { return errBoom }, errBoom},
		"panic":    {func(context.Context, string, func(string) error) error { panic(errBoom) }, errBoom},
		"no yield": {func(context.Context, string, func(string) error) error { return nil }, lifespan.ErrNoYield},
	} {
		t.Run(name, func(t *testing.T) {
			var j journal
			outer := func(ctx context.Context, yield func(string) error) error {
				lifespan.Go(ctx, "part", j.untilTold("part"))
				err := j.noted("a")(ctx, yield)
				wantIs(t, err, test.want)
				if ctx.Err() != nil {
					t.Error("the context ended before clean-up")
				}
				return nil // swallowed
			}
			err := lifespan.Run(t.Context(), lifespan.Then(outer, test.inner), neverServe[string](t), lifespan.Config{})
			wantError(t, err, lifespan.Starting, test.want)
			j.want(t, "+a, part ends, -a")
		})
	}
}

func TestThenEndsPartsBeforeItUnwindsAfterAGoexitToo(t *testing.T) {
	var j journal
	outer := func(ctx context.Context, yield func(string) error) error {
		lifespan.Go(ctx, "part", j.untilTold("part"))
		return j.noted("a")(ctx, yield)
	}
	goes := func(context.Context, string, func(string) error) error { runtime.Goexit(); return nil }
	err := lifespan.Run(t.Context(), lifespan.Then(outer, goes), neverServe[string](t), lifespan.Config{})
	wantError(t, err, lifespan.Starting, lifespan.ErrGoexit)
	j.want(t, "+a, part ends, -a")
}

func TestThenKeepsTheInnerErrorsWhateverTheOuterOneDoes(t *testing.T) {
	errOuter := errors.New("outer")
	inner := func(_ context.Context, _ int, yield func(int) error) error { return errors.Join(yield(2), errClean) }
	serve := func(ctx context.Context, _ int) error { lifespan.MarkReady(ctx); return errBoom }
	for name, test := range map[string]struct {
		outer func(err error) error
		want  []string
	}{
		"returned":  {func(err error) error { return err }, []string{"serving failed: boom", "clean-up failed: clean-up boom"}},
		"wrapped":   {func(err error) error { return fmt.Errorf("outer: %w", err) }, []string{"serving failed: boom", "clean-up failed: clean-up boom"}},
		"swallowed": {func(error) error { return nil }, []string{"serving failed: boom", "clean-up failed: clean-up boom"}},
		"joined":    {func(err error) error { return errors.Join(err, errOuter) }, []string{"serving failed: boom", "clean-up failed: clean-up boom", "outer"}},
	} {
		t.Run(name, func(t *testing.T) {
			outer := func(_ context.Context, yield func(int) error) error { return test.outer(yield(1)) }
			err := lifespan.Run(t.Context(), lifespan.Then(outer, inner), serve, lifespan.Config{})
			if want := strings.Join(test.want, "\n"); err.Error() != want {
				t.Errorf("the error reads %q, want %q", err, want)
			}
		})
	}
	panics := func(_ context.Context, yield func(int) error) error { panic(fmt.Sprint("outer ", yield(1) != nil)) }
	err := lifespan.Run(t.Context(), lifespan.Then(panics, inner), serve, lifespan.Config{})
	as[*lifespan.PanicError](t, err)
	wantIs(t, err, errBoom, errClean)
}

func TestThenRunsTheInnerOneOnceIfTheOuterOneYieldsTwice(t *testing.T) {
	var j journal
	outer := func(_ context.Context, yield func(string) error) error {
		for range 3 {
			_ = yield("a")
		}
		return nil
	}
	err := lifespan.Run(t.Context(), lifespan.Then(outer, j.notedInner("b")), serveAndEnd, lifespan.Config{})
	wantError(t, err, lifespan.Cleaning, lifespan.ErrYieldedTwice)
	j.want(t, "+a>b, -a>b")
}

func TestThenOfAnOuterOneThatDoesNotYieldIsToldSo(t *testing.T) {
	var j journal
	outer := func(context.Context, func(string) error) error { return nil }
	err := lifespan.Run(t.Context(), lifespan.Then(outer, j.notedInner("b")), neverServe[string](t), lifespan.Config{})
	wantError(t, err, lifespan.Starting, lifespan.ErrNoYield)
	j.want(t, "")
}

func TestBothStartAndCleanUpSideBySide(t *testing.T) {
	bubble(t, func(t *testing.T) {
		began := time.Now()
		slow := func(ctx context.Context, yield func(time.Duration) error) error {
			time.Sleep(time.Second)
			err := yield(time.Since(began))
			time.Sleep(time.Second)
			return err
		}
		serve := func(_ context.Context, p lifespan.Pair[time.Duration, time.Duration]) error {
			if p.A != time.Second || p.B != time.Second {
				t.Errorf("the state is %v", p)
			}
			return nil
		}
		if err := lifespan.Run(t.Context(), lifespan.Both(slow, slow), serve, lifespan.Config{}); err != nil {
			t.Error(err)
		}
		wantTook(t, began, 2*time.Second)
	})
}

func TestBothCancelTheOtherSetUpWhenOneFails(t *testing.T) {
	for name, test := range map[string]struct {
		end  func() error
		want error
	}{
		"error":    {func() error { return errBoom }, errBoom},
		"panic":    {func() error { panic(errBoom) }, errBoom},
		"Goexit":   {func() error { runtime.Goexit(); return nil }, lifespan.ErrGoexit},
		"no yield": {func() error { return nil }, lifespan.ErrNoYield},
	} {
		t.Run(name, func(t *testing.T) {
			var j journal
			failing := func(context.Context, func(int) error) error { return test.end() }
			waiting := func(ctx context.Context, _ func(int) error) error {
				<-ctx.Done()
				wantIs(t, context.Cause(ctx), test.want)
				j.add("waited for")
				return fmt.Errorf("dial: %w", ctx.Err())
			}
			for _, life := range []lifespan.Func[lifespan.Pair[int, int]]{lifespan.Both(failing, waiting), lifespan.Both(waiting, failing)} {
				err := lifespan.Run(t.Context(), life, neverServe[lifespan.Pair[int, int]](t), lifespan.Config{})
				wantError(t, err, lifespan.Starting, test.want)
				wantNot(t, err, context.Canceled) // it only repeats that the other one failed
			}
			j.want(t, "waited for, waited for")
		})
	}
}

func TestBothReleaseTheOtherSideAndItsPartsWhenOneFails(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var j journal
		failing := func(context.Context, func(int) error) error {
			synctest.Wait() // until the other side is up
			return errBoom
		}
		up := func(ctx context.Context, yield func(string) error) error {
			lifespan.Go(ctx, "part", j.untilTold("part"))
			err := j.noted("up")(ctx, yield)
			wantIs(t, err, errBoom)
			if ctx.Err() != nil {
				t.Error("the context of a side that is up ended before its clean-up")
			}
			return errors.Join(err, errClean)
		}
		err := lifespan.Run(t.Context(), lifespan.Both(up, failing), neverServe[lifespan.Pair[string, int]](t), lifespan.Config{})
		wantError(t, err, lifespan.Starting, errBoom, errClean)
		if n := strings.Count(err.Error(), "boom"); n != 2 { // one of them is errClean's
			t.Errorf("%q repeats itself", err)
		}
		j.want(t, "+up, part ends, -up")
	})
}

func TestBothThatFailKeepBothErrors(t *testing.T) {
	fails := func(err error) lifespan.Func[int] {
		return func(context.Context, func(int) error) error { return err }
	}
	err := lifespan.Run(t.Context(), lifespan.Both(fails(errBoom), fails(io.ErrUnexpectedEOF)), neverServe[lifespan.Pair[int, int]](t), lifespan.Config{})
	wantError(t, err, lifespan.Starting, errBoom, io.ErrUnexpectedEOF)
}

func TestBothKeepTheErrorsOfServingAndOfEachCleanUp(t *testing.T) {
	swallows := func(_ context.Context, yield func(int) error) error { _ = yield(1); return errClean }
	joins := func(_ context.Context, yield func(int) error) error { return errors.Join(yield(1), io.ErrClosedPipe) }
	serve := func(ctx context.Context, _ lifespan.Pair[int, int]) error { lifespan.MarkReady(ctx); return errBoom }
	err := lifespan.Run(t.Context(), lifespan.Both(swallows, joins), serve, lifespan.Config{})
	want := "serving failed: boom\nclean-up failed: clean-up boom\nio: read/write on closed pipe"
	if err.Error() != want {
		t.Errorf("the error reads %q, want %q", err, want)
	}
}

func TestASideThatEndsWhileServingStopsTheApplication(t *testing.T) {
	early := func(ctx context.Context, yield func(context.CancelFunc) error) error {
		ready, cancel := context.WithCancel(ctx)
		done := make(chan struct{})
		t.Cleanup(func() { <-done })
		go func() { defer close(done); _ = yield(cancel) }()
		<-ready.Done()
		return errClean
	}
	serve := func(ctx context.Context, p lifespan.Pair[context.CancelFunc, int]) error {
		lifespan.MarkReady(ctx)
		p.A()
		<-ctx.Done()
		return nil
	}
	err := lifespan.Run(t.Context(), lifespan.Both(early, lifespan.Fixed(1)), serve, lifespan.Config{})
	wantError(t, err, lifespan.Ready, lifespan.ErrEndedWhileServing, errClean)
}

func TestGoStopAndDrainWorkInsideCompositions(t *testing.T) {
	var j journal
	worker := func(ctx context.Context, yield func(string) error) error {
		lifespan.Go(ctx, "worker", func(ctx context.Context) error {
			lifespan.Stop(ctx, nil)
			return j.untilTold("worker")(ctx)
		})
		return j.noted("w")(ctx, yield)
	}
	// The set-up of b ends only once the worker's Stop has interrupted it.
	b := func(ctx context.Context, _ string, yield func(string) error) error {
		<-ctx.Done()
		return yield("b")
	}
	life := lifespan.Then(lifespan.Join(worker, lifespan.Fixed(1), func(s string, _ int) string { return s }), b)
	err := lifespan.Run(t.Context(), life, neverServe[string](t), lifespan.Config{})
	wantError(t, err, lifespan.Starting, lifespan.ErrStopped)
	j.want(t, "+w, worker ends, -w")
}

func TestAnInterruptedCompositionHasTheCleanUpLimitToUnwind(t *testing.T) {
	bubble(t, func(t *testing.T) {
		began := time.Now()
		outer := func(_ context.Context, yield func(int) error) error {
			err := yield(1)
			time.Sleep(9 * time.Second) // more than Grace
			return err
		}
		inner := func(ctx context.Context, _ int, _ func(int) error) error {
			lifespan.Stop(ctx, nil)
			<-ctx.Done()
			return ctx.Err()
		}
		err := lifespan.Run(t.Context(), lifespan.Then(outer, inner), neverServe[int](t), lifespan.Config{})
		wantTook(t, began, 9*time.Second)
		wantError(t, err, lifespan.Starting, lifespan.ErrStopped)
	})
}

func TestAnInterruptedCompositionThatHangsWhileUnwindingIsAbandoned(t *testing.T) {
	bubble(t, func(t *testing.T) {
		began := time.Now()
		never := make(chan struct{})
		outer := func(_ context.Context, yield func(int) error) error { err := yield(1); <-never; return err }
		inner := func(ctx context.Context, _ int, _ func(int) error) error {
			lifespan.Stop(ctx, errBoom)
			<-ctx.Done()
			return ctx.Err()
		}
		err := lifespan.Run(t.Context(), lifespan.Then(outer, inner), neverServe[int](t), lifespan.Config{})
		wantTook(t, began, 12*time.Second)
		wantIs(t, err, errBoom, lifespan.ErrStopTimeout)
		if code := lifespan.ExitCode(err); code != lifespan.ExitStart {
			t.Errorf("the exit code is %d", code)
		}
		close(never)
	})
}

func TestAPartThatIgnoresItsEndDoesNotKeepACompositionFromUnwinding(t *testing.T) {
	bubble(t, func(t *testing.T) {
		never := make(chan struct{})
		var j journal
		outer := func(ctx context.Context, yield func(string) error) error {
			lifespan.Go(ctx, "stubborn", func(context.Context) error { <-never; return nil })
			return j.noted("a")(ctx, yield)
		}
		fails := func(context.Context, string, func(string) error) error { return errBoom }
		err := lifespan.Run(t.Context(), lifespan.Then(outer, fails), neverServe[string](t), lifespan.Config{})
		wantIs(t, err, errBoom, lifespan.ErrStopTimeout)
		if code := lifespan.ExitCode(err); code != lifespan.ExitStart {
			t.Errorf("the exit code is %d", code)
		}
		j.want(t, "+a, -a")
		close(never)
	})
}

func TestACompositionCanBeTriedAgain(t *testing.T) {
	var j journal
	attempts := 0
	flaky := func(ctx context.Context, a string, yield func(string) error) error {
		if attempts++; attempts < 3 {
			return errBoom
		}
		return yield(a + " at last")
	}
	composed := lifespan.Then(j.noted("a"), flaky)
	retried := func(ctx context.Context, yield func(string) error) error {
		for {
			if err := composed(ctx, yield); !errors.Is(err, errBoom) {
				return err
			}
		}
	}
	serve := func(_ context.Context, s string) error { j.add(s); return nil }
	if err := lifespan.Run(t.Context(), retried, serve, lifespan.Config{}); err != nil {
		t.Error(err)
	}
	j.want(t, "+a, -a, +a, -a, +a, a at last, -a")
}

func TestHooksStopWhatTheyStartedAndKeepBothErrors(t *testing.T) {
	var j journal
	begin := func(context.Context) (string, error) { j.add("start"); return "state", nil }
	end := func(ctx context.Context, s string) error {
		if ctx.Err() != nil {
			t.Error("stop got a context that is over")
		}
		j.add("stop " + s)
		return errClean
	}
	serve := func(ctx context.Context, _ string) error { lifespan.MarkReady(ctx); return errBoom }
	err := lifespan.Run(t.Context(), lifespan.Hooks(begin, end), serve, lifespan.Config{})
	if got, want := err.Error(), "serving failed: boom\nclean-up failed: clean-up boom"; got != want {
		t.Errorf("the error reads %q, want %q", got, want)
	}
	j.want(t, "start, stop state")

	fails := func(context.Context) (string, error) { return "", errBoom }
	err = lifespan.Run(t.Context(), lifespan.Hooks(fails, end), neverServe[string](t), lifespan.Config{})
	wantError(t, err, lifespan.Starting, errBoom)
	j.want(t, "start, stop state")

	err = lifespan.Run(t.Context(), lifespan.Hooks(begin, nil), serveAndEnd, lifespan.Config{})
	if err != nil {
		t.Error(err)
	}
}

func TestCompositionsWorkWithoutRun(t *testing.T) {
	var j journal
	life := lifespan.Then(lifespan.Join(j.noted("a"), j.noted("b"), func(a, b string) string { return a + b }), j.notedInner("c"))
	err := life(t.Context(), func(s string) error { j.add(s); return errBoom })
	if !errors.Is(err, errBoom) {
		t.Error(err)
	}
	if !j.has("+ab>c") || !j.has("ab>c") || !j.has("-a") || !j.has("-b") {
		t.Errorf("it went %v", j.String())
	}
}

// A tree is a random composition. Each leaf notes its start and its clean-up;
// one kind of end is chosen for each.
type tree struct {
	t    *testing.T
	rand *rand.Rand
	j    journal
	// of leaves
	number   int
	failing  []error         // what the leaves that fail return
	up, down map[int]int     // times each leaf was set up and cleaned up; guarded by j.mu
	under    map[int][]int   // the leaves that must be up as long as the key is
	broken   map[string]bool // rules that were broken
}

func (tr *tree) leaf(below []int) (lifespan.Func[int], []int) {
	n := tr.number
	tr.number++
	tr.under[n] = below
	end := tr.rand.IntN(12)
	err := fmt.Errorf("leaf %d", n)
	if end <= 2 && end >= 1 {
		tr.failing = append(tr.failing, err)
	}
	return func(ctx context.Context, yield func(int) error) error {
		switch end {
		case 0:
			<-time.After(time.Millisecond)
		case 1:
			return err
		case 2:
			panic(err)
		}
		tr.note(n, tr.up)
		defer tr.note(n, tr.down)
		lifespan.Go(ctx, fmt.Sprint(n), func(ctx context.Context) error {
			<-ctx.Done()
			tr.check(n)
			return nil
		})
		if got := yield(n); end == 3 {
			return errors.Join(got, errClean)
		} else if end == 4 {
			return nil
		} else {
			return got
		}
	}, []int{n}
}

// note counts n's start or end, and checks that all it rests on is up.
func (tr *tree) note(n int, in map[int]int) {
	tr.check(n)
	tr.j.mu.Lock()
	defer tr.j.mu.Unlock()
	in[n]++
}

func (tr *tree) check(n int) {
	tr.j.mu.Lock()
	defer tr.j.mu.Unlock()
	for _, b := range tr.under[n] {
		if tr.up[b] != 1 || tr.down[b] != 0 {
			tr.broken[fmt.Sprintf("leaf %d runs while leaf %d below it does not", n, b)] = true
		}
	}
}

func (tr *tree) grow(depth int, below []int) (lifespan.Func[int], []int) {
	if depth == 0 {
		return tr.leaf(below)
	}
	a, leavesA := tr.grow(tr.rand.IntN(depth), below)
	if tr.rand.IntN(2) == 0 {
		b, leavesB := tr.grow(tr.rand.IntN(depth), below)
		return lifespan.Join(a, b, func(a, _ int) int { return a }), append(leavesA, leavesB...)
	}
	b, leavesB := tr.grow(tr.rand.IntN(depth), append(below[:len(below):len(below)], leavesA...))
	inner := func(ctx context.Context, _ int, yield func(int) error) error { return b(ctx, yield) }
	return lifespan.Then(a, inner), append(leavesA, leavesB...)
}

func TestRandomCompositionsCleanUpExactlyOnceAndNested(t *testing.T) {
	for seed := range uint64(400) {
		bubble(t, func(t *testing.T) {
			tr := &tree{t: t, rand: rand.New(rand.NewPCG(seed, 1)), up: map[int]int{}, down: map[int]int{}, under: map[int][]int{}, broken: map[string]bool{}}
			life, _ := tr.grow(5, nil)
			served := false
			serve := func(ctx context.Context, _ int) error {
				served = true
				lifespan.MarkReady(ctx)
				if len(tr.up) != tr.number {
					t.Errorf("served with %d of %d leaves", len(tr.up), tr.number)
				}
				return nil
			}
			began := time.Now()
			err := lifespan.Run(t.Context(), life, serve, lifespan.Config{})
			if took := time.Since(began); took > time.Second {
				t.Errorf("it took %v", took)
			}
			if served != (len(tr.failing) == 0) {
				t.Errorf("served: %v, failing leaves: %v", served, tr.failing)
			}
			for n := range tr.number {
				if tr.up[n] > 1 || tr.up[n] != tr.down[n] {
					t.Errorf("leaf %d was set up %d times and cleaned up %d times", n, tr.up[n], tr.down[n])
				}
			}
			for rule := range tr.broken {
				t.Error(rule)
			}
			if !served {
				wantError(t, err, lifespan.Starting)
			} else if err != nil {
				wantError(t, err, lifespan.Cleaning, errClean)
			}
			if t.Failed() {
				t.Fatalf("seed %d: %v", seed, err)
			}
		})
	}
}
