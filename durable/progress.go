package durable

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"time"
)

// progressEvery is how often the progress of a task is stored at most.
const progressEvery = 250 * time.Millisecond

// progress is what a run has reported and not stored yet.
type progress struct {
	mu        sync.Mutex
	latest    ProgressReport
	fresh     bool // latest has to be stored
	flying    bool // the batcher has it
	finishing bool // the outcome waits for it
	ended     bool // the outcome has been recorded by other means
	next      time.Time
	timer     *time.Timer
}

// What the outcome of a run has to wait for.
type progressState int

const (
	progressIdle   progressState = iota // nothing
	progressLeft                        // a report that has to be handed over
	progressFlying                      // one that is under way
)

// Progress says how far the task that ctx belongs to has come. It does not
// wait: reports are stored at most four times a second, the last one before
// the task's outcome. Outside of tasks it does nothing.
func Progress(ctx context.Context, done, total int, message string) {
	r := runFrom(ctx)
	if r == nil {
		return
	}
	p := &r.progress
	p.mu.Lock()
	if p.finishing {
		p.mu.Unlock()
		return
	}
	p.latest = ProgressReport{Done: done, Total: total, Message: boundedText(message, maxErrorMessage)}
	p.fresh = true
	now := p.plan(r)
	p.mu.Unlock()
	if now {
		r.engine.q.batcher.report(r)
	}
}

// plan reports whether the latest report is to be handed over now; otherwise a
// timer will, or the end of the one that is under way.
func (p *progress) plan(r *run) bool {
	if p.flying || p.timer != nil || !p.fresh {
		return false
	}
	if wait := time.Until(p.next); wait > 0 {
		p.timer = time.AfterFunc(wait, func() { p.flush(r) })
		return false
	}
	p.flying = true
	return true
}

func (p *progress) flush(r *run) {
	p.mu.Lock()
	if p.timer == nil { // stopped too late
		p.mu.Unlock()
		return
	}
	p.timer = nil
	p.next = time.Time{}
	now := p.plan(r)
	p.mu.Unlock()
	if now {
		r.engine.q.batcher.report(r)
	}
}

// take returns what is to be stored now.
func (p *progress) take() ProgressReport {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fresh = false
	p.next = time.Now().Add(progressEvery)
	return p.latest
}

// finish says that the outcome is decided, and what it has to wait for.
func (p *progress) finish() progressState {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.finishing = true
	if p.timer != nil {
		p.timer.Stop()
		p.timer = nil
	}
	switch {
	case p.flying:
		return progressFlying
	case p.fresh:
		p.flying = true
		return progressLeft
	}
	return progressIdle
}

// end says that no outcome waits for anything any more.
func (p *progress) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = true
}

// progressed says that a report was stored, or could not be.
func (r *run) progressed(stored bool) {
	p, b := &r.progress, r.engine.q.batcher
	p.mu.Lock()
	if p.ended {
		p.mu.Unlock()
		return
	}
	if !stored {
		p.fresh = !p.finishing
		p.next = time.Now().Add(time.Second)
	}
	p.flying = false
	finish := p.finishing && !p.fresh
	report := false
	switch {
	case finish:
	case p.finishing:
		p.flying, report = true, true
	default:
		report = p.plan(r)
	}
	p.mu.Unlock()
	if finish {
		b.finish(r)
	}
	if report {
		b.report(r)
	}
}

// FinishTx completes the task that ctx belongs to in a user's open transaction:
// what that writes and the end of the task are committed together, so that
// they happen exactly once. The handler then commits the transaction and
// returns nil; if it returns nil without having committed, the attempt has
// failed. The task has no result then, and its last progress may be missing.
//
// An error that matches [ErrLeaseLost] says that the task is not this
// process's any more: roll back.
func FinishTx(ctx context.Context, tx *sql.Tx) error { return FinishIn(ctx, SQL(tx)) }

// FinishIn is [FinishTx] for any transaction that the store knows.
func FinishIn(ctx context.Context, tx Tx) error {
	r := runFrom(ctx)
	if r == nil {
		return errors.New("durable: FinishTx outside of a task; call it with the context that the handler got")
	}
	r.mu.Lock()
	r.finishCalled = true
	r.mu.Unlock()
	ok, err := r.engine.q.store.FinishTx(ctx, tx, r.boot, Finish{Ref: r.claimed.Ref, Move: MoveSucceed})
	switch {
	case err != nil:
		return fmt.Errorf("durable: finish task %v in a transaction: %w", r.claimed.Ref.ID, err)
	case !ok:
		r.lose()
		return fmt.Errorf("durable: finish task %v in a transaction: %w", r.claimed.Ref.ID, ErrLeaseLost)
	}
	return nil
}
