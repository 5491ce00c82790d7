package lifespan

import (
	"context"
	"errors"
	"fmt"
)

// A Func is the life of an application, or of a part of it, with the state S.
// It sets things up, calls yield exactly once with the state, waits for it,
// cleans up and returns yield's error, joined with its own if clean-up fails.
//
// If set-up fails it returns the error without calling yield.
type Func[S any] func(ctx context.Context, yield func(S) error) error

// Run sets an application up, serves it and cleans up after it. It returns
// when all of that is over, or abandoned.
//
// Set-up is life until it calls yield. It is interrupted, that is its context
// is cancelled, when it passes its limit, by the first signal, by the end of
// ctx, by Stop and by a part that fails. A set-up that was interrupted never
// leads to serving: should it call yield all the same, yield returns an error
// at once. If ctx is over before Run is called, life is not called at all.
//
// Then yield calls serve on a goroutine of its own and returns when serve, and
// after it all parts started with Go, have ended. Serve calls MarkReady once
// its port is open. When its context ends it should finish what it holds while
// Drain allows and return nil; the context's own error is taken for nil as
// well. The context ends when a stop is asked for:
//   - by a signal, by the end of ctx, by Stop with a nil cause: an ordinary
//     stop, Run returns nil if all goes well;
//   - by Stop with an error, by a part that fails, by a life that returns too
//     early: Run returns that as an Error in the phase Ready.
//
// [context.Cause] tells which. Serve may also end by itself.
//
// When the drain is cut short, serve may return an *Error of the phase
// Draining that names the unfinished work; the error of a context made by
// Drain becomes one. If it does not return within twice Config.Grace it is
// abandoned, and still runs while clean-up does. A panic in serve is an error
// like any other.
//
// Clean-up is the rest of life. It always runs, unless set-up was abandoned or
// the process is killed.
//
// Run returns nil, or one *Error, or several joined, in the order in which
// they happened. The error of serve is among them even if life ignores the one
// that yield returns, and is not repeated if life returns it, wrapped or
// joined with others. ExitCode turns the result into an exit code.
//
// Run may be called several times, also at once, and inside another Run; the
// functions that take a context mean the innermost one.
func Run[S any](ctx context.Context, life Func[S], serve func(ctx context.Context, state S) error, cfg Config) error {
	if life == nil || serve == nil {
		return &Error{Starting, errors.New("lifespan.Run: life and serve must not be nil; use Fixed for an application without set-up")}
	}
	return run(ctx, cfg, func(ctx context.Context, a *app) error {
		return life(ctx, func(state S) error {
			return a.yield(func(ctx context.Context) error { return serve(ctx, state) })
		})
	})
}

// MarkReady tells that the port is open: the phase becomes Ready, and an error
// that serve returns from now on is a failure of serving, no more of start-up.
// Config.OnEvent has heard of it when MarkReady returns.
//
// It does nothing before serve has begun or after it has ended, and when it was
// called before. Config.OnEvent must not call it, for it would wait for itself.
// It panics if ctx does not come from a lifespan.
func MarkReady(ctx context.Context) {
	s := mustFrom(ctx, "MarkReady")
	s.app.do(s.app.markReady)
}

// Drain returns a context for finishing what is under way, usually as
// srv.Shutdown(lifespan.Drain(ctx)). It has the values of ctx, but outlives
// the beginning of the drain. It is cancelled when the drain is cut short, at
// Config.DrainTimeout with the cause ErrDrainTimeout or at a second signal
// with a *SignalError, and when serve has returned. It has no deadline.
//
// It panics if ctx does not come from a lifespan.
func Drain(ctx context.Context) context.Context {
	s := mustFrom(ctx, "Drain")
	return drainContext{Context: s.app.drain, values: context.WithoutCancel(ctx)}
}

// Go starts a background part of the application, such as a worker or a
// refresher of a cache. Its context carries ctx's values and is cancelled when
// serve has ended, before yield returns to the lifespan that owns what the
// part uses; also when set-up is interrupted. Then Config.StopTimeout is the
// time it has to return.
//
// A part that returns nil is finished; the others go on. A part that returns
// an error or panics before it was told to end stops the application, which
// fails with `part "name": …` in the phase Ready, or Starting if yield was
// not called yet. Returning the context's error after its end is fine, any
// other error then is one of the phase Cleaning.
//
// Go does not wait for the part to begin. Once parts have been told to end it
// starts none, and reports a PartEnded with an error; after Run has returned it
// does nothing. A set-up that fails by
// itself after Go has its part cancelled only when it has returned; in a
// composition, the parts of the others end before they clean up.
//
// Any goroutine may call Go. It panics if ctx does not come from a lifespan.
func Go(ctx context.Context, name string, fn func(ctx context.Context) error) {
	s := mustFrom(ctx, fmt.Sprintf("Go(%q)", name))
	s.app.box.put(func() { s.app.startPart(ctx, s, name, fn) })
}

// Stop asks the application to stop and returns at once. With a nil cause it
// is an ordinary stop, whose cause is ErrStopped. Any other cause is a failure:
// serve's context ends with it, and Run returns it in the phase Ready, or
// Starting if set-up was interrupted by it. If a stop was asked for already,
// only the failure is added; after Run has returned, Stop does nothing.
//
// Any goroutine may call Stop. It panics if ctx does not come from a lifespan.
func Stop(ctx context.Context, cause error) {
	s := mustFrom(ctx, "Stop")
	failure := cause != nil
	if !failure {
		cause = ErrStopped
	}
	s.app.box.put(func() { s.app.stop(cause, failure) })
}

// scopeKey is the key of the *scope in a context.
type scopeKey struct{}

// from returns the scope that ctx comes from, or nil.
func from(ctx context.Context) *scope {
	s, _ := ctx.Value(scopeKey{}).(*scope)
	return s
}

func mustFrom(ctx context.Context, call string) *scope {
	s := from(ctx)
	if s == nil {
		panic("lifespan." + call + ": the context does not come from a lifespan; pass the one that the lifespan function or serve was given, or one derived from it")
	}
	return s
}

// A drainContext ends when its Context does and has the values of another.
type drainContext struct {
	context.Context
	values context.Context
}

// Value asks the embedded context last: it is the one whose cancellation
// package context must find.
func (c drainContext) Value(key any) any {
	if v := c.values.Value(key); v != nil {
		return v
	}
	return c.Context.Value(key)
}
