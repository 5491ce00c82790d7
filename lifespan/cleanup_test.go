package lifespan_test

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/wake-go/wake/lifespan"
)

func TestCleanUpThatFailsIsACleaningError(t *testing.T) {
	life := func(ctx context.Context, yield func(int) error) error { return errors.Join(yield(1), errClean) }
	err := lifespan.Run(t.Context(), life, serveAndEnd, lifespan.Config{})
	wantError(t, err, lifespan.Cleaning, errClean)
}

func TestCleanUpThatPanicsOrGoesAwayIsACleaningError(t *testing.T) {
	panics := func(ctx context.Context, yield func(int) error) error { _ = yield(1); panic(errClean) }
	wantError(t, lifespan.Run(t.Context(), panics, serveAndEnd, lifespan.Config{}), lifespan.Cleaning, errClean)
	goes := func(ctx context.Context, yield func(int) error) error { _ = yield(1); runtime.Goexit(); return nil }
	wantError(t, lifespan.Run(t.Context(), goes, serveAndEnd, lifespan.Config{}), lifespan.Cleaning, lifespan.ErrGoexit)
}

func TestCleanUpThatHangsIsCancelledAtItsLimit(t *testing.T) {
	bubble(t, func(t *testing.T) {
		began := time.Now()
		life := func(ctx context.Context, yield func(int) error) error {
			err := yield(1)
			<-ctx.Done()
			wantIs(t, context.Cause(ctx), lifespan.ErrStopTimeout)
			return errors.Join(err, errClean)
		}
		err := lifespan.Run(t.Context(), life, serveAndEnd, lifespan.Config{})
		wantTook(t, began, 10*time.Second)
		wantError(t, err, lifespan.Cleaning, lifespan.ErrStopTimeout, errClean)
		if !strings.Contains(err.Error(), "cleanup_test.go:") {
			t.Errorf("the error %q does not tell the place", err)
		}
	})
}

func TestCleanUpThatReturnsItsContextsErrorSaysOnlyThatItWasTooLong(t *testing.T) {
	bubble(t, func(t *testing.T) {
		life := func(ctx context.Context, yield func(int) error) error { _ = yield(1); <-ctx.Done(); return ctx.Err() }
		err := lifespan.Run(t.Context(), life, serveAndEnd, lifespan.Config{})
		wantError(t, err, lifespan.Cleaning, lifespan.ErrStopTimeout)
		wantNot(t, err, context.Canceled)
	})
}

func TestCleanUpThatHangsAndIgnoresItsContextIsAbandonedWithItsStack(t *testing.T) {
	bubble(t, func(t *testing.T) {
		began := time.Now()
		never := make(chan struct{})
		var j journal
		life := func(ctx context.Context, yield func(int) error) error { err := yield(1); <-never; return err }
		err := lifespan.Run(t.Context(), life, serveAndEnd, lifespan.Config{OnEvent: j.all})
		wantTook(t, began, 12*time.Second)
		wantError(t, err, lifespan.Cleaning, lifespan.ErrStopTimeout)
		if stuck := as[*lifespan.StuckError](t, err); !stuck.Abandoned || !strings.Contains(string(stuck.Stack), "TestCleanUpThatHangs") {
			t.Errorf("abandoned %v, stack:\n%s", stuck.Abandoned, stuck.Stack)
		}
		j.want(t, "starting, ready, cleaning, abandoned cleaning, stopped")
		close(never)
	})
}

func TestTheErrorsOfAllPhasesAreJoined(t *testing.T) {
	life := func(ctx context.Context, yield func(int) error) error { return errors.Join(yield(1), errClean) }
	serve := func(ctx context.Context, _ int) error {
		lifespan.MarkReady(ctx)
		return errors.Join(errBoom, &lifespan.Error{Phase: lifespan.Draining, Err: errors.New("mail 17")})
	}
	err := lifespan.Run(t.Context(), life, serve, lifespan.Config{})
	if got, want := err.Error(), "serving failed: boom\nwork abandoned: mail 17\nclean-up failed: clean-up boom"; got != want {
		t.Errorf("the error reads %q, want %q", got, want)
	}
	wantIs(t, err, errBoom, errClean)
}

func TestExitCodeOfSeveralErrorsIsThatOfTheEarliestPhase(t *testing.T) {
	of := func(p lifespan.Phase) error { return &lifespan.Error{Phase: p, Err: errBoom} }
	nested := &lifespan.Error{Phase: lifespan.Ready, Err: of(lifespan.Starting)}
	for _, test := range []struct {
		err  error
		want int
	}{
		{nil, lifespan.ExitOK},
		{errBoom, lifespan.ExitServe},
		{of(lifespan.Starting), lifespan.ExitStart},
		{of(lifespan.Ready), lifespan.ExitServe},
		{of(lifespan.Draining), lifespan.ExitAbandoned},
		{of(lifespan.Cleaning), lifespan.ExitCleanup},
		{errors.Join(of(lifespan.Cleaning), of(lifespan.Draining)), lifespan.ExitAbandoned},
		{errors.Join(errClean, of(lifespan.Cleaning)), lifespan.ExitCleanup},
		{errors.Join(of(lifespan.Cleaning), of(lifespan.Starting)), lifespan.ExitStart},
		{nested, lifespan.ExitServe},
	} {
		if got := lifespan.ExitCode(test.err); got != test.want {
			t.Errorf("ExitCode(%v) = %d, want %d", test.err, got, test.want)
		}
	}
}
