package storetest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"runtime"

	"github.com/wake-go/wake/durable"
)

func txTests() []test {
	return []test{
		{"the tasks of a function are there when it returns nil", inTxAdds},
		{"a function that fails, whichever way, adds nothing and harms nobody", inTxFails},
		{"a function's statements and tasks are one transaction", inTxRows},
		{"the transaction is over when the function is", inTxEnds},
		{"a function whose context has ended does not happen", inTxContext},
		{"a function that is run again begins anew", inTxAgain},
		{"a key is as unique in a function as elsewhere", inTxKey},
		{"a transaction that is not on the store's database is refused", txForeign},
		{"a task added in a user's transaction is there when it commits", insertTxCommit},
		{"a task added in a user's transaction that rolls back never was", insertTxRollback},
		{"a key is as unique in a user's transaction as elsewhere", insertTxKey},
		{"a task finished in a user's transaction is finished when it commits", finishTxCommit},
		{"a task finished in a user's transaction that rolls back still runs", finishTxRollback},
		{"a stale claim cannot be finished in a user's transaction", finishTxStale},
	}
}

// job is a kind whose tasks functions add.
func job() *durable.Kind[string] { return durable.Declare[string]("job") }

// inTx runs a function, and returns why nothing of it has happened.
func (k *kit) inTx(ctx context.Context, run func(*durable.SQLTx) error) error {
	f := &durable.Func{Run: run}
	if err := k.s.InTx(ctx, f); err != nil {
		return err
	}
	return f.Err
}

func inTxAdds(k *kit) {
	var want []durable.ID
	f := &durable.Func{Run: func(tx *durable.SQLTx) error {
		want = append(want, tx.Add(job().With("a")), tx.Add(job().With("b").Queue("slow").Key("k").Priority(2)))
		return nil
	}}
	k.must(k.s.InTx(k.ctx, f))
	k.must(f.Err)
	k.sameIDs("tasks", k.list(durable.Filter{Kind: "job"}, 10), want)
	equal(k, "answers", len(f.Inserted), 2)
	for i, in := range f.Inserted {
		equal(k, "answer", in, durable.Inserted{ID: want[i]})
	}
	t := k.get(want[1])
	equal(k, "payload", string(t.Payload), `"b"`)
	equal(k, "priority", t.Priority, 2)
	k.sameIDs("claimed", refIDs(k.claim(9, "job")), want[:1])
}

// failures are the ways a function can fail.
func failures() map[string]func(*durable.SQLTx) error {
	return map[string]func(*durable.SQLTx) error{
		"an error":        func(*durable.SQLTx) error { return errors.New("no") },
		"a panic":         func(*durable.SQLTx) error { panic("no") },
		"a nil panic":     func(*durable.SQLTx) error { var err error; panic(err) },
		"runtime.Goexit":  func(*durable.SQLTx) error { runtime.Goexit(); return nil },
		"an unusable job": func(tx *durable.SQLTx) error { tx.Add(job().With("x").Priority(5000)); return nil },
	}
}

func inTxFails(k *kit) {
	for name, fail := range failures() {
		err := k.inTx(k.ctx, func(tx *durable.SQLTx) error {
			tx.Add(job().With("lost"))
			return fail(tx)
		})
		if err == nil {
			k.Fatalf("%s: the function has not failed", name)
		}
		equal(k, name+": tasks", len(k.list(durable.Filter{Kind: "job"}, 10)), 0)
		k.must(k.inTx(k.ctx, func(*durable.SQLTx) error { return nil }))
		k.finish(k.start("other").Ref, durable.MoveSucceed, 0)
	}
	reason := errors.New("the reason")
	k.refused(k.inTx(k.ctx, func(*durable.SQLTx) error { return fmt.Errorf("because: %w", reason) }), reason)
}

// things makes a user's table, and skips the test on a store without SQL.
func (k *kit) things() {
	k.Helper()
	if k.f.DB == nil {
		k.Skip("the store has no SQL")
	}
	_, err := k.f.DB.ExecContext(k.ctx, "CREATE TABLE thing (name VARCHAR(100) PRIMARY KEY)")
	k.must(err)
}

// thing inserts a row of a user.
func thing(ctx context.Context, c durable.Conn, name string) error {
	_, err := c.ExecContext(ctx, "INSERT INTO thing (name) VALUES ('"+name+"')")
	return err
}

// rows checks which rows the user has.
func (k *kit) rows(want ...string) {
	k.Helper()
	for _, name := range want {
		var got string
		k.must(k.f.DB.QueryRowContext(k.ctx, "SELECT name FROM thing WHERE name = '"+name+"'").Scan(&got))
	}
	var n int
	k.must(k.f.DB.QueryRowContext(k.ctx, "SELECT COUNT(*) FROM thing").Scan(&n))
	equal(k, "rows of the user", n, len(want))
}

func inTxRows(k *kit) {
	k.things()
	add := func(name string) error {
		return k.inTx(k.ctx, func(tx *durable.SQLTx) error {
			tx.Add(job().With(name))
			if err := thing(k.ctx, tx, name); err != nil {
				return err
			}
			var n int
			return tx.QueryRowContext(k.ctx, "SELECT COUNT(*) FROM thing").Scan(&n)
		})
	}
	k.must(add("one"))
	k.rows("one")
	for name, fail := range failures() {
		if err := k.inTx(k.ctx, func(tx *durable.SQLTx) error {
			if err := thing(k.ctx, tx, "lost"); err != nil {
				return err
			}
			return fail(tx)
		}); err == nil {
			k.Fatalf("%s: the function has not failed", name)
		}
		k.rows("one")
	}
	if err := add("one"); err == nil {
		k.Fatal("a function that breaks a constraint of the user has not failed")
	}
	k.must(add("two"))
	k.rows("one", "two")
	equal(k, "tasks", len(k.list(durable.Filter{Kind: "job"}, 10)), 2)
}

func inTxEnds(k *kit) {
	var late *durable.SQLTx
	k.must(k.inTx(k.ctx, func(tx *durable.SQLTx) error { late = tx; return nil }))
	_, err := late.ExecContext(k.ctx, "SELECT 1")
	k.refused(err, durable.ErrTxDone)
	_, err = late.QueryContext(k.ctx, "SELECT 1")
	k.refused(err, durable.ErrTxDone)
	_, err = late.PrepareContext(k.ctx, "SELECT 1")
	k.refused(err, durable.ErrTxDone)
	var n int
	if err := late.QueryRowContext(k.ctx, "SELECT 1").Scan(&n); err == nil {
		k.Fatal("a row was read in a transaction that is over")
	}
	equal(k, "id of a task added too late", late.Add(job().With("late")), durable.ID{})
	equal(k, "tasks", len(k.list(durable.Filter{Kind: "job"}, 10)), 0)
}

func inTxContext(k *kit) {
	ctx, cancel := context.WithCancel(k.ctx)
	cancel()
	err := k.inTx(ctx, func(tx *durable.SQLTx) error { tx.Add(job().With("never")); return nil })
	if err == nil {
		k.Fatal("a function happened though its context had ended")
	}
	equal(k, "tasks", len(k.list(durable.Filter{}, 10)), 0)
	k.add("a")
}

func inTxAgain(k *kit) {
	calls := 0
	f := &durable.Func{Run: func(tx *durable.SQLTx) error {
		tx.Add(job().With("a"))
		if calls++; calls == 1 {
			return errors.New("not yet")
		}
		return nil
	}}
	if err := k.s.InTx(k.ctx, f); err == nil && f.Err == nil {
		k.Fatal("the function has not failed")
	}
	k.must(k.s.InTx(k.ctx, f))
	k.must(f.Err)
	equal(k, "answers", len(f.Inserted), 1)
	k.sameIDs("tasks", k.list(durable.Filter{}, 10), []durable.ID{f.Inserted[0].ID})
}

func inTxKey(k *kit) {
	id := k.add("job", key("k"))
	var alias durable.ID
	f := &durable.Func{Run: func(tx *durable.SQLTx) error {
		alias = tx.Add(job().With("a").Key("k"))
		return nil
	}}
	k.must(k.s.InTx(k.ctx, f))
	k.must(f.Err)
	equal(k, "answer", f.Inserted[0], durable.Inserted{ID: id, Duplicate: true})
	equal(k, "id by another name", k.get(alias).ID, id)
}

func txForeign(k *kit) {
	_, err := k.s.InsertTx(k.ctx, durable.Tx{}, []durable.Insert{k.in("a")})
	k.refused(err, durable.ErrForeignTx)
	c := k.start("a")
	_, err = k.s.FinishTx(k.ctx, durable.Pgx("no transaction"), k.boot, durable.Finish{Ref: c.Ref, Move: durable.MoveSucceed})
	k.refused(err, durable.ErrForeignTx)
	k.status(c.Ref.ID, durable.Running, 1, 0)
}

// begin begins a user's transaction.
func (k *kit) begin() *sql.Tx {
	k.Helper()
	if k.f.BeginTx == nil {
		k.Skip("the store has no SQL")
	}
	tx := k.f.BeginTx()
	k.Cleanup(func() { _ = tx.Rollback() }) // of a test that has failed
	return tx
}

func insertTxCommit(k *kit) {
	tx := k.begin()
	ins := []durable.Insert{k.in("a", payload(make([]byte, 5000)), tags("t")), k.in("b"), k.in("a")}
	res, err := k.s.InsertTx(k.ctx, durable.SQL(tx), ins)
	k.must(err)
	for i, in := range res {
		equal(k, "answer", in, durable.Inserted{ID: ins[i].ID})
	}
	_, err = k.s.Get(k.ctx, ins[0].ID)
	k.refused(err, durable.ErrNotFound)
	k.must(tx.Commit())
	equal(k, "payload", len(k.get(ins[0].ID).Payload), 5000)
	k.sameIDs("claimed", refIDs(k.claim(9, "a")), []durable.ID{ins[0].ID, ins[2].ID})
}

func insertTxRollback(k *kit) {
	tx := k.begin()
	in := k.in("a", key("k"))
	_, err := k.s.InsertTx(k.ctx, durable.SQL(tx), []durable.Insert{in})
	k.must(err)
	k.must(tx.Rollback())
	_, err = k.s.Get(k.ctx, in.ID)
	k.refused(err, durable.ErrNotFound)
	equal(k, "tasks", len(k.list(durable.Filter{}, 10)), 0)
	next := k.in("a", key("k"))
	equal(k, "insert with the same key", k.insert(next)[0], durable.Inserted{ID: next.ID})
}

func insertTxKey(k *kit) {
	id := k.add("a", key("k"))
	tx := k.begin()
	alias := k.in("a", key("k"))
	res, err := k.s.InsertTx(k.ctx, durable.SQL(tx), []durable.Insert{alias})
	k.must(err)
	equal(k, "answer", res[0], durable.Inserted{ID: id, Duplicate: true})
	k.must(tx.Commit())
	equal(k, "id by another name", k.get(alias.ID).ID, id)
}

// finishTx records success in a user's transaction.
func (k *kit) finishTx(tx *sql.Tx, ref durable.Ref) bool {
	k.Helper()
	ok, err := k.s.FinishTx(k.ctx, durable.SQL(tx), k.boot, durable.Finish{Ref: ref, Move: durable.MoveSucceed, Result: []byte("1")})
	k.must(err)
	return ok
}

func (k *kit) isFinished(ref durable.Ref, want bool) {
	k.Helper()
	got, err := k.s.Finished(k.ctx, k.boot, ref)
	k.must(err)
	equal(k, "finished", got, want)
}

func finishTxCommit(k *kit) {
	c := k.start("a", key("k"))
	tx := k.begin()
	equal(k, "finished", k.finishTx(tx, c.Ref), true)
	k.isFinished(c.Ref, false)
	k.must(tx.Commit())
	k.isFinished(c.Ref, true)
	k.status(c.Ref.ID, durable.Succeeded, 1, 0)
	equal(k, "result", string(k.get(c.Ref.ID).Result), "1")
	k.refusedOutcomes(c.Ref)
	in := k.in("a", key("k"))
	equal(k, "insert with the key that is free", k.insert(in)[0], durable.Inserted{ID: in.ID})
}

func finishTxRollback(k *kit) {
	c := k.start("a")
	tx := k.begin()
	equal(k, "finished", k.finishTx(tx, c.Ref), true)
	k.must(tx.Rollback())
	k.isFinished(c.Ref, false)
	k.status(c.Ref.ID, durable.Running, 1, 0)
	k.finish(c.Ref, durable.MoveFail, 0)
}

func finishTxStale(k *kit) {
	old := k.start("a")
	k.finish(old.Ref, durable.MoveRelease, 0)
	c := k.claimOne("a")
	tx := k.begin()
	equal(k, "finished by a stale claim", k.finishTx(tx, old.Ref), false)
	ok, err := k.s.FinishTx(k.ctx, durable.SQL(tx), durable.Boot(durable.NewID()), durable.Finish{Ref: c.Ref, Move: durable.MoveSucceed})
	k.must(err)
	equal(k, "finished by another boot", ok, false)
	k.must(tx.Commit())
	k.status(c.Ref.ID, durable.Running, 1, 0)
	k.finish(c.Ref, durable.MoveSucceed, 0)
}
