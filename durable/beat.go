package durable

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// beatSoon lets the store be asked at once which tasks are cancelled.
func (e *Engine) beatSoon() { notify(e.beatNow) }

// beatLoop keeps the process's lease, and gets a new one when it was lost.
func (e *Engine) beatLoop() {
	sub := e.q.signals.subscribe(SignalCancelled)
	defer e.q.signals.unsubscribe(sub)
	every := e.cfg.Lease / 3
	timer := time.NewTimer(every)
	defer timer.Stop()
	for {
		select {
		case <-e.life.Done():
			return
		case <-timer.C:
		case <-e.beatNow:
		case <-sub.C:
			sub.take()
		}
		timer.Reset(every)
		if e.withoutLease() {
			if !e.renew() {
				timer.Reset(min(every, time.Second))
			}
		} else {
			e.beat()
		}
	}
}

func (e *Engine) withoutLease() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.leaseless
}

// beat renews the lease and cancels what somebody wants cancelled.
func (e *Engine) beat() {
	boot, start := e.currentBoot(), time.Now()
	ctx, cancel := context.WithTimeout(e.life, e.cfg.Lease/3)
	defer cancel()
	res, err := e.q.store.Beat(ctx, boot)
	switch {
	case errors.Is(err, ErrLeaseLost):
		e.loseLease(boot, err)
		return
	case err != nil:
		return // the lease's own timer knows how long that is bearable
	}
	e.extendLease(start)
	for _, ref := range res.Cancelled {
		e.mu.Lock()
		r := e.running[ref]
		e.mu.Unlock()
		if r != nil {
			r.stop(ErrCancelled)
		}
	}
}

// extendLease counts the lease from when the store was asked, as that is the
// latest moment at which it can have begun.
func (e *Engine) extendLease(asked time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.leaseEnd != nil {
		e.leaseEnd.Stop()
	}
	boot := e.boot
	e.leaseEnd = time.AfterFunc(e.cfg.Lease-time.Since(asked), func() {
		e.loseLease(boot, fmt.Errorf("durable: no beat has reached the store for %v: %w", e.cfg.Lease, ErrLeaseLost))
	})
}

// loseLease cancels all running tasks: others may run them now.
func (e *Engine) loseLease(boot Boot, err error) {
	e.mu.Lock()
	if e.leaseless || boot != e.boot || e.phase == stopped {
		e.mu.Unlock()
		return
	}
	e.leaseless = true
	var lost []*run
	for _, r := range e.running {
		if r.boot == boot {
			lost = append(lost, r)
		}
	}
	e.mu.Unlock()
	for _, r := range lost {
		r.lose()
	}
	e.counters.leasesLost.Add(1)
	e.emit(LeaseLost{Err: err, Running: len(lost)})
	e.beatSoon()
}

// renew registers the process under a fresh boot.
func (e *Engine) renew() bool {
	ctx, cancel := context.WithTimeout(e.life, e.cfg.Lease/3)
	defer cancel()
	if err := e.join(ctx); err != nil {
		return false
	}
	e.wake()
	return true
}

// join makes the process known to the store and begins its lease.
func (e *Engine) join(ctx context.Context) error {
	n := e.node
	n.Boot, n.Started = Boot(NewID()), time.Now().UTC()
	asked := time.Now()
	reg, err := e.q.store.Register(ctx, n)
	if err != nil {
		return err
	}
	e.mu.Lock()
	e.boot, e.name, e.leaseless = n.Boot, reg.Name, false
	e.mu.Unlock()
	e.extendLease(asked)
	e.swept(reg.Swept)
	return nil
}

func (e *Engine) swept(s Swept) {
	if s.Recovered+s.Dead+s.Nodes == 0 {
		return
	}
	e.counters.recovered.Add(uint64(s.Recovered))
	e.emit(Recovered{s})
	e.wake()
	e.q.waits.wakeAll()
}

// upkeepLoop takes back what other processes have left, and what this one has
// claimed without knowing.
func (e *Engine) upkeepLoop() {
	sub := e.q.signals.subscribe(SignalTasks)
	defer e.q.signals.unsubscribe(sub)
	every := e.cfg.Lease / 3
	timer := time.NewTimer(0)
	defer timer.Stop()
	sweep := time.NewTimer(sweepPause)
	defer sweep.Stop()
	var last time.Time
	for {
		select {
		case <-e.life.Done():
			return
		case <-e.reconcileNow:
			e.reconcile()
			continue
		case <-sub.C: // time may have passed, or a process ended
			sub.take()
			if wait := sweepPause - time.Since(last); wait > 0 {
				sweep.Reset(wait)
				continue
			}
		case <-sweep.C:
		case <-timer.C:
			e.reconcile()
			timer.Reset(every)
		}
		sweep.Reset(sweepPause)
		last = time.Now()
		e.sweep()
	}
}

// sweepPause is the time between two sweeps: a dead process's tasks wait no
// longer than this after its lease. A sweep that finds nothing only reads.
const sweepPause = time.Second

// reconcile gives back what was claimed in commits whose answer was lost.
func (e *Engine) reconcile() {
	ctx, cancel := context.WithTimeout(e.life, e.cfg.Lease/3)
	defer cancel()
	released := 0
	_ = e.q.batcher.withoutClaims(ctx, func() {
		e.mu.Lock()
		boot, leaseless := e.boot, e.leaseless
		var known []Ref
		for ref, r := range e.running {
			if r.boot == boot {
				known = append(known, ref)
			}
		}
		e.mu.Unlock()
		if !leaseless {
			released, _ = e.q.store.Reconcile(ctx, boot, known) // else the next one will
		}
	})
	if released > 0 {
		e.log.Info("tasks that were claimed by a commit whose answer was lost are ready again", "tasks", released)
		e.wake()
	}
}

func (e *Engine) sweep() {
	ctx, cancel := context.WithTimeout(e.life, e.cfg.Lease/3)
	defer cancel()
	if s, err := e.q.store.Sweep(ctx, e.currentBoot()); err == nil {
		e.swept(s)
	}
}

// Finished tasks are deleted in small steps, so that the store has time for
// others.
const (
	pruneEvery = time.Minute
	pruneStep  = 1000
	prunePause = 50 * time.Millisecond
)

// pruneLoop deletes finished tasks that have been kept long enough.
func (e *Engine) pruneLoop() {
	timer := time.NewTimer(pruneEvery)
	defer timer.Stop()
	for {
		select {
		case <-e.life.Done():
			return
		case <-timer.C:
		}
		ctx, cancel := context.WithTimeout(e.life, pruneEvery)
		n, err := e.q.store.Prune(ctx, e.cfg.Retention, pruneStep)
		cancel()
		wait := pruneEvery
		if err == nil && n >= pruneStep {
			wait = prunePause
		}
		timer.Reset(wait)
	}
}
