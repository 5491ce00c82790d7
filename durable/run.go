package durable

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"
)

// A run is one claim of one task, from the claim to the commit of its outcome.
type run struct {
	engine  *Engine
	handler *Handler
	claimed Claimed
	group   *group
	boot    Boot
	waited  time.Duration // between its being ready and its claim
	ctx     context.Context
	cancel  context.CancelCauseFunc

	progress progress

	mu              sync.Mutex
	over            bool // its outcome is decided
	cancelRequested bool
	finishCalled    bool // by FinishTx
	goroutine       string
	began           time.Time
	hard            *time.Timer

	// The outcome, written before it is handed to the batcher.
	finish  Finish
	err     error
	took    time.Duration
	counted bool // the store has taken it
}

func newRun(e *Engine, h *Handler, t *Claimed, g *group, boot Boot, now time.Time) *run {
	r := &run{engine: e, handler: h, claimed: *t, group: g, boot: boot, waited: max(0, now.Sub(t.RunAt))}
	r.finish.Ref = t.Ref
	ctx, cancel := context.WithCancelCause(context.Background())
	r.ctx, r.cancel = &taskContext{Context: ctx, run: r}, cancel
	r.began = time.Now()
	return r
}

func (r *run) info() Info {
	t := &r.claimed
	return Info{
		ID: t.Ref.ID, Kind: t.Kind, Queue: t.Queue, Attempt: t.Attempt, MaxAttempts: r.maxAttempts(),
		Crashes: t.Crashes, Key: t.Key, Tags: t.Tags, CreatedAt: t.CreatedAt, Meta: t.Meta, Node: r.engine.Node(),
	}
}

func (r *run) maxAttempts() int {
	if r.claimed.MaxAttempts > 0 {
		return r.claimed.MaxAttempts
	}
	return r.handler.Policy.MaxAttempts
}

// timeout returns the time limit of the attempt; what its row says comes
// before the policy.
func (r *run) timeout() time.Duration {
	if r.claimed.Timeout != 0 {
		return r.claimed.Timeout
	}
	return r.handler.Policy.Timeout
}

// launch starts a run where its lane wants it.
func (e *Engine) launch(r *run) {
	if why := e.tooLate(r); why != nil {
		r.abandon(Finish{Ref: r.claimed.Ref, Move: MoveRelease}, why)
		return
	}
	if e.cfg.OnEvent != nil {
		e.emit(TaskStarted{Info: r.info(), Waited: r.waited})
	}
	if lane := r.handler.Policy.Lane; lane != "" {
		e.cfg.Lanes[lane].Go(r.work)
	} else {
		go r.work()
	}
}

// tooLate returns why a run does not begin: it was claimed while the engine
// began to drain, or lost its lease.
func (e *Engine) tooLate(r *run) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.leaseless || r.boot != e.boot:
		return ErrLeaseLost
	case e.phase != working:
		return ErrDraining
	}
	return nil
}

// work runs the task in this goroutine.
func (r *run) work() {
	r.begin()
	var (
		result   []byte
		err      error
		returned bool
	)
	defer func() {
		if !returned {
			err = ErrGoexit
		}
		r.end(result, err)
	}()
	result, err = r.call()
	returned = true
}

func (r *run) begin() {
	id := goroutineID()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.goroutine, r.began = id, time.Now()
	if d := r.handler.Policy.HardTimeout; d > 0 && !r.over {
		r.hard = time.AfterFunc(d, r.hardTimeout)
	}
}

// call calls the handler and turns a panic into an error.
func (r *run) call() (result []byte, err error) {
	defer func() {
		if v := recover(); v != nil {
			result, err = nil, &PanicError{Value: v, Stack: debug.Stack()}
		}
	}()
	defer func() {
		if err != nil {
			_ = err.Error() // one that panics does so here, where that is its own affair
		}
	}()
	payload, err := r.engine.q.opened(r.claimed.Kind, r.claimed.Payload)
	if err != nil {
		return nil, fmt.Errorf("%w: open it: %w", errPayload, err)
	}
	ctx := r.ctx
	if hook := r.engine.cfg.Context; hook != nil {
		ctx = hook(ctx, &r.claimed)
	}
	if d := r.timeout(); d > 0 {
		limited, cancel := context.WithTimeoutCause(ctx, d, ErrTimeout)
		defer cancel()
		result, err = r.handler.Run(limited, payload)
		if limited.Err() != nil && r.ctx.Err() == nil {
			r.cancel(ErrTimeout) // for end, which asks for the cause
		}
		return result, err
	}
	return r.handler.Run(ctx, payload)
}

// stop ends the context of the run for a reason.
func (r *run) stop(why error) {
	r.mu.Lock()
	if errors.Is(why, ErrCancelled) {
		r.cancelRequested = true
	}
	r.mu.Unlock()
	r.cancel(why)
}

// lose ends the context of a run that is not this process's any more.
func (r *run) lose() { r.stop(ErrLeaseLost) }

// end decides and hands over the outcome of a handler that has returned.
func (r *run) end(result []byte, err error) {
	r.mu.Lock()
	late := r.over
	r.over = true
	r.took = time.Since(r.began)
	called := r.finishCalled
	if r.hard != nil {
		r.hard.Stop()
	}
	ending := ending{result: result, err: err, cause: context.Cause(r.ctx), cancelRequested: r.cancelRequested}
	r.mu.Unlock()
	r.cancel(context.Canceled)
	if late {
		r.engine.unstick(r)
		return
	}
	if called && r.confirm(&ending) {
		return
	}
	r.err = ending.err
	r.finish = r.outcome(&ending)
	r.handOver()
}

// abandon decides the outcome of a run that has not returned, or not begun. It
// reports false if that has been decided already.
func (r *run) abandon(f Finish, why error) bool {
	r.mu.Lock()
	if r.over {
		r.mu.Unlock()
		return false
	}
	r.over = true
	r.finish, r.err, r.took = f, why, time.Since(r.began)
	r.mu.Unlock()
	r.cancel(why)
	r.handOver()
	return true
}

// handOver gives the outcome to the batcher, after the last progress: the
// store refuses progress of what has finished.
func (r *run) handOver() {
	b := r.engine.q.batcher
	switch r.progress.finish() {
	case progressIdle:
		b.finish(r)
	case progressLeft:
		b.report(r)
	case progressFlying: // its end hands the outcome over
	}
}

// hardTimeout gives the run up: its worker goes on to other tasks.
func (r *run) hardTimeout() {
	limit := r.handler.Policy.HardTimeout
	err := fmt.Errorf("%w: it has not returned within its hard limit of %v", ErrTimeout, limit)
	r.mu.Lock()
	id := r.goroutine
	r.mu.Unlock()
	e := r.engine
	stack := goroutineStacks()[id]
	e.stick(r)
	f := r.outcome(&ending{err: err, cause: ErrTimeout})
	f.Error.Stack = boundedText(stack, maxErrorStack)
	if !r.abandon(f, err) {
		e.unstick(r)
		return
	}
	e.emit(TaskStuck{Info: r.info(), Took: limit, Stack: stack})
}

func (e *Engine) stick(r *run) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.stuck[r] = struct{}{}
}

func (e *Engine) unstick(r *run) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.stuck, r)
	e.checkEmpty()
}
