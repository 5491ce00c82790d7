package lifespan_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wake-go/wake/lifespan"
)

// untilTold is a part that waits for its end and notes it.
func (j *journal) untilTold(name string) func(context.Context) error {
	return func(ctx context.Context) error {
		<-ctx.Done()
		j.add(name + " ends")
		return ctx.Err()
	}
}

func TestPartsEndAfterServeAndBeforeYieldReturns(t *testing.T) {
	var j journal
	life := func(ctx context.Context, yield func(int) error) error {
		lifespan.Go(context.WithValue(ctx, contextKey{}, 1), "a", func(ctx context.Context) error {
			if ctx.Value(contextKey{}) != 1 {
				t.Error("the values of Go's context are lost")
			}
			return j.untilTold("a")(ctx)
		})
		err := yield(1)
		j.add("clean up")
		return err
	}
	serve := func(ctx context.Context, _ int) error {
		lifespan.MarkReady(ctx)
		lifespan.Stop(ctx, nil)
		<-ctx.Done()
		j.add("serve ends")
		return nil
	}
	if err := lifespan.Run(t.Context(), life, serve, lifespan.Config{OnEvent: j.all}); err != nil {
		t.Error(err)
	}
	j.want(t, "starting, ready, draining, serve ends, cleaning, a ends, part a, clean up, stopped")
}

func TestAPartThatEndsWithoutErrorIsJustFinished(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var j journal
		serve := func(ctx context.Context, _ int) error {
			lifespan.MarkReady(ctx)
			lifespan.Go(ctx, "short", func(context.Context) error { return nil })
			synctest.Wait()
			if ctx.Err() != nil {
				t.Error("the application stops")
			}
			return nil
		}
		if err := lifespan.Run(t.Context(), lifespan.Fixed(1), serve, lifespan.Config{OnEvent: j.all}); err != nil {
			t.Error(err)
		}
		j.want(t, "starting, ready, part short, cleaning, stopped")
	})
}

func TestAPartThatFailsWhileServingStopsTheApplication(t *testing.T) {
	for name, end := range map[string]func() error{
		"error":  func() error { return errBoom },
		"panic":  func() error { panic(errBoom) },
		"Goexit": func() error { runtime.Goexit(); return nil },
	} {
		t.Run(name, func(t *testing.T) {
			var j journal
			serve := func(ctx context.Context, _ int) error {
				lifespan.MarkReady(ctx)
				lifespan.Go(ctx, "refresh", func(context.Context) error { return end() })
				<-ctx.Done()
				return nil
			}
			life := func(ctx context.Context, yield func(int) error) error {
				err := yield(1)
				wantError(t, err, lifespan.Ready)
				return err
			}
			err := lifespan.Run(t.Context(), life, serve, lifespan.Config{OnEvent: j.all})
			wantError(t, err, lifespan.Ready)
			if !errors.Is(err, errBoom) && !errors.Is(err, lifespan.ErrGoexit) || !strings.Contains(err.Error(), `part "refresh": `) {
				t.Errorf("the error is %v", err)
			}
			j.want(t, "starting, ready, part refresh, draining, cleaning, stopped")
		})
	}
}

func TestAPartThatFailsDuringSetUpInterruptsIt(t *testing.T) {
	life := func(ctx context.Context, yield func(int) error) error {
		lifespan.Go(ctx, "a", func(context.Context) error { return errBoom })
		<-ctx.Done()
		wantIs(t, context.Cause(ctx), errBoom)
		return ctx.Err()
	}
	err := lifespan.Run(t.Context(), life, neverServe[int](t), lifespan.Config{})
	wantError(t, err, lifespan.Starting, errBoom)
}

func TestPartsEndWhenSetUpFails(t *testing.T) {
	var j journal
	life := func(ctx context.Context, yield func(int) error) error {
		lifespan.Go(ctx, "a", j.untilTold("a"))
		return errBoom
	}
	err := lifespan.Run(t.Context(), life, neverServe[int](t), lifespan.Config{OnEvent: j.all})
	wantError(t, err, lifespan.Starting, errBoom)
	j.want(t, "starting, cleaning, a ends, part a, stopped")
}

func TestAPartThatFailsWhenToldToEndIsACleaningError(t *testing.T) {
	life := func(ctx context.Context, yield func(int) error) error {
		lifespan.Go(ctx, "a", func(ctx context.Context) error { <-ctx.Done(); return errClean })
		return yield(1)
	}
	err := lifespan.Run(t.Context(), life, serveAndEnd, lifespan.Config{})
	wantError(t, err, lifespan.Cleaning, errClean)
}

func TestAPartThatIgnoresItsContextIsReportedByNameAndCleanUpGoesOn(t *testing.T) {
	bubble(t, func(t *testing.T) {
		began := time.Now()
		never := make(chan struct{})
		var j journal
		life := func(ctx context.Context, yield func(int) error) error {
			lifespan.Go(ctx, "stubborn", func(context.Context) error { <-never; return nil })
			err := yield(1)
			if ctx.Err() != nil {
				t.Error("the part took clean-up's time")
			}
			j.add("clean up")
			return err
		}
		err := lifespan.Run(t.Context(), life, serveAndEnd, lifespan.Config{OnEvent: j.all})
		wantTook(t, began, 10*time.Second)
		wantError(t, err, lifespan.Cleaning, lifespan.ErrStopTimeout)
		if !strings.Contains(err.Error(), `part "stubborn"`) || !strings.Contains(err.Error(), "part_test.go:") {
			t.Errorf("the error %q does not tell the part and the place", err)
		}
		j.want(t, "starting, ready, cleaning, abandoned cleaning, clean up, stopped")
		close(never)
	})
}

func TestAPartThatComesTooLateIsNotStartedAndReported(t *testing.T) {
	var events []lifespan.PartEnded
	life := func(ctx context.Context, yield func(int) error) error {
		err := yield(1)
		lifespan.Go(ctx, "late", func(context.Context) error { t.Error("it was started"); return nil })
		return err
	}
	onEvent := func(e lifespan.Event) {
		if p, ok := e.(lifespan.PartEnded); ok {
			events = append(events, p)
		}
	}
	if err := lifespan.Run(t.Context(), life, serveAndEnd, lifespan.Config{OnEvent: onEvent}); err != nil {
		t.Error(err)
	}
	if len(events) != 1 || events[0].Name != "late" || !errors.Is(events[0].Err, lifespan.ErrStopped) {
		t.Errorf("the events are %v", events)
	}
}

func TestPartsMayStartParts(t *testing.T) {
	var j journal
	serve := func(ctx context.Context, _ int) error {
		lifespan.MarkReady(ctx)
		started := make(chan struct{})
		lifespan.Go(ctx, "a", func(ctx context.Context) error {
			lifespan.Go(ctx, "b", func(ctx context.Context) error { close(started); return j.untilTold("b")(ctx) })
			return nil
		})
		<-started
		return nil
	}
	if err := lifespan.Run(t.Context(), lifespan.Fixed(1), serve, lifespan.Config{}); err != nil {
		t.Error(err)
	}
	j.want(t, "b ends")
}

func TestAPartThatEndsAfterItWasAbandonedChangesNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		never := make(chan struct{})
		var j journal
		life := func(ctx context.Context, yield func(int) error) error {
			lifespan.Go(ctx, "stubborn", func(context.Context) error { <-never; return errBoom })
			err := yield(1)
			close(never)
			synctest.Wait()
			return err
		}
		err := lifespan.Run(t.Context(), life, serveAndEnd, lifespan.Config{OnEvent: j.all})
		wantError(t, err, lifespan.Cleaning, lifespan.ErrStopTimeout)
		wantNot(t, err, errBoom)
		j.want(t, "starting, ready, cleaning, abandoned cleaning, stopped")
	})
}

func TestWhatAPartReturnsBesideItsContextsErrorIsKept(t *testing.T) {
	life := func(ctx context.Context, yield func(int) error) error {
		lifespan.Go(ctx, "a", func(ctx context.Context) error {
			<-ctx.Done()
			return errors.Join(fmt.Errorf("receive: %w", ctx.Err()), errClean)
		})
		return yield(1)
	}
	err := lifespan.Run(t.Context(), life, serveAndEnd, lifespan.Config{})
	wantError(t, err, lifespan.Cleaning, errClean)
	wantNot(t, err, context.Canceled)
}
