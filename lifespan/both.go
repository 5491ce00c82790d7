package lifespan

import (
	"context"
	"fmt"
	"sync"
)

// A Pair is the state of Both.
type Pair[A, B any] struct {
	A A
	B B
}

// Both is Join with a Pair as its state.
func Both[A, B any](a Func[A], b Func[B]) Func[Pair[A, B]] {
	return Join(a, b, func(a A, b B) Pair[A, B] { return Pair[A, B]{a, b} })
}

// Join sets a and b up side by side, each on a goroutine of its own, yields
// the state that combine makes of theirs, and cleans both up side by side. A
// state that both use must be safe for that.
//
// If one fails, by an error, a panic or by returning without yield, the other
// is told: if it is still being set up its context is cancelled, and if it has
// yielded its yield returns an error, after the background parts it started
// have ended, and its context lives on for its clean-up. Both are waited for
// and both errors are returned, without those that only repeat that the other
// one failed.
func Join[A, B, S any](a Func[A], b Func[B], combine func(A, B) S) Func[S] {
	return func(ctx context.Context, yield func(S) error) error {
		var stateA A
		var stateB B
		j := newJunction()
		j.start(ctx, 0, func(ctx context.Context, up func(func()) error) error {
			return a(ctx, func(s A) error { return up(func() { stateA = s }) })
		})
		j.start(ctx, 1, func(ctx context.Context, up func(func()) error) error {
			return b(ctx, func(s B) error { return up(func() { stateB = s }) })
		})
		return j.run(func() error { return yield(combine(stateA, stateB)) })
	}
}

// A junction is one run of a Join.
type junction struct {
	sides    [2]*side
	news     chan struct{} // a side has changed
	released chan struct{} // closed when the sides' yields may return

	mu      sync.Mutex
	serving bool  // from yield's call until released
	result  error // what the sides' yields return; set before released is closed
}

// A side is one of the operands of a junction, which guards its fields.
type side struct {
	scope     *scope
	cancel    context.CancelCauseFunc
	once      gate
	up        bool // it has called yield
	cancelled bool // before it was up
	ended     chan struct{}
	over      bool // it has ended
	err       error
}

func newJunction() *junction {
	return &junction{
		news:     make(chan struct{}, 1),
		released: make(chan struct{}),
	}
}

func (j *junction) start(ctx context.Context, i int, fn func(context.Context, func(func()) error) error) {
	s := &side{ended: make(chan struct{})}
	ctx, s.scope = nested(ctx)
	ctx, s.cancel = context.WithCancelCause(ctx)
	j.sides[i] = s
	start(
		func() error { return s.once.result(fn(ctx, func(set func()) error { return j.up(s, set) })) },
		func(err error) { j.ended(s, err) })
}

// up is a side's yield.
func (j *junction) up(s *side, set func()) error {
	if !s.once.enter() {
		return ErrYieldedTwice
	}
	j.change(func() { set(); s.up = true })
	<-j.released
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.result
}

// ended notes a side's end. While the application is being served that is a
// failure of the application, which must not go on without it.
func (j *junction) ended(s *side, err error) {
	j.change(func() {
		if j.serving {
			if err == nil {
				err = ErrEndedWhileServing
			} else {
				err = fmt.Errorf("%w; it returned: %w", ErrEndedWhileServing, err)
			}
			if s.scope != nil {
				early := err
				s.scope.app.box.put(func() { s.scope.app.stop(early, true) })
				err = nil // reported
			}
		}
		s.err = err
		s.over = true
	})
	close(s.ended)
}

func (j *junction) change(fn func()) {
	j.mu.Lock()
	fn()
	j.mu.Unlock()
	select {
	case j.news <- struct{}{}:
	default:
	}
}

// run waits for both sides to be up, yields, releases them and waits for them.
func (j *junction) run(yield func() error) (err error) {
	if failure, failed := j.waitUp(); failed {
		return j.unwind(failure)
	}
	err = ErrGoexit // stands if yield does not return
	defer func() { err = join(err, j.finish(err)) }()
	err = protect(yield)
	return err
}

// waitUp waits until both sides are up, or one has ended too early.
func (j *junction) waitUp() (failure error, failed bool) {
	for {
		up, over, err := j.look()
		switch {
		case over:
			return err, true
		case up:
			return nil, false
		}
		<-j.news
	}
}

func (j *junction) look() (up, over bool, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, s := range j.sides {
		if s.over {
			if s.err == nil {
				s.err = ErrEndedWhileServing
			}
			return false, true, s.err
		}
	}
	j.serving = j.sides[0].up && j.sides[1].up
	return j.serving, false, nil
}

// unwind ends the sides because one of them failed.
func (j *junction) unwind(failure error) error {
	released := fmt.Errorf("not started, for what is set up at its side failed: %w", failure)
	j.mu.Lock()
	for _, s := range j.sides {
		if !s.up && !s.over {
			s.cancelled = true
			s.cancel(released)
		}
	}
	j.mu.Unlock()
	for _, s := range j.sides {
		s.scope.unwind(failure)
	}
	return j.finish(released)
}

// finish releases the sides with the result of yield, waits for their ends and
// returns what they add to it.
func (j *junction) finish(result error) error {
	j.mu.Lock()
	j.serving = false
	j.result = result
	j.mu.Unlock()
	close(j.released)
	var errs []error
	for _, s := range j.sides {
		<-s.ended
		s.cancel(ErrStopped)
		known := []error{result}
		if s.cancelled {
			known = append(known, context.Canceled)
		}
		errs = append(errs, without(s.err, known...))
	}
	return join(errs...)
}
