package durable

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// A commit is a batch and what it is made of. A committer uses one again and
// again.
type commit struct {
	batch    Batch
	inserts  []*part // whose inserts are in the batch, in its order
	funcs    []*part // likewise
	fires    []*part
	outcomes []*run
	progress []*run
	offers   []offer // of the claims
	engine   *Engine // that it claims for, and whose outcomes these are
	offered  bool    // the engine has been asked for claims
	claims   bool    // it has made some
	answered bool    // the engine knows how it went
}

func (c *commit) reset() {
	b := &c.batch
	clear(b.Funcs)
	clear(b.Finishes)
	clear(b.Progress)
	clear(b.Fires)
	clear(b.Inserts)
	*b = Batch{
		Funcs: b.Funcs[:0], Finishes: b.Finishes[:0], Progress: b.Progress[:0],
		Fires: b.Fires[:0], Inserts: b.Inserts[:0], Claims: b.Claims[:0],
	}
	for _, s := range []*[]*part{&c.inserts, &c.funcs, &c.fires} {
		clear(*s)
		*s = (*s)[:0]
	}
	for _, s := range []*[]*run{&c.outcomes, &c.progress} {
		clear(*s)
		*s = (*s)[:0]
	}
	c.offers, c.engine, c.offered, c.claims, c.answered = c.offers[:0], nil, false, false, false
}

func (c *commit) size() int { return len(c.batch.Inserts) + len(c.batch.Finishes) }

func (c *commit) empty() bool {
	return c.size() == 0 && len(c.funcs) == 0 && len(c.fires) == 0 && len(c.progress) == 0 && len(c.batch.Claims) == 0
}

func (c *commit) addPart(p *part) {
	switch {
	case p.fire != nil:
		c.fires = append(c.fires, p)
		c.batch.Fires = append(c.batch.Fires, *p.fire)
	case p.fn != nil:
		c.funcs = append(c.funcs, p)
		c.batch.Funcs = append(c.batch.Funcs, p.fn)
	case p.group != nil && !c.batch.Again:
		c.funcs = append(c.funcs, p)
		c.batch.Funcs = append(c.batch.Funcs, p.group)
	default:
		c.inserts = append(c.inserts, p)
		c.batch.Inserts = append(c.batch.Inserts, p.inserts...)
	}
}

func (c *commit) addOutcome(r *run) {
	c.engine = r.engine
	c.outcomes = append(c.outcomes, r)
	c.batch.Finishes = append(c.batch.Finishes, r.finish)
}

// fill closes a batch. It reports false, and ends the committer, if there is
// nothing to do.
func (b *batcher) fill(c *commit) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	c.reset()
	b.compose(c)
	if !c.empty() {
		return true
	}
	b.committers--
	if b.idle != nil && b.committers == 0 && b.outcomes.len()+len(b.again.parts)+len(b.again.outcomes) == 0 {
		select {
		case <-b.idle:
		default:
			close(b.idle)
		}
	}
	return false
}

func (b *batcher) compose(c *commit) {
	free := b.outage.fails == 0 || !time.Now().Before(b.outage.next)
	if free && b.composeAgain(c) {
		return
	}
	if b.engine != nil {
		c.engine, c.batch.Boot = b.engine, b.engine.currentBoot()
	}
	if free {
		b.boardOutcomes(c)
		b.boardProgress(c)
	}
	b.boardParts(c)
	if free && b.held == 0 && b.engine != nil {
		if b.engine.offer(c); len(c.batch.Claims) > 0 {
			c.claims = true
			b.claiming++
		}
	}
}

// composeAgain makes a batch of what may have been committed already.
func (b *batcher) composeAgain(c *commit) bool {
	if len(b.again.parts)+len(b.again.outcomes) == 0 {
		return false
	}
	c.batch.Again = true
	for _, p := range b.again.parts {
		if !p.gone() {
			c.addPart(p)
		}
	}
	b.again.parts = nil
	left := b.again.outcomes[:0]
	for _, r := range b.again.outcomes {
		if len(c.outcomes) == 0 {
			c.batch.Boot = r.boot
		}
		if r.boot == c.batch.Boot {
			c.addOutcome(r)
		} else {
			left = append(left, r)
		}
	}
	clear(b.again.outcomes[len(left):])
	b.again.outcomes = left
	if c.empty() {
		c.batch.Again = false
		return false
	}
	return true
}

// boardOutcomes takes the outcomes of one boot: there is more than one only
// after a lease was lost.
func (b *batcher) boardOutcomes(c *commit) {
	for b.outcomes.len() > 0 && c.size() < b.traits.MaxBatch {
		r := b.outcomes.peek()
		if len(c.outcomes) == 0 {
			c.batch.Boot = r.boot
		}
		if r.boot != c.batch.Boot {
			return
		}
		c.addOutcome(b.outcomes.pop())
	}
}

func (b *batcher) boardProgress(c *commit) {
	left := b.progress[:0]
	for _, r := range b.progress {
		if len(c.outcomes)+len(c.progress) == 0 {
			c.engine, c.batch.Boot = r.engine, r.boot
		}
		if r.boot != c.batch.Boot || len(c.progress) == b.traits.MaxBatch {
			left = append(left, r)
			continue
		}
		c.progress = append(c.progress, r)
		c.batch.Progress = append(c.batch.Progress, ProgressUpdate{r.claimed.Ref, r.progress.take()})
	}
	clear(b.progress[len(left):])
	b.progress = left
}

// boardParts takes callers' parts in order. One goes along in any case, so
// that neither outcomes nor its own size can keep it waiting.
func (b *batcher) boardParts(c *commit) {
	for n := 0; b.waiting.len() > 0; {
		p := b.waiting.peek()
		if n > 0 && c.size()+len(c.funcs)+len(p.inserts) > b.traits.MaxBatch {
			return
		}
		b.waiting.pop()
		if p.board() {
			c.addPart(p)
			n++
		}
	}
}

// perform commits a batch and sees to what could not be.
func (b *batcher) perform(c *commit) {
	err := b.commit(c)
	if err == nil {
		return
	}
	b.answer(c, nil, err)
	switch {
	case errors.Is(err, ErrUnknown):
		b.unknown(c, err)
	case unavailable(err):
		b.failed(c, err)
	default:
		b.bisect(c, err)
	}
}

func unavailable(err error) bool {
	return errors.Is(err, ErrUnavailable) || errors.Is(err, ErrFull) || errors.Is(err, context.DeadlineExceeded)
}

// commit commits a batch and settles everything in it, or returns an error and
// settles nothing.
func (b *batcher) commit(c *commit) error {
	ctx, cancel := context.WithTimeout(context.Background(), b.timeout)
	defer cancel()
	res, err := b.store.Commit(ctx, &c.batch)
	if err != nil {
		return err
	}
	b.recovered(c)
	b.answer(c, res, nil)
	i := 0
	for _, p := range c.inserts {
		n := len(p.inserts)
		p.inserted = append(p.inserted[:0], res.Inserted[i:i+n]...)
		p.settle(nil)
		i += n
	}
	for _, p := range c.funcs {
		f := p.fn
		if f == nil {
			f = p.group
			p.inserted = f.Inserted
		}
		p.settle(f.Err)
	}
	for i, p := range c.fires {
		p.fired = res.Fired[i]
		p.settle(nil)
	}
	if !c.offered && len(c.inserts)+len(c.funcs)+len(c.fires) > 0 {
		b.tellEngine((*Engine).wake)
	}
	return nil
}

// answer tells the engine how a batch went, once.
func (b *batcher) answer(c *commit, res *BatchResult, err error) {
	if c.answered {
		return
	}
	c.answered = true
	if c.engine != nil {
		c.engine.settle(c, res, err)
	}
	if c.claims {
		b.mu.Lock()
		b.claimsOver()
		b.mu.Unlock()
	}
}

// unknown keeps what can be tried again without being done twice, and tells
// the others.
func (b *batcher) unknown(c *commit, err error) {
	const most = 4
	for _, p := range c.fires {
		p.settle(err)
	}
	var parts []*part
	for _, p := range append(c.inserts, c.funcs...) {
		if p.tries++; p.fn != nil || p.tries > most {
			p.settle(err)
		} else {
			parts = append(parts, p)
		}
	}
	b.mu.Lock()
	b.again.parts = append(b.again.parts, parts...)
	b.again.outcomes = append(b.again.outcomes, c.outcomes...)
	b.mu.Unlock()
	b.setback(err)
}

// failed sees to a batch of which nothing has happened since the store is not
// available. Of a batch that is Again that is only true of this time.
func (b *batcher) failed(c *commit, err error) {
	if c.batch.Again {
		b.unknown(c, fmt.Errorf("%w, and then: %w", ErrUnknown, err))
		return
	}
	if !errors.Is(err, ErrUnavailable) {
		err = fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	for _, ps := range [][]*part{c.inserts, c.funcs, c.fires} {
		for _, p := range ps {
			p.settle(err)
		}
	}
	b.mu.Lock()
	for _, r := range c.outcomes {
		b.outcomes.push(r)
	}
	b.mu.Unlock()
	b.setback(err)
}

// Back-off of what the store is asked of its own accord while it does not
// commit: doubling from first to most.
const (
	setbackFirst = 20 * time.Millisecond
	setbackMost  = time.Second
)

// setback notes that the store does not commit.
func (b *batcher) setback(err error) {
	b.mu.Lock()
	o := &b.outage
	if o.fails == 0 {
		o.since = time.Now()
	}
	o.fails++
	o.err = err
	wait := min(setbackFirst<<min(o.fails-1, 10), setbackMost)
	wait += rand.N(wait / 4)
	o.next = time.Now().Add(wait)
	if o.retry == nil {
		o.retry = time.AfterFunc(wait, b.kick)
	} else {
		o.retry.Reset(wait)
	}
	first, e := o.fails == 1, b.engine
	b.mu.Unlock()
	if first && e != nil {
		e.emit(CommitFailed{Err: err})
	}
}

// recovered notes that the store commits. Where there is an engine, its own
// commits say so: what callers add may go through while outcomes do not.
func (b *batcher) recovered(c *commit) {
	b.mu.Lock()
	since, e := b.outage.since, b.engine
	back := b.outage.fails > 0 && (e == nil || c.claims || c.batch.Again || len(c.outcomes)+len(c.progress) > 0)
	if back {
		b.outage.retry.Stop()
		b.outage.fails, b.outage.err = 0, nil
	}
	b.mu.Unlock()
	if back && e != nil {
		e.emit(StoreBack{After: time.Since(since)})
	}
}
