package durable

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// A batcher is the one loop around one transaction: callers leave their part
// of the next batch and wait. A batch closes when a committer is free, so
// nobody waits for company: an idle queue commits at once, a busy one in
// large batches. Committers are goroutines that live as long as there is work.
type batcher struct {
	store      Store
	traits     Traits
	timeout    time.Duration
	maxWaiting int64

	callers atomic.Int64
	parts   sync.Pool
	ended   sync.WaitGroup // committers

	mu         sync.Mutex
	waiting    fifo[*part]
	outcomes   fifo[*run]
	again      again
	progress   []*run
	engine     *Engine
	committers int
	claiming   int // commits under way that claim
	held       int // greater than 0: no claims are made
	quiet      chan struct{}
	outage     outage
	closed     bool
	idle       chan struct{} // made by close, closed when there is nothing left
}

// again is what was in commits nobody knows the end of. It is tried again, by
// itself, with Batch.Again.
type again struct {
	parts    []*part
	outcomes []*run
}

// An outage is a time in which the store does not commit.
type outage struct {
	fails int
	since time.Time
	next  time.Time // not before this is anything tried of its own accord
	err   error
	retry *time.Timer
}

func newBatcher(store Store, timeout time.Duration, maxWaiting int) *batcher {
	b := &batcher{store: store, traits: store.Traits(), timeout: timeout, maxWaiting: int64(maxWaiting)}
	b.traits.Committers = max(1, b.traits.Committers)
	b.traits.MaxBatch = max(1, b.traits.MaxBatch)
	b.parts.New = func() any { return &part{done: make(chan struct{}, 1)} }
	return b
}

// insertOne commits one task.
func (b *batcher) insertOne(ctx context.Context, in Insert) (Inserted, error) {
	p := b.parts.Get().(*part)
	p.inserts = append(p.inserts[:0], in)
	if err := b.await(ctx, p); err != nil {
		return Inserted{}, err
	}
	inserted := p.inserted[0]
	b.recycle(p)
	return inserted, nil
}

// insertAll commits tasks, all or none. Where functions share the transaction
// they are one, as those are undone if a part of them fails.
func (b *batcher) insertAll(ctx context.Context, ins []Insert) ([]Inserted, error) {
	if len(ins) == 1 {
		inserted, err := b.insertOne(ctx, ins[0])
		return []Inserted{inserted}, err
	}
	p := &part{done: make(chan struct{}, 1), inserts: append([]Insert(nil), ins...)}
	if b.traits.SharedTx {
		p.group = &Func{Run: func(tx *SQLTx) error { return tx.addInserts(p.inserts) }}
	}
	err := b.await(ctx, p)
	if errors.Is(err, ErrApart) {
		err = b.callApart(ctx, p.group)
		return p.group.Inserted, err
	}
	return p.inserted, err
}

// call runs a user's function in a transaction, which it shares if it can. It
// does not return before the function has.
func (b *batcher) call(ctx context.Context, f *Func) error {
	err := ErrApart
	if b.traits.SharedTx {
		err = b.await(ctx, &part{done: make(chan struct{}, 1), fn: f})
	}
	if errors.Is(err, ErrApart) {
		err = b.callApart(ctx, f)
	}
	if f.Earlier != nil {
		<-f.Earlier
	}
	return err
}

// callApart runs a function in a transaction of its own.
func (b *batcher) callApart(ctx context.Context, f *Func) error {
	b.mu.Lock()
	closed := b.closed
	b.mu.Unlock()
	if closed {
		return ErrClosed
	}
	err := b.store.InTx(ctx, f)
	if err == nil {
		err = f.Err
	}
	if err == nil && len(f.Inserts) > 0 {
		b.tellEngine((*Engine).wake)
	}
	return err
}

func (b *batcher) fire(ctx context.Context, f Fire) (FireResult, error) {
	p := &part{done: make(chan struct{}, 1), fire: &f}
	if err := b.await(ctx, p); err != nil {
		return FireResult{}, err
	}
	return p.fired, nil
}

// await leaves a part for the next batch and waits for its end.
func (b *batcher) await(ctx context.Context, p *part) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	if b.callers.Add(1) > b.maxWaiting {
		b.callers.Add(-1)
		return fmt.Errorf("%w: %d callers wait for a commit already", ErrUnavailable, b.maxWaiting)
	}
	defer b.callers.Add(-1)
	p.begin(b.timeout)
	defer p.timer.Stop()

	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return ErrClosed
	}
	b.waiting.push(p)
	b.start()
	b.mu.Unlock()

	select {
	case <-p.done:
		return p.err
	case <-ctx.Done():
		return p.leave(context.Cause(ctx))
	case <-p.timer.C:
		return p.leave(fmt.Errorf("%w: no commit within %v", ErrUnavailable, b.timeout))
	}
}

// recycle keeps a part whose end its caller has seen for another one.
func (b *batcher) recycle(p *part) {
	clear(p.inserts)
	b.parts.Put(p)
}

// finish hands the outcome of a run over. It is committed whatever happens, as
// long as the process lives.
func (b *batcher) finish(r *run) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.outcomes.push(r)
	b.start()
}

// report hands the progress of a run over.
func (b *batcher) report(r *run) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.progress = append(b.progress, r)
	b.start()
}

// kick looks whether there is something to do.
func (b *batcher) kick() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.start()
}

// start starts a committer if there may be work for one more. The caller
// holds the lock.
func (b *batcher) start() {
	if b.committers < b.traits.Committers {
		b.committers++
		b.ended.Go(b.run)
	}
}

func (b *batcher) run() {
	var c commit
	for b.fill(&c) {
		b.perform(&c)
		// Those who were answered just now may have more to add: letting them
		// run first makes batches fuller, and an idle queue does not notice.
		runtime.Gosched()
	}
}

// attach makes e the engine that batches claim for.
func (b *batcher) attach(e *Engine) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.closed:
		return fmt.Errorf("durable: start the engine: %w", ErrClosed)
	case b.engine != nil && b.engine != e:
		return fmt.Errorf("durable: another engine runs on this queue; make one engine with all handlers, or a Queue for each")
	}
	b.engine = e
	return nil
}

func (b *batcher) detach(e *Engine) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.engine == e {
		b.engine = nil
	}
}

// tellEngine calls f with the engine, if there is one.
func (b *batcher) tellEngine(f func(*Engine)) {
	b.mu.Lock()
	e := b.engine
	b.mu.Unlock()
	if e != nil {
		f(e)
	}
}

// withoutClaims runs f while no commit that claims is under way.
func (b *batcher) withoutClaims(ctx context.Context, f func()) error {
	b.mu.Lock()
	b.held++
	for b.claiming > 0 {
		if b.quiet == nil {
			b.quiet = make(chan struct{})
		}
		quiet := b.quiet
		b.mu.Unlock()
		select {
		case <-quiet:
		case <-ctx.Done():
			b.mu.Lock()
			b.held--
			b.mu.Unlock()
			return context.Cause(ctx)
		}
		b.mu.Lock()
	}
	b.mu.Unlock()
	f()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.held--
	b.start()
	return nil
}

// claimed says that a commit that claimed is over. The caller holds the lock.
func (b *batcher) claimsOver() {
	b.claiming--
	if b.claiming == 0 && b.quiet != nil {
		close(b.quiet)
		b.quiet = nil
	}
}

// close refuses what comes and waits for what there is.
func (b *batcher) close(ctx context.Context) error {
	b.mu.Lock()
	b.closed = true
	if b.idle == nil {
		b.idle = make(chan struct{})
		b.start() // a committer notices that there is nothing left
	}
	idle := b.idle
	b.mu.Unlock()
	select {
	case <-idle:
		b.ended.Wait()
		return nil
	case <-ctx.Done():
		return fmt.Errorf("durable: close the queue: %w; what it was given last is not committed: %w", context.Cause(ctx), b.failing())
	}
}

// failing returns why the store does not commit, nil if it does.
func (b *batcher) failing() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.outage.fails == 0 {
		return nil
	}
	return fmt.Errorf("durable: the store has not committed since %s: %w", b.outage.since.Format(time.RFC3339), b.outage.err)
}
