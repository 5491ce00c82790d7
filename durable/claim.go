package durable

import (
	"errors"
	"time"
)

// offer adds claims to a batch that is about to close. The batcher calls it
// with its own lock held.
func (e *Engine) offer(c *commit) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.phase != working || e.leaseless || c.batch.Boot != e.boot {
		return
	}
	c.offered = true
	if len(c.funcs)+len(c.fires) > 0 { // who knows what they add
		e.slots.feedAll()
	}
	now := time.Now()
	for i := range c.batch.Inserts {
		in := &c.batch.Inserts[i]
		if in.Delay > 0 || in.At.After(now) {
			continue
		}
		if h := e.handlers[in.Kind]; h != nil {
			if g := e.slots.lookup[groupKey{in.Queue, h.Policy.Lane}]; g != nil {
				g.feed()
			}
		}
	}
	e.slots.offer(c, e.quarantine.held != nil)
}

// settle takes note of how a batch went: of the outcomes in it, of what was
// claimed, and of when the next task is due. A res that is nil says that
// nothing is known to have happened.
func (e *Engine) settle(c *commit, res *BatchResult, err error) {
	if res == nil {
		e.settleFailed(c, err)
		return
	}
	e.counters.commits.Add(1)
	e.mu.Lock()
	lost := e.settleProgress(c, res)
	for i, r := range c.outcomes {
		e.forget(r)
		if r.retriable() {
			r.group.feed()
		}
		r.counted = res.Finished[i]
	}
	begun, aside := e.quarantine.admit(e.settleClaims(c, res))
	if r := e.quarantine.next(); r != nil {
		begun = append(begun, r)
	}
	e.noteDue(res)
	e.checkEmpty()
	e.mu.Unlock()
	putBack(aside)

	for _, r := range lost {
		r.lose()
	}
	for _, r := range begun {
		e.launch(r)
	}
	for _, r := range c.progress {
		r.progressed(true)
		e.q.waits.wake(r.claimed.Ref.ID)
	}
	for _, r := range c.outcomes {
		e.announce(r)
		e.q.waits.wake(r.claimed.Ref.ID)
	}
}

func (e *Engine) settleFailed(c *commit, err error) {
	e.counters.commitErrors.Add(1)
	e.mu.Lock()
	e.slots.settle(c, true)
	e.mu.Unlock()
	if c.claims && errors.Is(err, ErrUnknown) {
		notify(e.reconcileNow) // what was claimed without our knowing goes back
	}
	for _, r := range c.progress {
		r.progressed(false)
	}
}

func (e *Engine) settleProgress(c *commit, res *BatchResult) (lost []*run) {
	for i, r := range c.progress {
		if !res.Progressed[i] {
			lost = append(lost, r)
		}
	}
	return lost
}

// settleClaims makes runs of what was claimed. The caller holds the lock.
func (e *Engine) settleClaims(c *commit, res *BatchResult) []*run {
	begun := make([]*run, 0, len(res.Claimed))
	for i := range res.Claimed {
		t := &res.Claimed[i]
		h := e.handlers[t.Kind]
		if h == nil {
			continue // nobody has asked for it; the next reconciliation returns it
		}
		for j := range c.offers {
			if o := &c.offers[j]; o.group.key == (groupKey{t.Queue, h.Policy.Lane}) {
				o.take()
				r := newRun(e, h, t, o.group, c.batch.Boot, res.Now)
				e.running[t.Ref] = r
				begun = append(begun, r)
			}
		}
	}
	e.counters.claimed.Add(uint64(len(begun)))
	e.slots.settle(c, false)
	if c.claims {
		e.comeRound()
	}
	return begun
}

// forget frees the place of a run. The caller holds the lock.
func (e *Engine) forget(r *run) {
	delete(e.running, r.claimed.Ref)
	if e.quarantine.forget(r) {
		e.slots.feedAll()
	}
	e.slots.release(r.group)
}

// noteDue plans the next look. The caller holds the lock.
func (e *Engine) noteDue(res *BatchResult) {
	if res.NextDue.IsZero() {
		return
	}
	due := time.Now().Add(max(time.Millisecond, res.NextDue.Sub(res.Now)))
	if e.due.IsZero() || due.Before(e.due) {
		e.due = due
		notify(e.poke)
	}
}

// wake lets ready tasks be looked for in all groups.
func (e *Engine) wake() {
	e.mu.Lock()
	e.slots.feedAll()
	full := e.slots.full()
	e.mu.Unlock()
	if full { // nothing to claim with, which is as good as having looked
		e.comeRound()
		return
	}
	e.q.batcher.kick()
}

// claimLoop looks for tasks every so often, when one is due, and when the
// store says that there are some.
func (e *Engine) claimLoop() {
	sub := e.q.signals.subscribe(SignalTasks)
	defer e.q.signals.unsubscribe(sub)
	poll := time.Now().Add(e.cfg.Poll)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-e.life.Done():
			return
		case <-e.poke:
		case <-sub.C:
			sub.take()
			e.wake()
		case <-timer.C:
			e.mu.Lock()
			e.due = time.Time{}
			e.mu.Unlock()
			poll = time.Now().Add(e.cfg.Poll)
			e.wake()
		}
		timer.Reset(e.untilNext(poll))
	}
}

func (e *Engine) untilNext(poll time.Time) time.Duration {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.due.IsZero() && e.due.Before(poll) {
		poll = e.due
	}
	return max(0, time.Until(poll))
}
