package wake

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/wake-go/wake/background"
	"github.com/wake-go/wake/durable"
	"github.com/wake-go/wake/lifespan"
)

// startEngine starts what runs queued tasks, if this process is to.
func (in *instance) startEngine(ctx context.Context) error {
	if err := in.checkQueue(); err != nil {
		return err
	}
	if in.queue == nil || in.cfg.role == RoleWeb {
		return nil
	}
	e, err := in.newEngine(func(durable.Event) {})
	if err != nil {
		return err
	}
	// It goes on until it is drained, whatever becomes of ctx.
	if err := e.Start(context.WithoutCancel(ctx)); err != nil {
		return fmt.Errorf("start the workers: %w", err)
	}
	in.engine.Store(e)
	in.checks.add("workers", func(context.Context) error { return e.Healthy() })
	return nil
}

// newEngine makes an engine for the application's tasks and schedules.
func (in *instance) newEngine(also func(durable.Event)) (*durable.Engine, error) {
	cfg := in.cfg.engine
	given := cfg.OnEvent
	cfg.OnEvent = func(e durable.Event) {
		if given != nil {
			given(e)
		}
		for _, f := range in.cfg.onQueueEvent {
			f(e)
		}
		also(e)
	}
	cfg.Version = in.host.api.OpenAPI().Info.Version
	cfg.Grace, cfg.DrainTimeout, cfg.Logger = in.cfg.grace, in.cfg.drainTimeout, in.cfg.log()
	cfg.Lanes = maps.Clone(cfg.Lanes)
	if cfg.Lanes == nil {
		cfg.Lanes = map[string]durable.EngineLane{}
	}
	for _, lane := range in.bg.Stats().Lanes {
		if _, given := cfg.Lanes[lane.Name]; given || lane.Name == background.DefaultLane {
			continue
		}
		cfg.Lanes[lane.Name] = durable.EngineLane{
			Workers: lane.Workers,
			Go:      func(run func()) { in.bg.Lend(lane.Name, run) },
		}
	}
	for _, h := range in.hosts() {
		cfg.Schedules = append(cfg.Schedules[:len(cfg.Schedules):len(cfg.Schedules)], h.schedules...)
	}
	return cfg.NewEngine(in.queue, in.handlers()...)
}

// handlers make the application's tasks, and those of the applications mounted
// in it, what an engine runs.
func (in *instance) handlers() (all []durable.Handler) {
	for _, t := range in.host.kinds {
		if t.unstorable != nil {
			continue
		}
		h := t.handler(in)
		if h.Policy.Lane == background.DefaultLane {
			h.Policy.Lane = ""
		}
		all = append(all, h)
	}
	for _, m := range in.mounted {
		all = append(all, m.handlers()...)
	}
	return all
}

// drainEngine stops claiming and lets running tasks end until cut does. Tasks
// that are cut short go back to the queue, at no cost.
func (in *instance) drainEngine(cut context.Context) error {
	e := in.engine.Load()
	if e == nil {
		return nil
	}
	if err := e.Drain(cut); err != nil {
		return fmt.Errorf("queued tasks: %w", err)
	}
	return nil
}

// Work runs the application without serving requests: its lifespan, its queued
// tasks and its schedules, until ctx ends. It needs a queue. The admin listener
// is the only one. See [App.Run].
func (a *App[S]) Work(ctx context.Context, opts ...Option) error {
	opts = append(opts[:len(opts):len(opts)], func(c *config) { c.role = RoleWorker })
	return a.runWith(ctx, opts, func(ctx context.Context, in *instance) error {
		if in.queue == nil {
			return fmt.Errorf("wake: there is nothing to work on: %w", errNoQueue)
		}
		return (&server{in: in}).work(ctx)
	})
}

// work is serve without requests.
func (s *server) work(ctx context.Context) error {
	admin, err := s.listenAdmin(ctx)
	if err != nil {
		return err
	}
	if !s.in.host.live.CompareAndSwap(nil, s.in) {
		if admin != nil {
			admin.Close()
		}
		return errRunning
	}
	defer s.in.host.live.Store(nil)
	if err := s.in.startEngine(ctx); err != nil {
		if admin != nil {
			admin.Close()
		}
		return err
	}
	var serving sync.WaitGroup
	defer serving.Wait()
	failed := make(chan error, 1)
	attrs := []any{"role", string(RoleWorker)}
	if admin != nil {
		server := s.newAdminServer()
		defer server.Close()
		serving.Go(func() { failed <- serveOn(server, admin, false) })
		attrs = append(attrs, "admin", urlOf(admin, false))
	}
	lifespan.MarkReady(ctx)
	s.in.cfg.log().Info("ready", attrs...)
	s.notify("READY=1")
	stopWatchdog := s.startWatchdog()
	defer stopWatchdog()
	select {
	case <-ctx.Done():
	case err := <-failed:
		lifespan.Stop(ctx, fmt.Errorf("a listener died: %w", err))
		<-ctx.Done()
	}
	s.notify("STOPPING=1")
	return s.in.drainWork(lifespan.Drain(ctx), func() bool { return true }, nil)
}

// RunQueue runs the queued tasks of the running application that are ready, and
// those that they add, until none is ready or ctx ends: for a process with
// [NoWorkers] whose work is done now and then, and for tests. Where workers run
// it waits for them. Tasks of paused queues, and those that no task of the
// application and no configured queue is for, stay. Schedules tick meanwhile;
// one is known from the first call on.
func (a *App[S]) RunQueue(ctx context.Context) error {
	in := a.host.live.Load()
	if in == nil || in.queue == nil {
		return fmt.Errorf("wake: run the queue: %w, or does not run", errNoQueue)
	}
	in.runQueue.Lock()
	defer in.runQueue.Unlock()
	if in.engine.Load() != nil {
		return in.waitQuiet(ctx, nil)
	}
	changed := make(chan struct{}, 1)
	e, err := in.newEngine(func(durable.Event) {
		select {
		case changed <- struct{}{}:
		default:
		}
	})
	if err != nil {
		return err
	}
	if err := e.Start(context.WithoutCancel(ctx)); err != nil {
		return fmt.Errorf("wake: run the queue: %w", err)
	}
	err = in.waitQuiet(ctx, changed)
	return errors.Join(err, e.Drain(ctx))
}

// waitQuiet waits until nothing is left that an engine would do by now.
func (in *instance) waitQuiet(ctx context.Context, changed <-chan struct{}) error {
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for {
		busy, err := in.busy(ctx)
		if err != nil || !busy {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wake: run the queue: %w", context.Cause(ctx))
		case <-changed:
		case <-poll.C:
		}
	}
}

// busy reports whether there are tasks that the application could run now.
func (in *instance) busy(ctx context.Context) (bool, error) {
	queues, err := in.workedQueues(ctx)
	if err != nil {
		return false, err
	}
	now, err := in.queue.Store().Now(ctx)
	if err != nil {
		return false, err
	}
	tasks, err := in.queue.List(ctx, durable.Filter{States: []durable.State{durable.Ready, durable.Running, durable.Scheduled}}, durable.Page{Limit: 1000})
	if err != nil {
		return false, err
	}
	names := in.handledNames()
	for _, t := range tasks {
		if queues[t.Queue] && names[t.Kind] && (t.State != durable.Scheduled || !t.RunAt.After(now)) {
			return true, nil
		}
	}
	return in.ticking(ctx, now)
}

// ticking reports whether a schedule of the application is yet to be declared,
// or to tick.
func (in *instance) ticking(ctx context.Context, now time.Time) (bool, error) {
	undeclared := map[string]bool{}
	for _, h := range in.hosts() {
		for _, s := range h.schedules {
			undeclared[s.Name] = true
		}
	}
	if len(undeclared) == 0 {
		return false, nil
	}
	known, err := in.queue.Schedules(ctx)
	for _, s := range known {
		if !undeclared[s.Name] || s.Orphan {
			continue
		}
		delete(undeclared, s.Name)
		if !s.Next.IsZero() && !s.Next.After(now) {
			return true, err
		}
	}
	return len(undeclared) > 0, err
}

// workedQueues are the queues that the application works on, but for those
// that are paused.
func (in *instance) workedQueues(ctx context.Context) (map[string]bool, error) {
	queues := map[string]bool{}
	for name := range in.cfg.engine.Queues {
		queues[name] = true
	}
	for _, h := range in.handlers() {
		queues[h.Policy.Queue] = true
	}
	if len(in.cfg.engine.Queues) == 0 {
		queues[durable.DefaultQueue] = true
	}
	all, err := in.queue.Queues(ctx)
	for _, q := range all {
		if q.Paused {
			delete(queues, q.Name)
		}
	}
	return queues, err
}

// handledNames are the kinds that the application runs, and their aliases.
func (in *instance) handledNames() map[string]bool {
	names := map[string]bool{}
	for _, h := range in.handlers() {
		names[h.Kind] = true
		for _, alias := range h.Aliases {
			names[alias] = true
		}
	}
	return names
}
