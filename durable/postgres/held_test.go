package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/wake-go/wake/durable"
	"github.com/wake-go/wake/durable/postgres"
)

// quickly fails the test if f takes as long as something that waits for a lock.
func quickly(t *testing.T, what string, f func() error) {
	t.Helper()
	start := time.Now()
	if err := f(); err != nil {
		t.Errorf("%s: %v", what, err)
	}
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("%s took %v", what, took)
	}
}

// A user's transaction that has added a task with a key, and stays open, makes
// nobody wait but those who add the same key, and those not for long.
func TestAnOpenTransactionHoldsAKey(t *testing.T) {
	s := open(t, postgres.Config{LockTimeout: 300 * time.Millisecond})
	boot := register(t, s, durable.Node{})
	tx, err := s.DB().Begin()
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	held := newInsert("a")
	held.Key = "k"
	if _, err := s.InsertTx(t.Context(), durable.SQL(tx), []durable.Insert{held}); err != nil {
		t.Fatal(err)
	}
	same, other := newInsert("a"), newInsert("a")
	same.Key, other.Key = "k", "l"
	quickly(t, "tasks without a key", func() error {
		res, err := s.Commit(t.Context(), &durable.Batch{Boot: boot, Inserts: []durable.Insert{newInsert("b")}, Claims: claims(1, "b")})
		if err == nil && len(res.Claimed) != 1 {
			err = fmt.Errorf("claimed %v", res.Claimed)
		}
		return err
	})
	quickly(t, "the same key", func() error {
		res, err := s.Commit(t.Context(), &durable.Batch{Boot: boot, Inserts: []durable.Insert{same, newInsert("b"), other}})
		if err == nil && (!errors.Is(res.Inserted[0].Err, durable.ErrUnavailable) || res.Inserted[1].Err != nil || res.Inserted[2].Err != nil) {
			err = fmt.Errorf("answered %+v", res.Inserted)
		}
		return err
	})
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	if in := commit(t, s, &durable.Batch{Boot: boot, Inserts: []durable.Insert{same}}).Inserted[0]; in != (durable.Inserted{ID: held.ID, Duplicate: true}) {
		t.Errorf("the key, when the transaction has committed: %+v", in)
	}
}

// A user's transaction that has finished a task, and stays open, holds up no
// beat, sweep, claim or outcome of another task.
func TestAnOpenTransactionHoldsATask(t *testing.T) {
	s := open(t, postgres.Config{LockTimeout: 300 * time.Millisecond})
	boot, other := register(t, s, durable.Node{}), register(t, s, durable.Node{})
	batch := &durable.Batch{Boot: boot, Claims: claims(9, "a")}
	for range 3 {
		batch.Inserts = append(batch.Inserts, newInsert("a"))
	}
	claimed := commit(t, s, batch).Claimed
	tx, err := s.DB().Begin()
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	success := func(i int) durable.Finish { return durable.Finish{Ref: claimed[i].Ref, Move: durable.MoveSucceed} }
	if ok, err := s.FinishTx(t.Context(), durable.SQL(tx), boot, success(0)); err != nil || !ok {
		t.Fatal(ok, err)
	}
	quickly(t, "a beat", func() error { _, err := s.Beat(t.Context(), boot); return err })
	quickly(t, "progress", func() error {
		res, err := s.Commit(t.Context(), &durable.Batch{Boot: boot, Progress: []durable.ProgressUpdate{{Ref: claimed[0].Ref}, {Ref: claimed[1].Ref}}})
		if err == nil && (!res.Progressed[0] || !res.Progressed[1]) {
			err = fmt.Errorf("answered %v", res.Progressed)
		}
		return err
	})
	quickly(t, "outcomes", func() error {
		res, err := s.Commit(t.Context(), &durable.Batch{Boot: boot, Finishes: []durable.Finish{success(0), success(1)}})
		if err == nil && (res.Finished[0] || !res.Finished[1]) {
			err = fmt.Errorf("answered %v", res.Finished)
		}
		return err
	})
	quickly(t, "a reconciliation", func() error { _, err := s.Reconcile(t.Context(), boot, []durable.Ref{claimed[2].Ref}); return err })
	quickly(t, "cancelling it", func() error {
		if _, err := s.Cancel(t.Context(), claimed[0].Ref.ID); !errors.Is(err, durable.ErrUnavailable) {
			return fmt.Errorf("answered %v", err)
		}
		return nil
	})
	s.Advance(time.Minute)
	quickly(t, "a sweep", func() error {
		swept, err := s.Sweep(t.Context(), other)
		if err == nil && swept != (durable.Swept{Recovered: 1}) {
			err = fmt.Errorf("swept %+v", swept)
		}
		return err
	})
	if _, err := s.Beat(t.Context(), boot); !errors.Is(err, durable.ErrLeaseLost) {
		t.Errorf("a beat of the one that was swept: %v", err)
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	if swept, err := s.Sweep(t.Context(), other); err != nil || swept != (durable.Swept{Recovered: 1, Nodes: 1}) {
		t.Errorf("swept what was held: %+v, %v", swept, err)
	}
}

// Many who add the same keys in different orders are never in each other's way
// so that one fails.
func TestKeysInEveryOrder(t *testing.T) {
	s := open(t, postgres.Config{LockTimeout: 10 * time.Second})
	const workers, rounds, keys = 6, 10, 20
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for round := range rounds {
				b := &durable.Batch{}
				for i := range keys {
					in := newInsert("a")
					in.Key = fmt.Sprint(round, "/", (i*7*(w+1)+w)%keys)
					b.Inserts = append(b.Inserts, in)
				}
				res, err := s.Commit(context.Background(), b)
				if err != nil {
					t.Error(err)
					return
				}
				for _, in := range res.Inserted {
					if in.Err != nil {
						t.Error(in.Err)
					}
				}
			}
		})
	}
	wg.Wait()
	all, err := s.List(t.Context(), durable.Filter{}, durable.Page{Limit: 1000})
	if err != nil || len(all) != rounds*keys {
		t.Errorf("%d tasks, %v; want %d", len(all), err, rounds*keys)
	}
}

// All connections that users may have are taken: what the store does itself
// goes on, and who wants one more waits for as long as its context lets it.
func TestUsersHaveAllConnections(t *testing.T) {
	s := open(t, postgres.Config{MaxConns: 8})
	for range s.DB().Stats().MaxOpenConnections {
		tx, err := s.DB().Begin()
		if err != nil {
			t.Fatal(err)
		}
		defer tx.Rollback()
	}
	boot := register(t, s, durable.Node{})
	quickly(t, "a commit", func() error { _, err := s.Commit(t.Context(), &durable.Batch{Boot: boot}); return err })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := s.InTx(ctx, &durable.Func{Run: func(*durable.SQLTx) error { return nil }}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a function: %v", err)
	}
}

// A transaction of pgx adds and finishes tasks as one of database/sql does.
func TestTransactionsOfPgx(t *testing.T) {
	server := serverURL(t)
	s := open(t, postgres.Config{URL: server})
	boot := register(t, s, durable.Node{})
	conn, err := pgx.Connect(t.Context(), server)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ins := []durable.Insert{newInsert("a"), newInsert("a")}
	ins[1].Key, ins[1].Tags, ins[1].Payload = "k", []string{"t"}, make([]byte, 5000)
	if _, err := s.InsertTx(t.Context(), durable.Pgx(tx), ins); err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	claimed := commit(t, s, &durable.Batch{Boot: boot, Claims: claims(9, "a")}).Claimed
	if len(claimed) != 2 {
		t.Fatalf("claimed %v", claimed)
	}
	if tx, err = conn.Begin(t.Context()); err != nil {
		t.Fatal(err)
	}
	if ok, err := s.FinishTx(t.Context(), durable.Pgx(tx), boot, durable.Finish{Ref: claimed[1].Ref, Move: durable.MoveSucceed}); err != nil || !ok {
		t.Fatal(ok, err)
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if ok, err := s.Finished(t.Context(), boot, claimed[1].Ref); err != nil || !ok {
		t.Errorf("finished: %v, %v", ok, err)
	}
	if _, err := s.InsertTx(t.Context(), durable.Pgx(tx), ins); !errors.Is(err, durable.ErrTxDone) {
		t.Errorf("in a transaction that has ended: %v", err)
	}
	elsewhere, err := pgx.Connect(t.Context(), server+"&database=template1")
	if err != nil {
		t.Fatal(err)
	}
	defer elsewhere.Close(context.Background())
	if tx, err = elsewhere.Begin(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(context.Background())
	if _, err := s.InsertTx(t.Context(), durable.Pgx(tx), ins); !errors.Is(err, durable.ErrForeignTx) {
		t.Errorf("in another database: %v", err)
	}
}

// An outcome of an earlier claim, in the same batch before that of the current
// one, does not keep that one from being recorded with the rest of the batch.
func TestAStaleOutcomeBesideTheRightOne(t *testing.T) {
	s := open(t, postgres.Config{})
	boot := register(t, s, durable.Node{})
	batch := &durable.Batch{Boot: boot, Inserts: []durable.Insert{newInsert("a")}, Claims: claims(1, "a")}
	stale := commit(t, s, batch).Claimed[0].Ref
	commit(t, s, &durable.Batch{Boot: boot, Finishes: []durable.Finish{{Ref: stale, Move: durable.MoveRelease}}})
	ref := commit(t, s, &durable.Batch{Boot: boot, Claims: claims(1, "a")}).Claimed[0].Ref
	res := commit(t, s, &durable.Batch{
		Boot:     boot,
		Finishes: []durable.Finish{{Ref: stale, Move: durable.MoveExhaust}, {Ref: ref, Move: durable.MoveSucceed}, {Ref: ref, Move: durable.MoveExhaust}},
		Progress: []durable.ProgressUpdate{{Ref: ref}},
	})
	if fmt.Sprint(res.Finished, res.Progressed) != "[false true false] [false]" {
		t.Errorf("finished %v, progressed %v", res.Finished, res.Progressed)
	}
}
