package durable_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wake-go/wake/durable"
)

// eachInTx runs a test with transactions of their own and with shared ones.
func eachInTx(t *testing.T, f func(b *bed)) {
	for _, shared := range []bool{false, true} {
		t.Run(fmt.Sprint("shared ", shared), func(t *testing.T) {
			inBubble(t, func(b *bed) {
				b.queue(durable.QueueConfig{}, func(traits *durable.Traits) { traits.SharedTx = shared })
				f(b)
			})
		})
	}
}

func TestInTxJoins(t *testing.T) {
	eachInTx(t, func(b *bed) {
		b.run(durable.EngineConfig{}, handler(nothing))
		var ids []durable.ID
		var kept context.Context
		err := b.q.InTx(b.ctx, func(ctx context.Context, tx *durable.SQLTx) error {
			kept = ctx
			ids = []durable.ID{tx.Add(work.With("a"))}
			id, err := b.q.Add(ctx, work.With("b"))
			all, err2 := b.q.AddAll(ctx, work.With("c"), work.With("d"))
			err3 := b.q.InTx(ctx, func(ctx context.Context, tx *durable.SQLTx) error {
				ids = append(ids, tx.Add(work.With("e")))
				return nil
			})
			ids = append(append(ids, id), all...)
			for _, id := range ids {
				if _, err := b.q.WaitFor(ctx, id); !errors.Is(err, durable.ErrNotCommitted) {
					b.t.Errorf("waiting inside: %v", err)
				}
				if _, err := b.memory.Get(ctx, id); !errors.Is(err, durable.ErrNotFound) {
					b.t.Errorf("it is there before the commit: %v", err)
				}
			}
			return errors.Join(err, err2, err3)
		})
		if err != nil || len(ids) != 5 {
			b.t.Fatal(len(ids), err)
		}
		for _, id := range ids {
			b.wantState(id, durable.Succeeded)
		}
		id, err := b.q.Add(kept, work.With("after"))
		if err != nil {
			b.t.Fatal(err)
		}
		b.wantState(id, durable.Succeeded)
	})
}

func TestInTxRollsBack(t *testing.T) {
	eachInTx(t, func(b *bed) {
		no := errors.New("no")
		var id durable.ID
		for name, c := range map[string]struct {
			end  func(ctx context.Context, tx *durable.SQLTx) error
			want func(error) bool
		}{
			"error":  {func(context.Context, *durable.SQLTx) error { return no }, func(err error) bool { return errors.Is(err, no) }},
			"panic":  {func(context.Context, *durable.SQLTx) error { panic(no) }, func(err error) bool { var p *durable.PanicError; return errors.As(err, &p) && errors.Is(err, no) }},
			"Goexit": {func(context.Context, *durable.SQLTx) error { runtime.Goexit(); return nil }, func(err error) bool { return errors.Is(err, durable.ErrGoexit) }},
			"a job that cannot be added": {func(_ context.Context, tx *durable.SQLTx) error { tx.Add(durable.Job{}); return nil },
				func(err error) bool { return strings.Contains(err.Error(), "empty Job") }},
		} {
			err := b.q.InTx(b.ctx, func(ctx context.Context, tx *durable.SQLTx) error {
				id = tx.Add(work.With("a"))
				return c.end(ctx, tx)
			})
			if err == nil || !c.want(err) || !strings.HasPrefix(err.Error(), "durable: ") {
				b.t.Errorf("%s: %v", name, err)
			}
			if _, err := b.q.Get(b.ctx, id); !errors.Is(err, durable.ErrNotFound) {
				b.t.Errorf("%s: the task is there: %v", name, err)
			}
		}
		b.add(work.With("the queue works still"))
	})
}

func TestAFunctionThatCannotShare(t *testing.T) {
	inBubble(t, func(b *bed) {
		b.queue(durable.QueueConfig{}, func(traits *durable.Traits) { traits.SharedTx = true })
		b.faults.apart = true
		b.faults.deaf = true
		b.run(durable.EngineConfig{Poll: time.Hour}, handler(nothing))
		var id durable.ID
		if err := b.q.InTx(b.ctx, func(_ context.Context, tx *durable.SQLTx) error { id = tx.Add(work.With("")); return nil }); err != nil {
			t.Fatal(err)
		}
		b.wantState(id, durable.Succeeded)
		ids, err := b.q.AddAll(b.ctx, work.With(""), work.With(""))
		if err != nil {
			t.Fatal(err)
		}
		b.wantState(ids[1], durable.Succeeded)
	})
}

func TestTwoQueuesTransactionsNest(t *testing.T) {
	inBubble(t, func(b *bed) {
		other := durable.NewQueue(b.memory)
		defer other.Close(context.Background())
		var first, second durable.ID
		err := b.q.InTx(b.ctx, func(ctx context.Context, _ *durable.SQLTx) error {
			return other.InTx(ctx, func(ctx context.Context, _ *durable.SQLTx) (err error) {
				if first, err = b.q.Add(ctx, work.With("")); err != nil {
					return err
				}
				if _, err := b.q.Get(ctx, first); !errors.Is(err, durable.ErrNotFound) {
					t.Errorf("the outer queue's task is there before its commit: %v", err)
				}
				second, err = other.Add(ctx, work.With(""))
				return err
			})
		})
		if err != nil {
			t.Fatal(err)
		}
		b.wantState(first, durable.Ready)
		b.wantState(second, durable.Ready)
	})
}

func TestAddTxOfAForeignTransaction(t *testing.T) {
	inBubble(t, func(b *bed) {
		if _, err := b.q.AddTx(b.ctx, &sql.Tx{}, work.With("")); !errors.Is(err, durable.ErrForeignTx) {
			t.Errorf("got %v", err)
		}
	})
}

func TestWithPending(t *testing.T) {
	inBubble(t, func(b *bed) {
		one, two, three := durable.NewID(), durable.NewID(), b.add(work.With(""))
		ctx := durable.WithPending(b.ctx, func(id durable.ID) bool { return id == one })
		ctx = durable.WithPending(ctx, func(id durable.ID) bool { return id == two })
		for _, id := range []durable.ID{one, two} {
			if _, err := b.q.WaitFor(ctx, id); !errors.Is(err, durable.ErrNotCommitted) {
				t.Errorf("got %v", err)
			}
		}
		ctx, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		if _, err := b.q.WaitFor(ctx, three); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	})
}

// transactions is a store with user transactions, which commit when told to.
type transactions struct {
	*faults
	mu     sync.Mutex
	boot   durable.Boot
	finish durable.Finish
	asked  int
}

func (s *transactions) FinishTx(_ context.Context, _ durable.Tx, boot durable.Boot, f durable.Finish) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.boot, s.finish = boot, f
	return true, nil
}

func (s *transactions) Finished(ctx context.Context, boot durable.Boot, ref durable.Ref) (bool, error) {
	s.mu.Lock()
	s.asked++
	first := s.asked == 1
	s.mu.Unlock()
	if first {
		return false, durable.ErrUnavailable
	}
	return s.faults.Finished(ctx, boot, ref)
}

func (s *transactions) commitTx(ctx context.Context) error {
	_, err := s.memory().Commit(ctx, &durable.Batch{Boot: s.boot, Finishes: []durable.Finish{s.finish}})
	return err
}

func (s *transactions) memory() durable.Store { return s.faults.Store }

func TestFinishTx(t *testing.T) {
	late := errors.New("late")
	for name, c := range map[string]struct {
		commit  bool
		returns error
		state   durable.State
		message string
	}{
		"committed":                    {true, nil, durable.Succeeded, ""},
		"committed, and then an error": {true, late, durable.Succeeded, ""},
		"not committed":                {false, nil, durable.Dead, "not committed"},
		"not committed, and an error":  {false, late, durable.Dead, "late"},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(b *bed) {
				store := &transactions{faults: b.faults}
				q := durable.NewQueue(store)
				b.q.Close(b.ctx)
				b.q = q
				kind := durable.Declare[string]("work", durable.MaxAttempts(1))
				b.run(durable.EngineConfig{Queues: map[string]int{"default": 1}}, kind.Run(func(ctx context.Context, arg string) error {
					if arg != "" {
						return nil
					}
					if err := durable.FinishTx(ctx, nil); err != nil {
						return err
					}
					if c.commit {
						if err := store.commitTx(ctx); err != nil {
							return err
						}
					}
					return c.returns
				}))
				id := b.add(kind.With(""))
				rest(time.Minute)
				task := b.wantState(id, c.state)
				if c.message != "" && !strings.Contains(task.Errors[0].Message, c.message) {
					t.Errorf("errors %+v", task.Errors)
				}
				if n := len(of[durable.TaskFinished](b.events)); n != 1 {
					t.Errorf("%d events", n)
				}
				b.wantState(b.add(kind.With("next")), durable.Succeeded) // the place is free
				if err := q.Close(b.ctx); err == nil {
					return
				}
			})
		})
	}
	if err := durable.FinishTx(context.Background(), nil); err == nil {
		t.Error("FinishTx outside of a task")
	}
}

func TestWaitIsWokenByTheEnd(t *testing.T) {
	inBubble(t, func(b *bed) {
		b.faults.deaf = true
		b.run(durable.EngineConfig{}, handler(func(context.Context, string) error { time.Sleep(7777 * time.Millisecond); return nil }))
		first := b.add(work.With("").Key("k"))
		alias := b.add(work.With("").Key("k"))
		start := time.Now()
		for _, id := range []durable.ID{first, alias} {
			go func() {
				if task, err := b.q.WaitFor(b.ctx, id); err != nil || task.State != durable.Succeeded || task.ID != first {
					t.Errorf("got %+v, %v", task, err)
				}
				if took := time.Since(start); took != 7777*time.Millisecond {
					t.Errorf("it took %v", took)
				}
			}()
		}
		rest(10 * time.Second)
	})
}

func TestWaitSeesWhatRunsElsewhere(t *testing.T) {
	inBubble(t, func(b *bed) {
		b.faults.deaf = true
		b.run(durable.EngineConfig{}, handler(func(context.Context, string) error { time.Sleep(time.Minute); return nil }))
		other := durable.NewQueue(b.faults) // as in another process
		defer other.Close(b.ctx)
		id := b.add(work.With(""))
		start := time.Now()
		if _, err := other.WaitFor(b.ctx, id); err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took > 61*time.Second {
			t.Errorf("it took %v", took)
		}
		if _, err := other.WaitFor(b.ctx, durable.NewID()); !errors.Is(err, durable.ErrNotFound) {
			t.Errorf("an id that does not exist: %v", err)
		}
	})
}

func TestWatch(t *testing.T) {
	inBubble(t, func(b *bed) {
		b.run(durable.EngineConfig{}, handler(func(ctx context.Context, _ string) error {
			for i := range 3 {
				time.Sleep(time.Second)
				durable.Progress(ctx, i+1, 3, "")
			}
			time.Sleep(time.Second)
			return nil
		}))
		var seen []string
		for task, err := range b.q.Watch(b.ctx, b.add(work.With(""))) {
			if err != nil {
				t.Fatal(err)
			}
			line := task.State.String()
			if task.Progress != nil {
				line += fmt.Sprint(task.Progress.Done)
			}
			seen = append(seen, line)
		}
		if got := strings.Join(seen, " "); !strings.HasSuffix(got, "running running1 running2 running3 succeeded3") {
			t.Errorf("saw %s", got)
		}
		synctest.Wait()
	})
}
