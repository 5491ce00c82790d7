package lifespan

import (
	"context"
	"fmt"
	"time"
)

// A scope is where a part was started: the whole application, or one operand
// of a composition, whose parts must end before it is unwound alone.
type scope struct {
	app     *app
	parent  *scope
	stopped error // why no more parts start; belongs to the app's loop
}

// nested returns a context with a scope inside that of ctx. Without an app
// there is none.
func nested(ctx context.Context) (context.Context, *scope) {
	outer := from(ctx)
	if outer == nil {
		return ctx, nil
	}
	s := &scope{app: outer.app, parent: outer}
	return context.WithValue(ctx, scopeKey{}, s), s
}

// within tells whether s is outer or inside it.
func (s *scope) within(outer *scope) bool {
	for ; s != nil; s = s.parent {
		if s == outer {
			return true
		}
	}
	return false
}

// why returns the reason why no more parts start in s, or nil.
func (s *scope) why() error {
	for ; s != nil; s = s.parent {
		if s.stopped != nil {
			return s.stopped
		}
	}
	return nil
}

// A scopeWait is somebody waiting for the parts of a scope to end.
type scopeWait struct {
	scope *scope
	done  chan struct{}
}

// A part is a goroutine started with Go.
type part struct {
	name      string
	scope     *scope
	cancel    context.CancelCauseFunc
	cancelled error // why it was told to end, nil while it was not
	toldAt    time.Time
	routine   *routine
}

func (a *app) startPart(ctx context.Context, s *scope, name string, fn func(context.Context) error) {
	if why := s.why(); why != nil {
		a.emit(PartEnded{Name: name, Err: fmt.Errorf("not started, for parts were told to end already: %w", why)})
		return
	}
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	p := &part{name: name, scope: s, cancel: cancel}
	a.parts[p] = struct{}{}
	p.routine = start(
		func() error { return fn(ctx) },
		func(err error) { a.box.put(func() { a.partEnded(p, err) }) })
}

func (a *app) partEnded(p *part, err error) {
	if _, ok := a.parts[p]; !ok {
		return // abandoned
	}
	delete(a.parts, p)
	p.cancel(ErrStopped)
	told := p.cancelled != nil
	if told {
		err = without(err, context.Canceled, p.cancelled)
	}
	a.emit(PartEnded{Name: p.name, Err: err})
	if err != nil {
		err = fmt.Errorf("part %q: %w", p.name, err)
		if told {
			a.fail(Cleaning, err)
		} else {
			a.stop(err, true)
		}
	}
	a.checkParts()
}

// stopParts tells the parts of s to end, and lets no more of them start.
func (a *app) stopParts(s *scope, cause error) {
	if s.stopped == nil {
		s.stopped = cause
	}
	for p := range a.parts {
		if p.scope.within(s) && p.cancelled == nil {
			p.cancelled, p.toldAt = cause, time.Now()
			p.cancel(cause)
		}
	}
}

// abandonParts gives up waiting for the parts of s.
func (a *app) abandonParts(s *scope) {
	for p := range a.parts {
		if p.scope.within(s) {
			delete(a.parts, p)
			a.fail(Cleaning, a.abandon(Cleaning, fmt.Sprintf("part %q", p.name), p.routine, p.toldAt, ErrStopTimeout))
		}
	}
	a.checkParts()
}

// checkParts wakes those who wait for parts that have ended.
func (a *app) checkParts() {
	var waits []scopeWait
	for _, w := range a.waits {
		if a.running(w.scope) {
			waits = append(waits, w)
		} else {
			close(w.done)
		}
	}
	a.waits = waits
	a.partsStopped()
}

func (a *app) running(s *scope) bool {
	for p := range a.parts {
		if p.scope.within(s) {
			return true
		}
	}
	return false
}

// unwind is called by a composition that cannot start, before it releases the
// operand with the scope s: it waits for the operand's parts to end. A nil
// scope has none.
func (s *scope) unwind(cause error) {
	if s == nil {
		return
	}
	a := s.app
	done := make(chan struct{})
	if !a.box.put(func() { a.unwind(scopeWait{s, done}, cause) }) {
		return
	}
	limit := make(<-chan time.Time)
	if a.cfg.StopTimeout >= 0 {
		timer := time.NewTimer(a.cfg.StopTimeout)
		defer timer.Stop()
		limit = timer.C
	}
	select {
	case <-done:
		return
	case <-a.over:
		return
	case <-limit:
	}
	a.do(func() { a.abandonParts(s) })
}

func (a *app) unwind(w scopeWait, cause error) {
	a.stopParts(w.scope, cause)
	a.waits = append(a.waits, w)
	if a.stage == settingUp && a.interrupted != nil {
		// From here on clean-up runs, which has a longer limit than Grace.
		a.clean(a.interrupted)
	}
	a.checkParts()
}
