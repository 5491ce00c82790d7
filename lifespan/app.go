package lifespan

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// A stage is what the application is doing, where a Phase is what it shows.
type stage int

const (
	settingUp     stage = iota // life has not called yield
	serving                    // serve runs
	stoppingParts              // nothing is served any more, parts were told to end
	cleaningUp                 // yield has returned, or will never be called
	finished
)

// An app is one Run. A single goroutine, the one that called Run, changes it:
// all others put functions in its box. So what follows needs no locks, and
// events are in order.
type app struct {
	cfg  Config
	box  *mailbox
	over chan struct{} // closed when Run returns

	life    context.Context // life's context
	endLife context.CancelCauseFunc
	drain   context.Context // ends when the drain is cut short
	cut     context.CancelCauseFunc
	root    *scope

	// The rest belongs to the loop.

	stage stage
	phase Phase
	timer *time.Timer // one limit at a time
	alarm func()      // what to do when timer fires

	lifeRoutine  *routine
	lifeOver     bool      // it has returned, or is abandoned
	interrupted  error     // why set-up must not go on, as to be reported
	cancelledAt  time.Time // when a limit last cancelled a context
	late         *StuckError
	yielded      bool
	yieldedTwice bool
	replies      []func() // make the calls of yield return

	serveRoutine *routine
	stopServe    context.CancelCauseFunc
	ready        bool
	stopCause    error
	cutCause     error

	parts map[*part]struct{}
	waits []scopeWait

	errs  []error // to be returned, in order
	known []error // what yield has returned, and so may come back from life
}

func run(ctx context.Context, cfg Config, life func(context.Context, *app) error) error {
	if err := cfg.validate(); err != nil {
		return &Error{Starting, err}
	}
	cfg.setDefaults()
	a := newApp(ctx, cfg)
	stopSignals := a.watchSignals()
	defer stopSignals()
	defer close(a.over)
	defer a.box.close()
	defer a.cut(ErrStopped)
	defer a.endLife(ErrStopped)

	a.enter(Starting, nil)
	if ctx.Err() != nil {
		a.lifeOver = true
		a.fail(Starting, context.Cause(ctx))
		a.clean(context.Cause(ctx))
	} else {
		a.setAlarm(cfg.StartTimeout, a.startTimeout)
		a.lifeRoutine = start(
			func() error { return life(a.life, a) },
			func(err error) { a.box.put(func() { a.lifeEnded(err) }) })
	}
	a.loop(ctx)
	return join(a.errs...)
}

func newApp(ctx context.Context, cfg Config) *app {
	a := &app{
		cfg:   cfg,
		box:   newMailbox(),
		over:  make(chan struct{}),
		timer: time.NewTimer(time.Hour),
		parts: make(map[*part]struct{}),
	}
	a.timer.Stop()
	a.root = &scope{app: a}
	values := context.WithValue(context.WithoutCancel(ctx), scopeKey{}, a.root)
	a.life, a.endLife = context.WithCancelCause(values)
	a.drain, a.cut = context.WithCancelCause(values)
	return a
}

func (a *app) loop(ctx context.Context) {
	defer a.timer.Stop()
	done := ctx.Done()
	for a.stage != finished {
		select {
		case <-a.box.ready:
			for _, fn := range a.box.take() {
				fn()
			}
		case <-a.timer.C:
			a.alarm()
		case <-done:
			done = nil
			a.stop(context.Cause(ctx), false)
		}
	}
}

// do has fn called by the loop and waits for it, but not beyond Run's end.
func (a *app) do(fn func()) {
	done := make(chan struct{})
	if !a.box.put(func() { fn(); close(done) }) {
		return
	}
	select {
	case <-done:
	case <-a.over:
	}
}

// setAlarm replaces the limit that counts. Negative is no limit.
func (a *app) setAlarm(limit time.Duration, alarm func()) {
	a.timer.Stop()
	a.alarm = alarm
	if limit >= 0 {
		a.timer.Reset(limit)
	}
}

func (a *app) enter(phase Phase, cause error) {
	from := a.phase
	a.phase = phase
	a.emit(PhaseChanged{From: from, To: phase, At: time.Now(), Cause: cause})
}

func (a *app) emit(e Event) {
	err := protect(func() error { a.cfg.OnEvent(e); return nil })
	if err != nil {
		err = fmt.Errorf("Config.OnEvent, for the event %q: %w", e, err)
		a.fail(Ready, err)
		// Not at once: the caller is in the middle of a change.
		a.box.put(func() { a.stop(err, false) })
	}
}

func (a *app) fail(phase Phase, err error) {
	a.errs = append(a.errs, &Error{phase, err})
}

// stop asks for a stop. A failure is reported, whenever it comes.
func (a *app) stop(cause error, failure bool) {
	if a.stage == settingUp && a.interrupted == nil {
		a.interrupt(cause, cause)
		return
	}
	if failure && a.serveRoutine == nil {
		a.fail(Starting, cause)
	} else if failure {
		a.fail(Ready, cause)
	}
	if a.stage == serving && a.stopCause == nil {
		a.stopCause = cause
		a.enter(Draining, cause)
		a.stopServe(cause)
		a.setAlarm(a.cfg.DrainTimeout, func() { a.cutDrain(ErrDrainTimeout) })
	}
}

// signalled acts on the first and the second signal; the third does not get
// here.
func (a *app) signalled(cause *SignalError) {
	a.emit(SignalReceived{cause.Signal, cause.Count})
	again := a.interrupted != nil
	a.stop(cause, false)
	if cause.Count < 2 {
		return
	}
	switch {
	case a.stage == serving:
		a.cutDrain(cause)
	case a.stage == settingUp && again:
		a.abandonSetUp()
	}
}

// --- set-up ---

func (a *app) startTimeout() {
	a.interrupt(ErrStartTimeout, &StuckError{What: "set-up", Stack: a.lifeRoutine.stack(), Err: ErrStartTimeout})
}

// interrupt makes set-up end because of cause, which report tells in full.
func (a *app) interrupt(cause, report error) {
	a.stopCause = cause
	a.interrupted = report
	a.cancelledAt = time.Now()
	a.endLife(cause)
	a.stopParts(a.root, cause)
	a.setAlarm(a.cfg.Grace, a.abandonSetUp)
}

func (a *app) abandonSetUp() {
	stuck := a.abandon(Starting, "set-up", a.lifeRoutine, a.cancelledAt, a.stopCause)
	a.lifeOver = true
	a.fail(Starting, stuck)
	a.clean(stuck)
}

// setUpError returns what is to be reported for a life that returned err
// without having called yield.
func (a *app) setUpError(err error) error {
	switch {
	case a.interrupted == nil && err == nil:
		return ErrNoYield
	case a.interrupted == nil:
		return err
	case err == nil, same(err, context.Canceled), same(err, a.stopCause):
		return a.interrupted
	}
	return fmt.Errorf("%w; set-up then returned: %w", a.interrupted, err)
}

// abandon gives up waiting for a function that ignores its context.
func (a *app) abandon(phase Phase, what string, r *routine, since time.Time, cause error) *StuckError {
	stuck := &StuckError{What: what, After: time.Since(since), Stack: r.stack(), Err: cause, Abandoned: true}
	a.emit(PhaseAbandoned{Phase: phase, What: what, After: stuck.After, Stack: stuck.Stack})
	return stuck
}

// --- yield ---

// yield is called by life, usually on its own goroutine.
func (a *app) yield(serve func(context.Context) error) error {
	reply := make(chan error, 1)
	if a.box.put(func() { a.yieldCalled(serve, reply) }) {
		select {
		case err := <-reply:
			return err
		case <-a.over:
			select {
			case err := <-reply:
				return err
			default:
			}
		}
	}
	return context.Cause(a.life)
}

func (a *app) yieldCalled(serve func(context.Context) error, reply chan<- error) {
	if a.yielded {
		if !a.yieldedTwice {
			a.yieldedTwice = true
			a.fail(Cleaning, ErrYieldedTwice)
		}
		a.known = append(a.known, ErrYieldedTwice)
		reply <- ErrYieldedTwice
		return
	}
	a.yielded = true
	a.replies = append(a.replies, func() { reply <- a.outcome() })
	switch {
	case a.stage == settingUp && a.interrupted == nil:
		a.serve(serve)
		return
	case !a.lifeOver:
		a.fail(Starting, a.interrupted)
	}
	if a.stage == settingUp {
		a.clean(a.interrupted)
	}
	a.partsStopped()
}

// outcome returns how the application has ended so far, for yield.
func (a *app) outcome() error {
	err := join(a.errs...)
	a.known = append(append(a.known, a.errs...), err)
	return err
}

// lifeEnded acts on the return of the lifespan function.
func (a *app) lifeEnded(err error) {
	if a.lifeOver {
		return // abandoned
	}
	a.lifeOver = true
	switch {
	case !a.yielded:
		err = a.setUpError(err)
		a.fail(Starting, err)
		if a.stage == settingUp {
			a.clean(err)
		}
	case a.stage == serving, a.stage == stoppingParts && a.serveRoutine != nil:
		early := ErrEndedWhileServing
		if err != nil {
			early = fmt.Errorf("%w; it returned: %w", ErrEndedWhileServing, err)
		}
		a.stop(early, true)
	default:
		a.cleanedUp(err)
	}
	if a.stage == cleaningUp {
		a.finish()
	}
}

// --- serving ---

func (a *app) serve(fn func(context.Context) error) {
	a.stage = serving
	a.setAlarm(-1, nil)
	var ctx context.Context
	ctx, a.stopServe = context.WithCancelCause(context.WithoutCancel(a.life))
	a.serveRoutine = start(
		func() error { return fn(ctx) },
		func(err error) { a.box.put(func() { a.served(err) }) })
}

func (a *app) markReady() {
	if a.stage != serving || a.ready {
		return
	}
	a.ready = true
	if a.phase == Starting {
		a.enter(Ready, nil)
	}
}

func (a *app) cutDrain(cause error) {
	if a.cutCause != nil {
		return
	}
	a.cutCause = cause
	a.emit(DrainCut{cause})
	a.cancelledAt = time.Now()
	a.cut(cause)
	a.setAlarm(2*a.cfg.Grace, func() {
		a.served(&Error{Draining, a.abandon(Draining, "serve", a.serveRoutine, a.cancelledAt, cause)})
	})
}

// served acts on the end of serve, or on giving up to wait for it.
func (a *app) served(err error) {
	if a.stage != serving {
		return // abandoned
	}
	a.cut(ErrStopped)
	a.stopServe(ErrStopped)
	errs := a.servingErrors(err)
	a.errs = append(a.errs, errs...)
	a.clean(join(errs...))
}

// servingErrors gives each error that serve returned its phase.
func (a *app) servingErrors(err error) []error {
	var own *Error
	isOwn := errors.As(err, &own)
	if many, ok := err.(interface{ Unwrap() []error }); ok && isOwn {
		var errs []error
		for _, e := range many.Unwrap() {
			errs = append(errs, a.servingErrors(e)...)
		}
		return errs
	}
	switch {
	case err == nil:
		return nil
	case isOwn:
		return []error{err}
	case a.cutCause != nil && errors.Is(err, a.cutCause):
		return []error{&Error{Draining, err}}
	case a.cutCause != nil && errors.Is(err, context.Canceled):
		// What srv.Shutdown(lifespan.Drain(ctx)) returns.
		return []error{&Error{Draining, fmt.Errorf("%w: %w", a.cutCause, err)}}
	case a.stopCause != nil && (same(err, context.Canceled) || same(err, a.stopCause)):
		return nil // serve returned its context's error: it ended as asked
	case !a.ready:
		return []error{&Error{Starting, err}}
	}
	return []error{&Error{Ready, err}}
}

// --- clean-up ---

// clean begins the end: parts stop, then yield returns, then life cleans up.
func (a *app) clean(cause error) {
	a.stage = stoppingParts
	a.enter(Cleaning, cause)
	a.stopParts(a.root, ErrStopped)
	a.setAlarm(a.cfg.StopTimeout, func() { a.abandonParts(a.root) })
	a.partsStopped()
}

// partsStopped goes on once no part runs any more.
func (a *app) partsStopped() {
	if a.stage == stoppingParts && len(a.parts) == 0 {
		a.stage = cleaningUp
		if a.lifeOver {
			a.setAlarm(-1, nil)
			a.reply()
			a.finish()
			return
		}
		a.setAlarm(a.cfg.StopTimeout, a.stopTimeout)
	}
	if a.stage >= cleaningUp {
		a.reply()
	}
}

func (a *app) reply() {
	for _, r := range a.replies {
		r()
	}
	a.replies = nil
}

func (a *app) stopTimeout() {
	a.late = &StuckError{What: "clean-up", Stack: a.lifeRoutine.stack(), Err: ErrStopTimeout}
	a.cancelledAt = time.Now()
	a.endLife(ErrStopTimeout)
	a.setAlarm(a.cfg.Grace, func() {
		if !a.yielded {
			a.fail(Starting, a.setUpError(nil))
		}
		a.fail(Cleaning, a.abandon(Cleaning, "clean-up", a.lifeRoutine, a.cancelledAt, ErrStopTimeout))
		a.lifeOver = true
		a.finish()
	})
}

// cleanedUp reports what is new in the error that life returned after yield.
func (a *app) cleanedUp(err error) {
	err = without(err, a.known...)
	if a.late != nil {
		if same(err, context.Canceled) || same(err, ErrStopTimeout) {
			err = nil
		}
		err = join(a.late, err)
	}
	if err != nil {
		a.fail(Cleaning, err)
	}
}

func (a *app) finish() {
	if a.stage == finished {
		return
	}
	a.stage = finished
	a.endLife(ErrStopped)
	a.enter(Stopped, join(a.errs...))
}
