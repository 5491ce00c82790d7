package lifespan

import (
	"context"
	"sync"
	"sync/atomic"
)

// Then nests inner in outer: inner is set up after outer, may use its state,
// and is cleaned up before it. Three of them are a Then of a Then.
//
// If inner fails to start, by an error or a panic, outer's yield returns that
// error and outer cleans up; the background parts that outer started have
// ended by then. What inner returns is part of the result even if outer drops
// it. An outer that yields twice gets ErrYieldedTwice, and inner runs once.
func Then[A, B any](outer Func[A], inner func(context.Context, A, func(B) error) error) Func[B] {
	return func(ctx context.Context, yield func(B) error) error {
		outerCtx, scope := nested(ctx)
		var once gate
		outerYield := func(a A) (err error) {
			if !once.enter() {
				return ErrYieldedTwice
			}
			var yielded atomic.Bool
			err = ErrGoexit // stands if inner neither returns nor panics
			defer func() {
				if !yielded.Load() {
					err = orNoYield(err)
					scope.unwind(err)
				}
				once.leave(err)
			}()
			err = protect(func() error {
				return inner(ctx, a, func(b B) error {
					yielded.Store(true)
					return yield(b)
				})
			})
			return err
		}
		// A panic of outer must not hide what inner returned.
		return once.result(protect(func() error { return outer(outerCtx, outerYield) }))
	}
}

// Hooks makes a lifespan of a function that starts something and one that
// stops it. A nil stop does nothing. Stop gets the same context as start; it
// runs if start returned without error, also after a panic in between. Its
// error is joined to that of the application.
func Hooks[S any](start func(context.Context) (S, error), stop func(context.Context, S) error) Func[S] {
	return func(ctx context.Context, yield func(S) error) (err error) {
		state, err := start(ctx)
		if err != nil {
			return err
		}
		if stop != nil {
			defer func() { err = join(err, stop(ctx, state)) }()
		}
		return yield(state)
	}
}

// Fixed is a lifespan with nothing to set up or to clean up, such as a test's
// state.
func Fixed[S any](state S) Func[S] {
	return func(_ context.Context, yield func(S) error) error { return yield(state) }
}

// A gate lets one call of a yield through and remembers how it ended.
type gate struct {
	mu             sync.Mutex
	entered, twice bool
	err            error
}

func (g *gate) enter() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	first := !g.entered
	g.entered = true
	g.twice = g.twice || !first
	return first
}

func (g *gate) leave(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.err = err
}

// result returns err, what the caller of yield returned, with what it must not
// drop.
func (g *gate) result(err error) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.entered {
		return orNoYield(err)
	}
	if g.twice {
		err = keep(err, ErrYieldedTwice)
	}
	return keep(err, g.err)
}

func orNoYield(err error) error {
	if err == nil {
		return ErrNoYield
	}
	return err
}
