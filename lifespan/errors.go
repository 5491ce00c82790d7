package lifespan

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"time"
)

var (
	// ErrStartTimeout is the cause of a set-up that passed Config.StartTimeout.
	ErrStartTimeout = errors.New("set-up passed Config.StartTimeout")
	// ErrDrainTimeout is the cause of a drain that passed Config.DrainTimeout.
	ErrDrainTimeout = errors.New("drain passed Config.DrainTimeout")
	// ErrStopTimeout is the cause of a clean-up that passed Config.StopTimeout.
	ErrStopTimeout = errors.New("clean-up passed Config.StopTimeout")
	// ErrStopped is the cause of an ordinary stop: Stop with a nil cause, or
	// simply the end of serving.
	ErrStopped = errors.New("the application was asked to stop")
	// ErrNoYield is reported for a lifespan that returned nil without having
	// called yield.
	ErrNoYield = errors.New("the lifespan returned without calling yield; call it exactly once, with the state, and return its error")
	// ErrYieldedTwice is what every call of yield but the first returns. Run's
	// error contains it, in the phase Cleaning.
	ErrYieldedTwice = errors.New("the lifespan called yield twice; call it exactly once")
	// ErrEndedWhileServing is reported for a lifespan that returned while the
	// application was still being served, having called yield on another
	// goroutine.
	ErrEndedWhileServing = errors.New("the lifespan returned while the application was being served; call yield on its own goroutine and wait for it")
	// ErrGoexit is reported for a function that ended its goroutine with
	// runtime.Goexit, as testing.T.FailNow does.
	ErrGoexit = errors.New("the function ended its goroutine with runtime.Goexit")
)

// An Error says in which phase an application failed. Run returns one, or
// several joined by [errors.Join]; each is within reach of [errors.As].
type Error struct {
	// Phase is Starting if set-up failed, was interrupted or passed its limit,
	// or if serve failed before MarkReady; Ready if serving failed; Draining
	// if work was abandoned; Cleaning if clean-up failed.
	Phase Phase
	Err   error
}

// Error returns one sentence: what failed, and why.
func (e *Error) Error() string {
	what := e.Phase.String() + " failed"
	switch e.Phase {
	case Starting:
		what = "start-up failed"
	case Ready:
		what = "serving failed"
	case Draining:
		what = "work abandoned"
	case Cleaning:
		what = "clean-up failed"
	}
	return what + ": " + e.Err.Error()
}

// Unwrap returns Err.
func (e *Error) Unwrap() error { return e.Err }

// A PanicError is a recovered panic.
type PanicError struct {
	Value any    // what panic was called with
	Stack []byte // the goroutine's stack at the panic, as text
}

// Error returns the panic's value and the place it came from; the whole stack
// is in Stack.
func (e *PanicError) Error() string {
	return fmt.Sprintf("panic: %v%s", e.Value, at(panicSite(e.Stack)))
}

// Unwrap returns Value if it is an error, otherwise nil.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

// A SignalError is the cause of what a signal did: an interrupted set-up, the
// end of serve's context, a drain cut short.
type SignalError struct {
	Signal os.Signal
	Count  int // 1 for the first signal Run received
}

// Error names the signal.
func (e *SignalError) Error() string { return "signal: " + e.Signal.String() }

// A StuckError is a function that did not return in time, and where it was.
type StuckError struct {
	What  string        // "set-up", "serve", "clean-up", or `part "name"`
	After time.Duration // since its context was cancelled, 0 if it returned after all
	Stack []byte        // its goroutine and those it started, as text, from when its limit passed
	Err   error         // why it should have returned, for instance ErrStartTimeout

	// Abandoned tells that it ignored its context as well and still runs.
	Abandoned bool
}

// Error returns one sentence; the whole stack is in Stack.
func (e *StuckError) Error() string {
	if e.Abandoned {
		return fmt.Sprintf("%v; %s is abandoned, for it ignored its context for %v%s", e.Err, e.What, e.After, at(stuckSite(e.Stack)))
	}
	return fmt.Sprintf("%v%s", e.Err, at(stuckSite(e.Stack)))
}

// Unwrap returns Err.
func (e *StuckError) Unwrap() error { return e.Err }

func at(site string) string {
	if site == "" {
		return ""
	}
	return " (at " + site + ")"
}

// same tells whether a and b are one error. Unlike == it does not panic for
// types that cannot be compared, and unlike errors.Is it asks no methods.
func same(a, b error) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return reflect.ValueOf(a).Comparable() && reflect.ValueOf(b).Comparable() && a == b
}

// contains tells whether target is one of the errors in err's tree.
func contains(err, target error) bool {
	if err == nil || target == nil {
		return false
	}
	if same(err, target) {
		return true
	}
	switch u := err.(type) {
	case interface{ Unwrap() error }:
		return contains(u.Unwrap(), target)
	case interface{ Unwrap() []error }:
		for _, e := range u.Unwrap() {
			if contains(e, target) {
				return true
			}
		}
	}
	return false
}

// without returns what remains of err when the errors in known, which are
// reported elsewhere, are taken out. A chain around a known error goes with
// it: it only repeats it. A panic never goes.
func without(err error, known ...error) error {
	if err == nil {
		return nil
	}
	if _, ok := err.(*PanicError); ok {
		return err
	}
	found := false
	for _, k := range known {
		if same(err, k) {
			return nil
		}
		found = found || contains(err, k)
	}
	if !found {
		return err
	}
	switch u := err.(type) {
	case interface{ Unwrap() error }:
		return without(u.Unwrap(), known...)
	case interface{ Unwrap() []error }:
		var rest []error
		for _, e := range u.Unwrap() {
			rest = append(rest, without(e, known...))
		}
		return join(rest...)
	}
	return nil
}

// keep returns err, joined with the earlier one unless it contains that.
func keep(err, earlier error) error {
	if earlier == nil || contains(err, earlier) {
		return err
	}
	return join(earlier, err)
}

// join is errors.Join, but leaves a single error as it is.
func join(errs ...error) error {
	var one error
	n := 0
	for _, err := range errs {
		if err != nil {
			one = err
			n++
		}
	}
	if n <= 1 {
		return one
	}
	return errors.Join(errs...)
}
