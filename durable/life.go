package durable

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Run starts the engine and works until ctx ends, then drains it for
// EngineConfig.DrainTimeout. It returns the error of [Engine.Start] or of
// [Engine.Drain].
func (e *Engine) Run(ctx context.Context) error {
	if err := e.Start(ctx); err != nil {
		return err
	}
	<-ctx.Done()
	limited, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), e.cfg.DrainTimeout, ErrDraining)
	defer cancel()
	return e.Drain(limited)
}

// Start makes the process known to the store, takes back what its predecessors
// have left, and begins to run tasks. It returns once the store has answered,
// or ctx has ended; what the engine does then does not depend on ctx. An
// engine can be started once.
func (e *Engine) Start(ctx context.Context) error {
	e.mu.Lock()
	if e.phase != created {
		e.mu.Unlock()
		return errors.New("durable: the engine has been started before; make another one")
	}
	e.phase = working
	e.leaseless = true // until it has joined
	e.mu.Unlock()
	if err := e.q.batcher.attach(e); err != nil {
		e.halt()
		return err
	}
	if err := e.join(ctx); err != nil {
		e.halt()
		return fmt.Errorf("durable: start the engine: %w", err)
	}
	e.comeRound()
	for _, loop := range []func(){e.claimLoop, e.beatLoop, e.upkeepLoop, e.pruneLoop, func() { e.scheduler.run(e.life) }} {
		e.loops.Go(loop)
	}
	return nil
}

// halt ends the engine's own goroutines.
func (e *Engine) halt() {
	e.mu.Lock()
	e.phase = stopped
	if e.leaseEnd != nil {
		e.leaseEnd.Stop()
	}
	e.mu.Unlock()
	e.end()
	e.loops.Wait()
	e.q.batcher.detach(e)
}

// Drain stops the engine: it claims nothing more and lets running tasks end.
// When ctx ends first, their contexts end with [ErrDraining], and Drain waits
// another EngineConfig.Grace for them to return. A task whose handler returns
// an error then goes back to the queue, at no cost; so does one that has not
// returned, but its goroutine cannot be ended from outside and goes on: the
// [*AbandonedError] names it, with its stack.
//
// Outcomes that the store does not take within the grace are left to the
// queue, see [Queue.Close]; an error says so. A second call returns an error
// that matches [ErrClosed].
func (e *Engine) Drain(ctx context.Context) error {
	e.mu.Lock()
	if e.phase != working {
		e.mu.Unlock()
		return fmt.Errorf("durable: drain the engine: %w", ErrClosed)
	}
	e.phase = draining
	e.mu.Unlock()

	quiet := e.awaitClaims()
	e.mu.Lock()
	e.empty = make(chan struct{})
	e.checkEmpty()
	e.mu.Unlock()
	abandoned := e.awaitEmpty(ctx)
	left := e.awaitOutcomes()
	if left == 0 && quiet {
		e.leave()
	}
	e.halt()
	var errs []error
	if left > 0 {
		errs = append(errs, fmt.Errorf("durable: the outcomes of %d tasks have not been committed; they may run again: %w", left, e.outage()))
	}
	if len(abandoned) > 0 {
		errs = append(errs, &AbandonedError{Cause: context.Cause(ctx), Tasks: abandoned})
	}
	return errors.Join(errs...)
}

// awaitClaims waits until no commit that claims is under way. It reports
// whether that is so.
func (e *Engine) awaitClaims() bool {
	ctx, cancel := context.WithTimeout(context.Background(), e.q.cfg.CommitTimeout)
	defer cancel()
	return e.q.batcher.withoutClaims(ctx, func() {}) == nil
}

// outage returns why the store does not commit.
func (e *Engine) outage() error {
	if err := e.q.batcher.failing(); err != nil {
		return err
	}
	return ErrUnavailable
}

// checkEmpty ends a drain's wait. The caller holds the lock.
func (e *Engine) checkEmpty() {
	if e.empty == nil || len(e.running) > 0 {
		return
	}
	select {
	case <-e.empty:
	default:
		close(e.empty)
	}
}

// awaitEmpty waits until nothing runs. It cancels what still does when ctx
// ends, and returns what does not heed that.
func (e *Engine) awaitEmpty(ctx context.Context) []AbandonedTask {
	select {
	case <-e.empty:
		return e.abandonStuck()
	default:
	}
	select {
	case <-e.empty:
	case <-ctx.Done():
		for _, r := range e.runs() {
			r.stop(ErrDraining)
		}
		grace := time.NewTimer(e.cfg.Grace)
		defer grace.Stop()
		select {
		case <-e.empty:
		case <-grace.C:
		}
	}
	return e.abandonStuck()
}

func (e *Engine) runs() []*run {
	e.mu.Lock()
	defer e.mu.Unlock()
	runs := make([]*run, 0, len(e.running))
	for _, r := range e.running {
		runs = append(runs, r)
	}
	return runs
}

// abandonStuck returns tasks to the queue whose handlers have not returned,
// and reports them, with those that were given up before.
func (e *Engine) abandonStuck() (abandoned []AbandonedTask) {
	e.mu.Lock()
	stuck := make([]*run, 0, len(e.stuck))
	for r := range e.stuck {
		stuck = append(stuck, r)
	}
	e.mu.Unlock()
	for _, r := range e.runs() {
		e.stick(r)
		if r.abandon(Finish{Ref: r.claimed.Ref, Move: MoveRelease}, ErrDraining) {
			stuck = append(stuck, r)
		} else {
			e.unstick(r)
		}
	}
	if len(stuck) == 0 {
		return nil
	}
	stacks := goroutineStacks()
	for _, r := range stuck {
		r.mu.Lock()
		t := AbandonedTask{Info: r.info(), Age: time.Since(r.began), Stack: stacks[r.goroutine]}
		r.mu.Unlock()
		abandoned = append(abandoned, t)
		e.counters.abandoned.Add(1)
		e.emit(TaskStuck{Info: t.Info, Took: t.Age, Stack: t.Stack})
	}
	return abandoned
}

// awaitOutcomes waits a bounded time until all outcomes are committed, and
// returns how many are not.
func (e *Engine) awaitOutcomes() int {
	limit := time.NewTimer(max(e.cfg.Grace, time.Second))
	defer limit.Stop()
	select {
	case <-e.empty:
	case <-limit.C:
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.running)
}

// leave ends the lease, now that nothing is held under it but, perhaps, what
// was claimed by a commit whose answer was lost.
func (e *Engine) leave() {
	ctx, cancel := context.WithTimeout(context.Background(), max(e.cfg.Grace, time.Second))
	defer cancel()
	boot := e.currentBoot()
	_, err := e.q.store.Reconcile(ctx, boot, nil)
	if err == nil {
		err = e.q.store.Unregister(ctx, boot)
	}
	if err != nil {
		e.log.Warn("the worker could not sign off; the store will notice when its lease ends", "error", err)
	}
}
