package wake

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/wake-go/wake/background"
	"github.com/wake-go/wake/durable"
)

// A boundTask is a task that an application can run, by its name.
type boundTask struct {
	*taskInfo
	prefix  string // of the router that it was given to
	task    any    // a Runnable of some state
	run     func(ctx context.Context, in *instance, arg any) error
	handler func(in *instance) durable.Handler
}

func (h *host) knows(name string) bool {
	_, ok := h.kinds[name]
	return ok
}

// addKind registers a task under its name.
func (h *host) addKind(t boundTask) {
	if known, ok := h.kinds[t.name]; ok {
		if known.task == t.task && known.prefix != t.prefix {
			return // the same task of a router that is included again
		}
		panic(fmt.Sprintf("wake: two tasks are called %q; give one of them another name", t.name))
	}
	lanes := []string{"", background.DefaultLane, background.CPULane}
	for name := range h.cfg.background.Lanes {
		lanes = append(lanes, name)
	}
	if !slices.Contains(lanes, t.policy.Lane) {
		panic(fmt.Sprintf("wake: task %q asks for lane %q; add it to background.Config.Lanes", t.name, t.policy.Lane))
	}
	h.kinds[t.name] = t
}

// bindTask makes a task of a router what the application knows of it.
func bindTask[S any](m mount[S], t Runnable[S]) boundTask {
	b := boundTask{taskInfo: t.info(), prefix: m.prefix, task: t}
	enter := func(ctx context.Context, in *instance) (context.Context, S) {
		state := m.state(in)
		if m.included {
			ctx = context.WithValue(ctx, stateKey{}, &stateOf[S]{state})
		}
		return ctx, state
	}
	b.run = func(ctx context.Context, in *instance, arg any) error {
		ctx, state := enter(ctx, in)
		return t.call(ctx, state, arg)
	}
	b.handler = func(in *instance) durable.Handler {
		return t.handler(func(ctx context.Context, run func(context.Context, S) error) error {
			a := &attempt{}
			ctx = in.bg.Within(ctx, b.policy.Lane)
			ctx = context.WithValue(context.WithValue(ctx, instanceKey{}, in), attemptKey{}, a)
			ctx, state := enter(ctx, in)
			err := run(ctx, state)
			if err == nil {
				err = a.failure()
			}
			return err
		})
	}
	return b
}

// An attempt is one run of a queued task.
type attempt struct {
	mu  sync.Mutex
	err error
}

type attemptKey struct{}

// attemptOf returns the run of the queued task that ctx belongs to; nil in a
// task in memory that it has added.
func attemptOf(ctx context.Context) *attempt {
	a, _ := ctx.Value(attemptKey{}).(*attempt)
	if a != nil && !background.From(ctx).None() {
		return nil
	}
	return a
}

// fail makes the attempt fail although its function returns no error.
func (a *attempt) fail(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.err == nil {
		a.err = err
	}
}

func (a *attempt) failure() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.err
}
