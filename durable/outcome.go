package durable

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// ending is how a handler has ended.
type ending struct {
	result          []byte
	err             error
	cause           error // of its context's end, if it has ended
	cancelRequested bool
}

// errNotFinished is the error of a task whose FinishTx has not happened.
var errNotFinished = errors.New("FinishTx was called, but its transaction was not committed; commit it before the handler returns")

// outcome decides what becomes of a task.
func (r *run) outcome(e *ending) Finish {
	f := Finish{Ref: r.claimed.Ref, Move: MoveSucceed}
	if e.err == nil {
		if f.Result, e.err = r.seal(e.result); e.err == nil {
			return f
		}
	}
	var (
		asleep  *snooze
		forGood *permanent
		panicky *PanicError
	)
	switch {
	case e.cancelRequested:
		f.Move, f.Error = MoveCancel, r.attemptError("cancelled", e.err)
	case errors.As(e.err, &panicky):
		f.Move, f.Error = MoveFail, r.attemptError("panic", e.err)
		f.Error.Stack = boundedText(string(panicky.Stack), maxErrorStack)
	case errors.Is(e.err, ErrGoexit):
		f.Move, f.Error = MoveFail, r.attemptError("panic", e.err)
	case errors.As(e.err, &asleep):
		f.Move, f.Delay = MoveSnooze, min(asleep.delay, maxDelay)
		return f
	case errors.Is(e.cause, ErrDraining), errors.Is(e.cause, ErrLeaseLost):
		f.Move = MoveRelease
		return f
	case errors.Is(e.err, errPayload):
		f.Move, f.Error = MoveExhaust, r.attemptError("payload", e.err)
	case errors.Is(e.cause, ErrTimeout):
		f.Move, f.Error = MoveFail, r.attemptError("timeout", e.err)
		if !errors.Is(e.err, ErrTimeout) && !errors.Is(e.err, context.DeadlineExceeded) {
			f.Error.Message = boundedText(ErrTimeout.Error()+": "+f.Error.Message, maxErrorMessage)
		}
	default:
		f.Move, f.Error = MoveFail, r.attemptError("error", e.err)
	}
	if f.Move == MoveFail {
		again := !errors.As(e.err, &forGood) && r.claimed.Attempt < r.maxAttempts()
		if again, f.Delay = r.retry(again, e.err); !again {
			f.Move = MoveExhaust
		}
	}
	return f
}

// retry asks the policy whether and when there is another attempt. Its
// functions are the user's: one that panics counts as not having been set.
func (r *run) retry(again bool, err error) (bool, time.Duration) {
	p := &r.handler.Policy
	if !again || !guarded(r, true, func() bool { return p.RetryIf(err) }) {
		return false, 0
	}
	attempt := max(1, r.claimed.Attempt)
	delay := guarded(r, -1, func() time.Duration { return max(0, p.Backoff(attempt, err)) })
	if delay < 0 {
		delay = Policy{}.withDefaults().Backoff(attempt, err)
	}
	return true, min(delay, maxDelay)
}

// guarded returns what f returns, or standard if that panics.
func guarded[T any](r *run, standard T, f func() T) (v T) {
	defer func() {
		if p := recover(); p != nil {
			r.engine.log.Error("a function of a task's policy panicked", "kind", r.claimed.Kind, "panic", p)
			v = standard
		}
	}()
	return f()
}

// seal makes of a result what is stored.
func (r *run) seal(result []byte) (sealed []byte, err error) {
	q := r.engine.q
	if sealed = result; q.cfg.Codec != nil && result != nil {
		defer func() {
			if v := recover(); v != nil {
				err = Cancel(fmt.Errorf("seal the result: panic: %v", v))
			}
		}()
		if sealed, err = q.cfg.Codec.Seal(r.claimed.Kind, result); err != nil {
			return nil, Cancel(fmt.Errorf("seal the result: %w", err))
		}
	}
	if n := len(sealed); n > q.cfg.MaxResult {
		return nil, Cancel(fmt.Errorf("the result has %d bytes, the queue takes %d: %w; store it elsewhere and return its name, or raise QueueConfig.MaxResult", n, q.cfg.MaxResult, ErrTooLarge))
	}
	return sealed, nil
}

func (r *run) attemptError(cause string, err error) *AttemptError {
	return &AttemptError{
		Attempt: r.claimed.Attempt, At: time.Now().UTC(), Cause: cause,
		Message: boundedText(err.Error(), maxErrorMessage), Node: r.engine.Node(),
	}
}

// boundedText makes text fit to be stored.
func boundedText(s string, most int) string {
	if len(s) > most {
		s = s[:most-len("…")] + "…"
	}
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}

// retriable reports whether the task may be claimed again at once.
func (r *run) retriable() bool {
	switch r.finish.Move {
	case MoveRelease:
		return true
	case MoveFail, MoveSnooze:
		return r.finish.Delay <= 0
	}
	return false
}

// simplify makes an outcome that the store has refused one that it may take.
func (r *run) simplify(refused error) {
	f := &r.finish
	if f.Move == MoveSucceed {
		r.err = fmt.Errorf("the store refuses the result: %w", refused)
		f.Move, f.Result, f.Error = MoveExhaust, nil, r.attemptError("error", r.err)
		return
	}
	if f.Error != nil {
		f.Error.Stack = ""
		f.Error.Message = "the store refuses the error's text"
	}
}

// confirm settles a run whose handler has called FinishTx: by that
// transaction, if it was committed, which it reports. It asks until the store
// answers.
func (r *run) confirm(e *ending) bool {
	eng := r.engine
	wait := setbackFirst
	for {
		ctx, cancel := context.WithTimeout(eng.life, eng.q.cfg.CommitTimeout)
		done, err := eng.q.store.Finished(ctx, r.boot, r.claimed.Ref)
		cancel()
		switch {
		case err == nil && done:
			r.err = e.err
			r.finish = Finish{Ref: r.claimed.Ref, Move: MoveSucceed}
			eng.settleOutside(r)
			return true
		case err == nil:
			if e.err == nil {
				e.err = errNotFinished
			}
			return false
		case eng.life.Err() != nil:
			return false
		}
		select {
		case <-eng.life.Done():
		case <-time.After(wait):
		}
		wait = min(2*wait, setbackMost)
	}
}

// settleOutside frees the place of a run whose outcome somebody else committed.
func (e *Engine) settleOutside(r *run) {
	r.progress.finish()
	r.progress.end()
	r.counted = true
	e.mu.Lock()
	e.forget(r)
	next := e.quarantine.next()
	e.checkEmpty()
	e.mu.Unlock()
	if next != nil {
		e.launch(next)
	}
	e.announce(r)
	e.q.waits.wake(r.claimed.Ref.ID)
	e.q.batcher.kick()
}
