package durable_test

import (
	"context"
	"errors"
	"math"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/wake-go/wake/durable"
)

func TestATaskRuns(t *testing.T) {
	inBubble(t, func(b *bed) {
		var got string
		var info durable.Info
		b.run(durable.EngineConfig{}, handler(func(ctx context.Context, arg string) error {
			got = arg
			info, _ = durable.InfoFrom(ctx)
			if durable.QueueFrom(ctx) != b.q {
				t.Error("the task's context does not have its queue")
			}
			return nil
		}))
		id := b.add(work.With("a").Tags("x"))
		task := b.wantState(id, durable.Succeeded)
		if got != "a" {
			t.Errorf("the handler got %q", got)
		}
		if info.ID != id || info.Kind != "work" || info.Attempt != 1 || info.MaxAttempts != 15 || info.Queue != "default" || info.Node == "" || info.Node != task.Node {
			t.Errorf("info is %+v", info)
		}
	})
}

// An outcomeCase is a handler and what becomes of its task.
type outcomeCase struct {
	run     func(ctx context.Context, attempt int) error
	opts    []durable.Option
	state   durable.State
	attempt int
	cause   string
	message string
	moves   []durable.Move
}

func outcomeCases() map[string]outcomeCase {
	odd := errors.New("odd\x00\xff")
	return map[string]outcomeCase{
		"an error is tried again": {
			run: func(_ context.Context, attempt int) error {
				if attempt < 3 {
					return odd
				}
				return nil
			},
			state: durable.Succeeded, attempt: 3, cause: "error", message: "odd\uFFFD\uFFFD",
			moves: []durable.Move{durable.MoveFail, durable.MoveFail, durable.MoveSucceed},
		},
		"attempts end": {
			run:  func(context.Context, int) error { return odd },
			opts: []durable.Option{durable.MaxAttempts(2)}, state: durable.Dead, attempt: 2, cause: "error", message: "odd",
			moves: []durable.Move{durable.MoveFail, durable.MoveExhaust},
		},
		"Cancel": {
			run:   func(context.Context, int) error { return durable.Cancel(odd) },
			state: durable.Dead, attempt: 1, cause: "error", message: "odd", moves: []durable.Move{durable.MoveExhaust},
		},
		"RetryIf": {
			run:   func(context.Context, int) error { return odd },
			opts:  []durable.Option{durable.RetryIf(func(err error) bool { return !errors.Is(err, odd) })},
			state: durable.Dead, attempt: 1, cause: "error", message: "odd", moves: []durable.Move{durable.MoveExhaust},
		},
		"a RetryIf that panics counts as none": {
			run:   func(context.Context, int) error { return odd },
			opts:  []durable.Option{durable.RetryIf(func(error) bool { panic("no") }), durable.MaxAttempts(2)},
			state: durable.Dead, attempt: 2, cause: "error", message: "odd", moves: []durable.Move{durable.MoveFail, durable.MoveExhaust},
		},
		"a panic": {
			run:  func(context.Context, int) error { panic("oh") },
			opts: []durable.Option{durable.MaxAttempts(1)}, state: durable.Dead, attempt: 1, cause: "panic", message: "panic: oh",
			moves: []durable.Move{durable.MoveExhaust},
		},
		"Goexit": {
			run:  func(context.Context, int) error { runtime.Goexit(); return nil },
			opts: []durable.Option{durable.MaxAttempts(1)}, state: durable.Dead, attempt: 1, cause: "panic", message: "runtime.Goexit",
			moves: []durable.Move{durable.MoveExhaust},
		},
		"a snooze costs no attempt": {
			run: func() func(context.Context, int) error {
				n := 0
				return func(context.Context, int) error {
					if n++; n < 4 {
						return durable.Snooze(time.Minute)
					}
					return nil
				}
			}(),
			opts: []durable.Option{durable.MaxAttempts(1)}, state: durable.Succeeded, attempt: 1,
			moves: []durable.Move{durable.MoveSnooze, durable.MoveSnooze, durable.MoveSnooze, durable.MoveSucceed},
		},
		"a timeout, whatever the handler says": {
			run: func(ctx context.Context, _ int) error {
				<-ctx.Done()
				if !errors.Is(context.Cause(ctx), durable.ErrTimeout) {
					return errors.New("wrong cause")
				}
				return odd
			},
			opts:  []durable.Option{durable.Timeout(time.Second), durable.MaxAttempts(1)},
			state: durable.Dead, attempt: 1, cause: "timeout", message: durable.ErrTimeout.Error(), moves: []durable.Move{durable.MoveExhaust},
		},
		"a timeout that the handler overcomes": {
			run:   func(ctx context.Context, _ int) error { <-ctx.Done(); return nil },
			opts:  []durable.Option{durable.Timeout(time.Second)},
			state: durable.Succeeded, attempt: 1, moves: []durable.Move{durable.MoveSucceed},
		},
	}
}

// TestOutcomes runs a handler once, or until its task rests.
func TestOutcomes(t *testing.T) {
	for name, c := range outcomeCases() {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(b *bed) {
				kind := durable.Declare[string]("work", c.opts...)
				b.run(durable.EngineConfig{}, kind.Run(func(ctx context.Context, _ string) error {
					info, _ := durable.InfoFrom(ctx)
					return c.run(ctx, info.Attempt)
				}))
				id := b.add(kind.With(""))
				rest(10 * time.Minute)
				task := b.wantState(id, c.state)
				if task.Attempt != c.attempt {
					t.Errorf("attempt %d, want %d", task.Attempt, c.attempt)
				}
				if c.cause != "" {
					last := task.Errors[len(task.Errors)-1]
					if last.Cause != c.cause || !strings.Contains(last.Message, c.message) {
						t.Errorf("the error is %+v, want cause %q and message %q", last, c.cause, c.message)
					}
					if c.cause == "panic" && name == "a panic" && !strings.Contains(last.Stack, "outcome_test.go") {
						t.Errorf("the stack does not show where: %s", last.Stack)
					}
				}
				var moves []durable.Move
				for _, ev := range of[durable.TaskFinished](b.events) {
					moves = append(moves, ev.Move)
				}
				if len(moves) != len(c.moves) {
					t.Fatalf("moves %v, want %v", moves, c.moves)
				}
				for i := range moves {
					if moves[i] != c.moves[i] {
						t.Errorf("moves %v, want %v", moves, c.moves)
					}
				}
			})
		})
	}
}

func TestATaskThatIsReadyAgainRunsAtOnce(t *testing.T) {
	inBubble(t, func(b *bed) {
		b.faults.deaf = true
		n := 0
		b.run(durable.EngineConfig{Poll: time.Hour}, handler(func(context.Context, string) error {
			if n++; n < 3 {
				return durable.Snooze(0)
			}
			return nil
		}))
		b.wantState(b.add(work.With("")), durable.Succeeded)
	})
}

func TestBackoffIsWaitedFor(t *testing.T) {
	inBubble(t, func(b *bed) {
		kind := durable.Declare[string]("work", durable.WithBackoff(func(n int, _ error) time.Duration { return time.Duration(n) * time.Hour }))
		start := time.Now()
		var at []time.Duration
		b.run(durable.EngineConfig{}, kind.Run(func(context.Context, string) error {
			at = append(at, time.Since(start).Round(time.Second))
			if len(at) < 3 {
				return errors.New("again")
			}
			return nil
		}))
		id := b.add(kind.With(""))
		rest(5 * time.Hour)
		b.wantState(id, durable.Succeeded)
		if len(at) != 3 || at[1] != time.Hour || at[2] != 3*time.Hour {
			t.Errorf("it ran at %v", at)
		}
	})
}

func TestTheRowsOwnLimitsWin(t *testing.T) {
	inBubble(t, func(b *bed) {
		kind := durable.Declare[string]("work", durable.MaxAttempts(9), durable.Timeout(time.Hour))
		var limits []time.Duration
		b.run(durable.EngineConfig{}, kind.Run(func(ctx context.Context, _ string) error {
			deadline, _ := ctx.Deadline()
			limits = append(limits, time.Until(deadline))
			return errors.New("no")
		}))
		id := b.add(kind.With("").MaxAttempts(2).Timeout(time.Minute))
		rest(time.Hour)
		if task := b.wantState(id, durable.Dead); task.Attempt != 2 {
			t.Errorf("it had %d attempts", task.Attempt)
		}
		if limits[0] != time.Minute {
			t.Errorf("its limit was %v", limits[0])
		}
	})
}

func TestAnAliasIsClaimedAndRun(t *testing.T) {
	inBubble(t, func(b *bed) {
		before := durable.Declare[string]("old name")
		id := b.add(before.With("a"))
		now := durable.Declare[string]("new name", durable.Aliases("old name"))
		b.run(durable.EngineConfig{}, now.Run(nothing))
		b.wantState(id, durable.Succeeded)
	})
}

func TestAPayloadThatDoesNotFitIsDeadAtOnce(t *testing.T) {
	inBubble(t, func(b *bed) {
		id := b.add(durable.Declare[int]("work").With(7))
		b.run(durable.EngineConfig{}, handler(nothing))
		task := b.wantState(id, durable.Dead)
		if e := task.Errors[0]; e.Cause != "payload" || task.Attempt != 1 {
			t.Errorf("error %+v", e)
		}
	})
}

func TestAnUnknownKindIsLeftAlone(t *testing.T) {
	inBubble(t, func(b *bed) {
		id := b.add(durable.Declare[int]("other").With(7))
		b.run(durable.EngineConfig{}, handler(nothing))
		rest(time.Minute)
		b.wantState(id, durable.Ready)
	})
}

func TestResults(t *testing.T) {
	inBubble(t, func(b *bed) {
		double := durable.DeclareResult[int, int]("double")
		big := durable.DeclareResult[int, string]("big", durable.MaxAttempts(3))
		odd := durable.DeclareResult[int, any]("odd", durable.MaxAttempts(3))
		b.run(durable.EngineConfig{},
			double.Run(func(_ context.Context, n int) (int, error) { return 2 * n, nil }),
			big.Run(func(context.Context, int) (string, error) { return strings.Repeat("x", 2<<20), nil }),
			odd.Run(func(context.Context, int) (any, error) { return func() {}, nil }),
		)
		if n, err := double.Wait(b.ctx, b.q, b.add(double.With(21))); n != 42 || err != nil {
			t.Errorf("the result is %d, %v", n, err)
		}
		_, err := big.Wait(b.ctx, b.q, b.add(big.With(0)))
		var failed *durable.FailedError
		if !errors.As(err, &failed) || failed.Task.Attempt != 1 || !strings.Contains(failed.Task.Errors[0].Message, "MaxResult") {
			t.Errorf("a result over the bound: %v", err)
		}
		if _, err := odd.Wait(b.ctx, b.q, b.add(odd.With(0))); !errors.As(err, &failed) || !strings.Contains(err.Error(), "encode the result") {
			t.Errorf("a result that cannot be encoded: %v", err)
		}
	})
}

func TestALongErrorIsShortened(t *testing.T) {
	inBubble(t, func(b *bed) {
		b.run(durable.EngineConfig{}, handler(func(context.Context, string) error {
			return durable.Cancel(errors.New(strings.Repeat("ä", 10_000)))
		}))
		task := b.wantState(b.add(work.With("")), durable.Dead)
		if m := task.Errors[0].Message; len(m) > 4<<10+3 || len(m) < 4<<10-8 {
			t.Errorf("a message of %d bytes is kept", len(m))
		}
	})
}

func TestCancel(t *testing.T) {
	for name, c := range map[string]struct {
		after error
		state durable.State
	}{
		"a handler that gives in":    {errors.New("well then"), durable.Cancelled},
		"a handler that finishes":    {nil, durable.Succeeded},
		"a handler that would sleep": {durable.Snooze(time.Hour), durable.Cancelled},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(b *bed) {
				b.run(durable.EngineConfig{}, handler(func(ctx context.Context, _ string) error {
					<-ctx.Done()
					if !errors.Is(context.Cause(ctx), durable.ErrCancelled) {
						t.Errorf("the cause is %v", context.Cause(ctx))
					}
					return c.after
				}))
				id := b.add(work.With(""))
				b.wantState(id, durable.Running)
				start := time.Now()
				if state, err := b.q.Cancel(b.ctx, id); state != durable.Running || err != nil {
					t.Fatalf("cancel: %v, %v", state, err)
				}
				b.wantState(id, c.state)
				if took := time.Since(start); took > time.Second {
					t.Errorf("the task heard of it after %v", took)
				}
				finished := of[durable.TaskFinished](b.events)
				if len(finished) != 1 || !finished[0].CancelRequested || (finished[0].Move == durable.MoveCancel) != (c.state == durable.Cancelled) {
					t.Errorf("events %+v", finished)
				}
			})
		})
	}
}

func TestHardTimeout(t *testing.T) {
	inBubble(t, func(b *bed) {
		kind := durable.Declare[string]("work", durable.HardTimeout(time.Minute), durable.MaxAttempts(1))
		release := make(chan struct{})
		b.run(durable.EngineConfig{Queues: map[string]int{"default": 1}}, kind.Run(func(_ context.Context, arg string) error {
			if arg == "stuck" {
				<-release
			}
			return nil
		}))
		stuck := b.add(kind.With("stuck"))
		next := b.add(kind.With("next"))
		rest(time.Minute)
		task := b.wantState(stuck, durable.Dead)
		if e := task.Errors[0]; e.Cause != "timeout" || !strings.Contains(e.Stack, "TestHardTimeout") {
			t.Errorf("the error is %+v", e)
		}
		b.wantState(next, durable.Succeeded)
		if n := len(of[durable.TaskStuck](b.events)); n != 1 || !strings.Contains(b.log.String(), "does not return") {
			t.Errorf("%d events; log %s", n, b.log)
		}
		close(release)
		rest(time.Second)
		b.wantState(stuck, durable.Dead) // the late result counts for nothing
	})
}

func TestExponentialDoesNotOverflow(t *testing.T) {
	for _, backoff := range []func(int, error) time.Duration{
		durable.Exponential(time.Second, math.MaxInt64), durable.Exponential(math.MaxInt64, math.MaxInt64),
	} {
		for range 100 {
			if d := backoff(10_000, nil); d < 365*24*time.Hour {
				t.Fatalf("the 10,000th wait is %v", d)
			}
		}
	}
}
