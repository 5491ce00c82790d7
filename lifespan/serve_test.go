package lifespan_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wake-go/wake/lifespan"
)

type osSignal = os.Signal

type contextKey struct{}

func TestAnOrdinaryRunGoesThroughAllPhasesAndReturnsNil(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var j journal
	life := func(ctx context.Context, yield func(string) error) error {
		j.add("set up")
		defer j.add("clean up")
		return yield("state")
	}
	serve := func(ctx context.Context, state string) error {
		lifespan.MarkReady(ctx)
		lifespan.MarkReady(ctx)
		j.add("serve " + state)
		cancel()
		<-ctx.Done()
		return nil
	}
	if err := lifespan.Run(ctx, life, serve, lifespan.Config{OnEvent: j.phases}); err != nil {
		t.Error(err)
	}
	j.want(t, "starting, set up, ready, serve state, draining, cleaning, clean up, stopped")
}

func TestTheContextOfLifeKeepsLivingThroughCleanUp(t *testing.T) {
	ctx, cancel := context.WithCancel(context.WithValue(t.Context(), contextKey{}, "value"))
	var kept context.Context
	life := func(ctx context.Context, yield func(int) error) error {
		kept = ctx
		err := yield(1)
		if ctx.Err() != nil {
			t.Errorf("the context of life ended before clean-up: %v", context.Cause(ctx))
		}
		return err
	}
	serve := func(ctx context.Context, _ int) error {
		if ctx.Value(contextKey{}) != "value" || lifespan.Drain(ctx).Value(contextKey{}) != "value" {
			t.Error("the values of Run's context are lost")
		}
		cancel()
		<-ctx.Done()
		return ctx.Err()
	}
	if err := lifespan.Run(ctx, life, serve, lifespan.Config{}); err != nil {
		t.Error(err)
	}
	if kept.Err() == nil {
		t.Error("the context of life outlives Run")
	}
}

func TestServeThatEndsByItselfIsAnOrdinaryEnd(t *testing.T) {
	var j journal
	if err := lifespan.Run(t.Context(), lifespan.Fixed(1), serveAndEnd, lifespan.Config{OnEvent: j.phases}); err != nil {
		t.Error(err)
	}
	j.want(t, "starting, ready, cleaning, stopped")
}

func TestAnErrorOfServeIsStartingUntilMarkReadyAndReadyFromThenOn(t *testing.T) {
	serve := func(ctx context.Context, ready bool) error {
		if ready {
			lifespan.MarkReady(ctx)
		}
		return errBoom
	}
	wantError(t, lifespan.Run(t.Context(), lifespan.Fixed(false), serve, lifespan.Config{}), lifespan.Starting, errBoom)
	wantError(t, lifespan.Run(t.Context(), lifespan.Fixed(true), serve, lifespan.Config{}), lifespan.Ready, errBoom)
}

func TestServeThatPanicsOrGoesAwayIsAnErrorAndCleanUpRuns(t *testing.T) {
	for name, end := range map[string]func(){"panic": func() { panic(errBoom) }, "Goexit": runtime.Goexit} {
		cleaned := false
		life := func(ctx context.Context, yield func(int) error) error {
			defer func() { cleaned = true }()
			return yield(1)
		}
		serve := func(ctx context.Context, _ int) error { lifespan.MarkReady(ctx); end(); return nil }
		err := lifespan.Run(t.Context(), life, serve, lifespan.Config{})
		wantError(t, err, lifespan.Ready)
		if !errors.Is(err, errBoom) && !errors.Is(err, lifespan.ErrGoexit) {
			t.Errorf("%s: %v", name, err)
		}
		if !cleaned {
			t.Errorf("%s: no clean-up", name)
		}
	}
}

func TestTheErrorOfServeIsKeptWhateverLifeReturns(t *testing.T) {
	other := errors.New("other")
	for name, test := range map[string]struct {
		after    func(err error) error
		cleaning error
	}{
		"returned":                     {func(err error) error { return err }, nil},
		"wrapped":                      {func(err error) error { return fmt.Errorf("app: %w", err) }, nil},
		"swallowed":                    {func(err error) error { return nil }, nil},
		"taken out":                    {func(err error) error { return as[*lifespan.Error](t, err) }, nil},
		"joined":                       {func(err error) error { return errors.Join(err, other) }, other},
		"wrapped twice":                {func(err error) error { return fmt.Errorf("%w, then %w", err, other) }, other},
		"joined in a wrap in a join":   {func(err error) error { return errors.Join(fmt.Errorf("a: %w", errors.Join(other, err)), nil) }, other},
		"replaced":                     {func(err error) error { return other }, other},
		"the same error for two cases": {func(err error) error { return errBoom }, errBoom},
	} {
		t.Run(name, func(t *testing.T) {
			life := func(ctx context.Context, yield func(int) error) error {
				err := yield(1)
				wantError(t, err, lifespan.Ready, errBoom)
				return test.after(err)
			}
			serve := func(ctx context.Context, _ int) error { lifespan.MarkReady(ctx); return errBoom }
			err := lifespan.Run(t.Context(), life, serve, lifespan.Config{})
			if test.cleaning == nil {
				wantError(t, err, lifespan.Ready, errBoom)
				return
			}
			want := "serving failed: boom\nclean-up failed: " + test.cleaning.Error()
			if err.Error() != want {
				t.Errorf("the error reads %q, want %q", err, want)
			}
		})
	}
}

func TestAPanicWithTheErrorOfYieldIsNotLost(t *testing.T) {
	life := func(ctx context.Context, yield func(int) error) error { panic(yield(1)) }
	serve := func(ctx context.Context, _ int) error { lifespan.MarkReady(ctx); return errBoom }
	err := lifespan.Run(t.Context(), life, serve, lifespan.Config{})
	as[*lifespan.PanicError](t, err)
	wantIs(t, err, errBoom)
}

func TestTheCauseOfServesContextSaysWhyItEnded(t *testing.T) {
	for name, test := range map[string]struct {
		stop  func(ctx context.Context, cancel context.CancelCauseFunc)
		cause error
		fails bool
	}{
		"the context's end": {func(_ context.Context, cancel context.CancelCauseFunc) { cancel(errBoom) }, errBoom, false},
		"Stop":              {func(ctx context.Context, _ context.CancelCauseFunc) { lifespan.Stop(ctx, nil) }, lifespan.ErrStopped, false},
		"Stop with a cause": {func(ctx context.Context, _ context.CancelCauseFunc) { lifespan.Stop(ctx, errBoom) }, errBoom, true},
		"a part": {func(ctx context.Context, _ context.CancelCauseFunc) {
			lifespan.Go(ctx, "part", func(context.Context) error { return errBoom })
		}, errBoom, true},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			serve := func(ctx context.Context, _ int) error {
				lifespan.MarkReady(ctx)
				test.stop(ctx, cancel)
				<-ctx.Done()
				wantIs(t, context.Cause(ctx), test.cause)
				return context.Cause(ctx) // not repeated, not a failure of its own
			}
			err := lifespan.Run(ctx, lifespan.Fixed(1), serve, lifespan.Config{})
			if test.fails {
				wantError(t, err, lifespan.Ready, test.cause)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
}

func TestDrainOutlivesTheBeginningOfTheDrainAndEndsAtItsLimit(t *testing.T) {
	bubble(t, func(t *testing.T) {
		began := time.Now()
		var j journal
		serve := func(ctx context.Context, _ int) error {
			lifespan.MarkReady(ctx)
			lifespan.Stop(ctx, nil)
			<-ctx.Done()
			drain, cancel := context.WithTimeout(lifespan.Drain(ctx), time.Hour)
			defer cancel()
			if drain.Err() != nil {
				t.Error("Drain ended with the beginning of the drain")
			}
			<-drain.Done()
			wantTook(t, began, 30*time.Second)
			wantIs(t, context.Cause(drain), lifespan.ErrDrainTimeout)
			return drain.Err() // as http.Server.Shutdown does
		}
		err := lifespan.Run(t.Context(), lifespan.Fixed(1), serve, lifespan.Config{OnEvent: j.all})
		wantError(t, err, lifespan.Draining, lifespan.ErrDrainTimeout, context.Canceled)
		j.want(t, "starting, ready, draining, cut, cleaning, stopped")
	})
}

func TestDrainEndsWhenServeHasReturned(t *testing.T) {
	var drain context.Context
	serve := func(ctx context.Context, _ int) error { drain = lifespan.Drain(ctx); return nil }
	life := func(ctx context.Context, yield func(int) error) error {
		err := yield(1)
		if drain.Err() == nil {
			t.Error("Drain goes on after serve")
		}
		return err
	}
	if err := lifespan.Run(t.Context(), life, serve, lifespan.Config{}); err != nil {
		t.Error(err)
	}
}

func TestServeThatIgnoresTheCutIsAbandonedWithItsStackAndCleanUpRuns(t *testing.T) {
	bubble(t, func(t *testing.T) {
		began := time.Now()
		never := make(chan struct{})
		var j journal
		life := func(ctx context.Context, yield func(int) error) error {
			err := yield(1)
			wantError(t, err, lifespan.Draining, lifespan.ErrDrainTimeout)
			j.add("clean up")
			return err
		}
		serve := func(ctx context.Context, _ int) error { lifespan.Stop(ctx, nil); <-never; return nil }
		err := lifespan.Run(t.Context(), life, serve, lifespan.Config{OnEvent: j.all})
		wantTook(t, began, 34*time.Second)
		wantError(t, err, lifespan.Draining, lifespan.ErrDrainTimeout)
		stuck := as[*lifespan.StuckError](t, err)
		if !stuck.Abandoned || !strings.Contains(string(stuck.Stack), "TestServeThatIgnoresTheCut") {
			t.Errorf("abandoned %v, stack:\n%s", stuck.Abandoned, stuck.Stack)
		}
		j.want(t, "starting, draining, cut, abandoned draining, cleaning, clean up, stopped")
		close(never)
	})
}

func TestServeMayReportAbandonedWorkItself(t *testing.T) {
	serve := func(ctx context.Context, _ int) error {
		lifespan.MarkReady(ctx)
		return errors.Join(&lifespan.Error{Phase: lifespan.Draining, Err: errors.New("mail 17")}, errBoom)
	}
	err := lifespan.Run(t.Context(), lifespan.Fixed(1), serve, lifespan.Config{})
	if got, want := err.Error(), "work abandoned: mail 17\nserving failed: boom"; got != want {
		t.Errorf("the error reads %q, want %q", got, want)
	}
	if code := lifespan.ExitCode(err); code != lifespan.ExitServe {
		t.Errorf("the exit code is %d", code)
	}
}

func TestLifeThatEndsWhileServingStopsTheApplication(t *testing.T) {
	var j journal
	yielded := make(chan error, 1)
	life := func(ctx context.Context, yield func(context.CancelFunc) error) error {
		ready, cancel := context.WithCancel(ctx)
		go func() { yielded <- yield(cancel) }()
		<-ready.Done()
		return errBoom
	}
	serve := func(ctx context.Context, ready context.CancelFunc) error {
		lifespan.MarkReady(ctx)
		ready()
		<-ctx.Done()
		wantIs(t, context.Cause(ctx), lifespan.ErrEndedWhileServing)
		return nil
	}
	err := lifespan.Run(t.Context(), life, serve, lifespan.Config{OnEvent: j.phases})
	wantError(t, err, lifespan.Ready, lifespan.ErrEndedWhileServing, errBoom)
	wantIs(t, <-yielded, lifespan.ErrEndedWhileServing)
	j.want(t, "starting, ready, draining, cleaning, stopped")
}

func TestAPanicInOnEventStopsTheApplication(t *testing.T) {
	onEvent := func(e lifespan.Event) {
		if p, ok := e.(lifespan.PhaseChanged); ok && p.To == lifespan.Ready {
			panic(errBoom)
		}
	}
	err := lifespan.Run(t.Context(), lifespan.Fixed(1), serveUntilStopped, lifespan.Config{OnEvent: onEvent})
	wantError(t, err, lifespan.Ready, errBoom)
}

func TestOnEventMayCallStop(t *testing.T) {
	var serveCtx context.Context
	onEvent := func(e lifespan.Event) {
		if p, ok := e.(lifespan.PhaseChanged); ok && p.To == lifespan.Ready {
			lifespan.Stop(serveCtx, nil)
		}
	}
	serve := func(ctx context.Context, _ int) error { serveCtx = ctx; return serveUntilStopped(ctx, 1) }
	if err := lifespan.Run(t.Context(), lifespan.Fixed(1), serve, lifespan.Config{OnEvent: onEvent}); err != nil {
		t.Error(err)
	}
}

func TestARunInsideARunIsItsOwn(t *testing.T) {
	inner := func(ctx context.Context, _ int) error {
		lifespan.Stop(ctx, nil)
		<-ctx.Done()
		return nil
	}
	outer := func(ctx context.Context, _ int) error {
		lifespan.MarkReady(ctx)
		err := lifespan.Run(ctx, lifespan.Fixed(2), inner, lifespan.Config{})
		if ctx.Err() != nil {
			t.Error("Stop of the inner Run stopped the outer one")
		}
		return err
	}
	if err := lifespan.Run(t.Context(), lifespan.Fixed(1), outer, lifespan.Config{}); err != nil {
		t.Error(err)
	}
}

func TestOutsideALifespanTheFunctionsPanicWithASentence(t *testing.T) {
	for call, f := range map[string]func(ctx context.Context){
		"MarkReady":   lifespan.MarkReady,
		"Drain":       func(ctx context.Context) { lifespan.Drain(ctx) },
		"Stop":        func(ctx context.Context) { lifespan.Stop(ctx, nil) },
		`Go("cache")`: func(ctx context.Context) { lifespan.Go(ctx, "cache", nil) },
	} {
		func() {
			defer func() {
				if got, _ := recover().(string); !strings.HasPrefix(got, "lifespan."+call+": ") {
					t.Errorf("%s panicked with %q", call, got)
				}
			}()
			f(t.Context())
		}()
	}
}

func TestTwoWaysToStopAtOnceAreOneStop(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var j journal
		serve := func(ctx context.Context, _ int) error {
			lifespan.MarkReady(ctx)
			for range 10 {
				go lifespan.Stop(ctx, nil)
			}
			synctest.Wait()
			return nil
		}
		if err := lifespan.Run(t.Context(), lifespan.Fixed(1), serve, lifespan.Config{OnEvent: j.phases}); err != nil {
			t.Error(err)
		}
		j.want(t, "starting, ready, draining, cleaning, stopped")
	})
}

func TestServeThatReturnsAfterItWasAbandonedChangesNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		never := make(chan struct{})
		var j journal
		life := func(ctx context.Context, yield func(int) error) error {
			err := yield(1)
			close(never)
			synctest.Wait()
			return err
		}
		serve := func(ctx context.Context, _ int) error { lifespan.Stop(ctx, nil); <-never; return errBoom }
		err := lifespan.Run(t.Context(), life, serve, lifespan.Config{OnEvent: j.all})
		wantError(t, err, lifespan.Draining, lifespan.ErrDrainTimeout)
		wantNot(t, err, errBoom)
		j.want(t, "starting, draining, cut, abandoned draining, cleaning, stopped")
	})
}

func TestLifeThatEndsWhilePartsStopIsAFailure(t *testing.T) {
	bubble(t, func(t *testing.T) {
		told, yielded := make(chan struct{}), make(chan error, 1)
		life := func(ctx context.Context, yield func(int) error) error {
			lifespan.Go(ctx, "slow", func(ctx context.Context) error {
				<-ctx.Done()
				close(told)
				time.Sleep(time.Second)
				return nil
			})
			go func() { yielded <- yield(1) }()
			<-told
			return nil
		}
		err := lifespan.Run(t.Context(), life, serveAndEnd, lifespan.Config{})
		wantError(t, err, lifespan.Ready, lifespan.ErrEndedWhileServing)
		wantIs(t, <-yielded, lifespan.ErrEndedWhileServing)
	})
}
