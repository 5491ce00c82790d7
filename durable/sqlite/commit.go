package sqlite

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/wake-go/wake/durable"
)

// funcShare is how much longer than one of its functions may take all those of
// a transaction may: the others are run in transactions of their own, between
// which there is room for everybody else.
const funcShare = 4

// errFuncBroke ends a transaction that a user's function has broken: it is
// begun again without that function.
var errFuncBroke = errors.New("a function has ended the transaction that it shared")

func errDiskFull() error {
	return fmt.Errorf("durable: sqlite: %w: %w: nothing is added until there is room again; what runs is finished", durable.ErrUnavailable, durable.ErrFull)
}

// Commit does the work of a batch in one transaction.
func (s *Store) Commit(ctx context.Context, b *durable.Batch) (*durable.BatchResult, error) {
	if s.ended.Err() != nil {
		return nil, durable.ErrClosed
	}
	if ctx.Err() != nil {
		return nil, fmt.Errorf("durable: sqlite: commit: %w", context.Cause(ctx))
	}
	full := s.ballast.missing()
	if err := s.enter(ctx, true); err != nil {
		return nil, err
	}
	defer s.leave()
	res, err := s.commit(b, full)
	if !full && isFull(explained(err)) && s.ballast.giveUp() {
		res, err = s.commit(b, true) // with the room that the ballast had
	}
	if err != nil {
		return nil, explained(err)
	}
	return res, nil
}

// commit tries until no function breaks the transaction. On a full disk it
// refuses what is new, and finishes what runs.
func (s *Store) commit(b *durable.Batch, full bool) (res *durable.BatchResult, err error) {
	w := s.writer
	out := map[*durable.Func]bool{} // has had its turn
	until := time.Now().Add(funcShare * s.cfg.FuncBudget)
	news := b
	if full {
		news = &durable.Batch{}
		for _, f := range b.Funcs {
			f.Err = errDiskFull()
		}
	}
	for {
		err := w.transact(func() error {
			var err error
			res, err = s.work(w, b, news, out, until)
			return err
		})
		if errors.Is(err, errFuncBroke) {
			continue
		}
		if full && err == nil {
			refuse(b, res)
		}
		return res, err
	}
}

// refuse answers what is not added to a full disk. A schedule that has not
// fired is looked at again.
func refuse(b *durable.Batch, res *durable.BatchResult) {
	res.Fired = make([]durable.FireResult, len(b.Fires))
	res.Inserted = make([]durable.Inserted, len(b.Inserts))
	for i := range res.Inserted {
		res.Inserted[i] = durable.Inserted{ID: b.Inserts[i].ID, Err: errDiskFull()}
	}
}

// work is what happens in the transaction: of b, and of its new tasks those in
// news.
func (s *Store) work(w *writer, b, news *durable.Batch, out map[*durable.Func]bool, until time.Time) (*durable.BatchResult, error) {
	now := s.clock.now()
	res := &durable.BatchResult{Now: now}
	var err error
	for _, f := range news.Funcs {
		if out[f] {
			continue
		}
		if time.Now().After(until) {
			f.Err, out[f] = errNoTimeLeft, true
			continue
		}
		if err := s.share(w, f, now, out); err != nil {
			return nil, err
		}
	}
	if len(b.Finishes) > 0 {
		if res.Finished, err = w.finishAll(b.Boot, b.Finishes, now, b.Again); err != nil {
			return nil, err
		}
	}
	if len(b.Progress) > 0 {
		if res.Progressed, err = w.progressAll(b.Boot, b.Progress, now); err != nil {
			return nil, err
		}
	}
	if len(news.Fires) > 0 {
		if res.Fired, err = w.fireAll(news.Fires, now, b.Again); err != nil {
			return nil, err
		}
	}
	if len(news.Inserts) > 0 {
		if res.Inserted, err = insertAll(w, news.Inserts, now, b.Again, make([]durable.Inserted, 0, len(news.Inserts))); err != nil {
			return nil, err
		}
	}
	if err := w.promote(micros(now)); err != nil {
		return nil, err
	}
	if len(b.Claims) > 0 {
		if res.Claimed, err = w.claimAll(b.Boot, b.Claims, micros(now)); err != nil {
			return nil, err
		}
	}
	due, err := w.nextDue()
	if err != nil {
		return nil, err
	}
	res.NextDue = timeOf(due)
	return res, nil
}

// share runs a function in the transaction that it shares with others, in a
// savepoint of its own.
func (s *Store) share(w *writer, f *durable.Func, now time.Time, out map[*durable.Func]bool) error {
	if _, err := w.exec(`SAVEPOINT wake_func`); err != nil {
		return err
	}
	err := s.runFunc(w, f, s.cfg.FuncBudget)
	if err == nil {
		f.Inserted, err = insertAll(w, f.Inserts, now, false, nil)
		if err == nil {
			err = firstError(f.Inserted)
		}
	}
	if err == nil {
		if _, err = w.exec(`RELEASE wake_func`); err == nil {
			return nil
		}
	}
	f.Err, f.Inserted = explained(err), nil
	out[f] = errors.Is(err, durable.ErrApart)
	if _, undone := w.exec(`ROLLBACK TO wake_func`); undone != nil {
		out[f] = true
		return errFuncBroke
	}
	_, err = w.exec(`RELEASE wake_func`)
	// What was learnt in the savepoint, of lanes for one, is not so.
	w.lanes.begin()
	if err == nil {
		err = w.refresh()
	}
	return err
}

func firstError(inserted []durable.Inserted) error {
	for _, in := range inserted {
		if in.Err != nil {
			return in.Err
		}
	}
	return nil
}
