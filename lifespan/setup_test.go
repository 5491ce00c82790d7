package lifespan_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/wake-go/wake/lifespan"
)

func TestSetUpThatFailsIsAStartingErrorAndNothingIsServed(t *testing.T) {
	var j journal
	life := func(ctx context.Context, yield func(int) error) error { return fmt.Errorf("open: %w", errBoom) }
	err := lifespan.Run(t.Context(), life, neverServe[int](t), lifespan.Config{OnEvent: j.phases})
	wantError(t, err, lifespan.Starting, errBoom)
	if got, want := err.Error(), "start-up failed: open: boom"; got != want {
		t.Errorf("the error reads %q, want %q", got, want)
	}
	j.want(t, "starting, cleaning, stopped")
}

func TestSetUpThatPanicsIsAStartingErrorWithItsPlace(t *testing.T) {
	life := func(ctx context.Context, yield func(int) error) error { panic(errBoom) }
	err := lifespan.Run(t.Context(), life, neverServe[int](t), lifespan.Config{})
	wantError(t, err, lifespan.Starting, errBoom)
	p := as[*lifespan.PanicError](t, err)
	if !strings.Contains(string(p.Stack), "TestSetUpThatPanics") {
		t.Errorf("the stack does not show the panic:\n%s", p.Stack)
	}
	if !strings.Contains(err.Error(), "setup_test.go:") {
		t.Errorf("the error %q does not tell the place", err)
	}
}

func TestSetUpThatCallsGoexitIsAStartingError(t *testing.T) {
	life := func(ctx context.Context, yield func(int) error) error { runtime.Goexit(); return nil }
	err := lifespan.Run(t.Context(), life, neverServe[int](t), lifespan.Config{})
	wantError(t, err, lifespan.Starting, lifespan.ErrGoexit)
}

func TestSetUpThatHangsIsCancelledAtItsLimit(t *testing.T) {
	bubble(t, func(t *testing.T) {
		began := time.Now()
		life := func(ctx context.Context, yield func(int) error) error {
			<-ctx.Done()
			if cause := context.Cause(ctx); cause != lifespan.ErrStartTimeout {
				t.Errorf("the cause is %v", cause)
			}
			return ctx.Err()
		}
		err := lifespan.Run(t.Context(), life, neverServe[int](t), lifespan.Config{})
		wantTook(t, began, time.Minute)
		wantError(t, err, lifespan.Starting, lifespan.ErrStartTimeout)
		stuck := as[*lifespan.StuckError](t, err)
		if stuck.Abandoned || !strings.Contains(string(stuck.Stack), "TestSetUpThatHangs") {
			t.Errorf("abandoned %v, stack:\n%s", stuck.Abandoned, stuck.Stack)
		}
	})
}

func TestSetUpThatHangsAndIgnoresItsContextIsAbandonedWithItsStack(t *testing.T) {
	bubble(t, func(t *testing.T) {
		began := time.Now()
		never, yielded := make(chan struct{}), make(chan error)
		life := func(ctx context.Context, yield func(int) error) error {
			<-never
			yielded <- yield(1)
			return nil
		}
		var j journal
		err := lifespan.Run(t.Context(), life, neverServe[int](t), lifespan.Config{StartTimeout: 5 * time.Second, OnEvent: j.all})
		wantTook(t, began, 7*time.Second)
		wantError(t, err, lifespan.Starting, lifespan.ErrStartTimeout)
		stuck := as[*lifespan.StuckError](t, err)
		if !stuck.Abandoned || stuck.After != 2*time.Second || !strings.Contains(string(stuck.Stack), "TestSetUpThatHangsAndIgnores") {
			t.Errorf("abandoned %v after %v, stack:\n%s", stuck.Abandoned, stuck.After, stuck.Stack)
		}
		for _, want := range []string{"abandoned", "setup_test.go:"} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("the error %q does not say %q", err, want)
			}
		}
		j.want(t, "starting, abandoned starting, cleaning, stopped")

		close(never) // It comes to life again, too late.
		wantIs(t, <-yielded, lifespan.ErrStartTimeout)
	})
}

func TestSetUpThatHangsInACompositionIsReportedWithTheStackOfItsSide(t *testing.T) {
	bubble(t, func(t *testing.T) {
		never := make(chan struct{})
		stuckSide := func(ctx context.Context, yield func(int) error) error { <-never; return yield(1) }
		err := lifespan.Run(t.Context(), lifespan.Both(lifespan.Fixed(1), stuckSide), neverServe[lifespan.Pair[int, int]](t), lifespan.Config{})
		if !strings.Contains(err.Error(), "setup_test.go:") {
			t.Errorf("the error %q does not tell the place", err)
		}
		close(never)
	})
}

func TestNegativeLimitsAreNone(t *testing.T) {
	bubble(t, func(t *testing.T) {
		began := time.Now()
		life := func(ctx context.Context, yield func(int) error) error {
			time.Sleep(24 * time.Hour)
			err := yield(1)
			time.Sleep(24 * time.Hour)
			return errors.Join(err, ctx.Err())
		}
		serve := func(ctx context.Context, _ int) error {
			lifespan.Stop(ctx, nil)
			<-ctx.Done()
			time.Sleep(24 * time.Hour)
			return lifespan.Drain(ctx).Err()
		}
		err := lifespan.Run(t.Context(), life, serve, lifespan.Config{StartTimeout: -1, DrainTimeout: -1, StopTimeout: -1})
		if err != nil {
			t.Error(err)
		}
		wantTook(t, began, 72*time.Hour)
	})
}

func TestLifeThatNeverYieldsIsToldSo(t *testing.T) {
	life := func(ctx context.Context, yield func(int) error) error { return nil }
	err := lifespan.Run(t.Context(), life, neverServe[int](t), lifespan.Config{})
	wantError(t, err, lifespan.Starting, lifespan.ErrNoYield)
}

func TestLifeThatYieldsTwiceServesOnceAndFailsEvenIfItSwallowsTheError(t *testing.T) {
	served := 0
	life := func(ctx context.Context, yield func(int) error) error {
		if err := yield(1); err != nil {
			t.Errorf("the first yield returned %v", err)
		}
		for range 2 {
			if err := yield(2); err != lifespan.ErrYieldedTwice {
				t.Errorf("the next yield returned %v", err)
			}
		}
		return nil
	}
	serve := func(ctx context.Context, _ int) error { served++; return nil }
	err := lifespan.Run(t.Context(), life, serve, lifespan.Config{})
	wantError(t, err, lifespan.Cleaning, lifespan.ErrYieldedTwice)
	if served != 1 {
		t.Errorf("served %d times", served)
	}

	returned := func(ctx context.Context, yield func(int) error) error { return errors.Join(yield(1), yield(2)) }
	err = lifespan.Run(t.Context(), returned, serve, lifespan.Config{})
	wantError(t, err, lifespan.Cleaning, lifespan.ErrYieldedTwice)
}

func TestTheEndOfTheContextInterruptsSetUp(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	life := func(ctx context.Context, yield func(int) error) error {
		cancel(errBoom)
		<-ctx.Done()
		return context.Cause(ctx)
	}
	err := lifespan.Run(ctx, life, neverServe[int](t), lifespan.Config{})
	wantError(t, err, lifespan.Starting, errBoom)
	if n := strings.Count(err.Error(), "boom"); n != 1 {
		t.Errorf("%q repeats itself", err)
	}
}

func TestSetUpThatFailsBecauseItWasInterruptedKeepsBothErrors(t *testing.T) {
	life := func(ctx context.Context, yield func(int) error) error {
		lifespan.Stop(ctx, errBoom)
		<-ctx.Done()
		return fmt.Errorf("dial: %w", io.ErrUnexpectedEOF)
	}
	err := lifespan.Run(t.Context(), life, neverServe[int](t), lifespan.Config{})
	wantError(t, err, lifespan.Starting, errBoom, io.ErrUnexpectedEOF)
}

func TestAContextThatIsOverStartsNothing(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var j journal
	life := func(ctx context.Context, yield func(int) error) error { t.Error("life was called"); return nil }
	err := lifespan.Run(ctx, life, neverServe[int](t), lifespan.Config{OnEvent: j.phases})
	wantError(t, err, lifespan.Starting, context.Canceled)
	j.want(t, "starting, cleaning, stopped")
}

func TestALateYieldServesNothingAndHasTheWholeCleanUpLimit(t *testing.T) {
	bubble(t, func(t *testing.T) {
		began := time.Now()
		var j journal
		life := func(ctx context.Context, yield func(int) error) error {
			lifespan.Stop(ctx, nil)
			<-ctx.Done()
			err := yield(1)
			wantIs(t, err, lifespan.ErrStopped)
			time.Sleep(9 * time.Second) // more than Grace
			j.add("cleaned up")
			return errors.Join(err, errClean)
		}
		err := lifespan.Run(t.Context(), life, neverServe[int](t), lifespan.Config{OnEvent: j.phases})
		wantTook(t, began, 9*time.Second)
		wantIs(t, err, lifespan.ErrStopped, errClean)
		if got, want := err.Error(), "start-up failed: the application was asked to stop\nclean-up failed: clean-up boom"; got != want {
			t.Errorf("the error reads %q, want %q", got, want)
		}
		j.want(t, "starting, cleaning, cleaned up, stopped")
	})
}

func TestAWrongConfigNamesTheField(t *testing.T) {
	for want, cfg := range map[string]lifespan.Config{
		"Config.Grace is -1s":         {Grace: -time.Second},
		"Config.Signals[0] is nil":    {Signals: make([]osSignal, 1)},
		"life and serve must not be ": {},
	} {
		life := lifespan.Fixed(1)
		if cfg.Grace == 0 && cfg.Signals == nil {
			life = nil
		}
		err := lifespan.Run(t.Context(), life, neverServe[int](t), cfg)
		wantError(t, err, lifespan.Starting)
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error %q does not say %q", err, want)
		}
	}
}

func TestAnInterruptedSetUpTellsItsPartsToEndAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		began := time.Now()
		life := func(ctx context.Context, yield func(int) error) error {
			ended := make(chan struct{})
			lifespan.Go(ctx, "part", func(ctx context.Context) error { <-ctx.Done(); close(ended); return nil })
			lifespan.Stop(ctx, nil)
			<-ended
			return ctx.Err()
		}
		err := lifespan.Run(t.Context(), life, neverServe[int](t), lifespan.Config{})
		wantTook(t, began, 0)
		wantError(t, err, lifespan.Starting, lifespan.ErrStopped)
	})
}

func TestTheStartLimitEndsWithYield(t *testing.T) {
	bubble(t, func(t *testing.T) {
		life := func(ctx context.Context, yield func(int) error) error { return errors.Join(yield(1), ctx.Err()) }
		serve := func(ctx context.Context, _ int) error { time.Sleep(2 * time.Minute); return ctx.Err() }
		if err := lifespan.Run(t.Context(), life, serve, lifespan.Config{}); err != nil {
			t.Error(err)
		}
	})
}
