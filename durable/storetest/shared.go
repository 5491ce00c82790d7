package storetest

import (
	"context"
	"fmt"

	"github.com/wake-go/wake/durable"
)

func sharedTests() []test {
	return []test{
		{"a function of a batch that fails harms neither the others nor the batch", sharedFails},
		{"a function that swallows a statement's error keeps the rest of its rows", sharedSwallows},
		{"a function that ends the transaction itself harms nobody else", sharedEnds},
		{"a function whose context ends in the middle harms nobody else", sharedContext},
		{"a function's own savepoints are its own", sharedSavepoint},
	}
}

// sharedBatch commits functions, with an insert, an outcome and a claim beside
// them that have to happen whatever the functions do.
func (k *kit) sharedBatch(runs ...func(*durable.SQLTx) error) []*durable.Func {
	k.Helper()
	var funcs []*durable.Func
	for _, run := range runs {
		funcs = append(funcs, &durable.Func{Run: run})
	}
	running, in := k.start("beside"), k.in("beside")
	res := k.commit(durable.Batch{
		Funcs: funcs, Finishes: []durable.Finish{{Ref: running.Ref, Move: durable.MoveSucceed}}, Inserts: []durable.Insert{in},
		Claims: []durable.Claim{{Queue: durable.DefaultQueue, Kinds: []string{"beside"}, Limit: 9}},
	})
	equal(k, "outcome beside functions", res.Finished[0], true)
	k.must(res.Inserted[0].Err)
	k.sameIDs("claimed beside functions", refIDs(res.Claimed), []durable.ID{in.ID})
	k.status(running.Ref.ID, durable.Succeeded, 1, 0)
	k.finish(res.Claimed[0].Ref, durable.MoveSucceed, 0)
	return funcs
}

// good is a function that inserts a row and a task of a name.
func (k *kit) good(name string) func(*durable.SQLTx) error {
	return func(tx *durable.SQLTx) error {
		tx.Add(job().With(name))
		return thing(k.ctx, tx, name)
	}
}

// shared skips the test on a store whose functions do not share a commit.
func (k *kit) shared() {
	k.Helper()
	if !k.s.Traits().SharedTx {
		k.Skip("functions do not share a transaction")
	}
	k.things()
}

func sharedFails(k *kit) {
	k.shared()
	runs := []func(*durable.SQLTx) error{k.good("first")}
	var names []string
	for name, fail := range failures() {
		names = append(names, name)
		runs = append(runs, func(tx *durable.SQLTx) error {
			if err := k.good("lost")(tx); err != nil {
				return err
			}
			return fail(tx)
		}, k.good(fmt.Sprintf("after %d", len(names))))
	}
	funcs := k.sharedBatch(runs...)
	want := []string{"first"}
	for i, f := range funcs {
		if i%2 == 0 {
			k.must(f.Err)
			equal(k, "answers", len(f.Inserted), 1)
			k.get(f.Inserted[0].ID)
			continue
		}
		if f.Err == nil {
			k.Fatalf("%s: the function has not failed", names[i/2])
		}
		want = append(want, fmt.Sprintf("after %d", i/2+1))
	}
	k.rows(want...)
	equal(k, "tasks", len(k.list(durable.Filter{Kind: "job"}, 100)), len(want))
}

func sharedSwallows(k *kit) {
	k.shared()
	funcs := k.sharedBatch(k.good("a"), func(tx *durable.SQLTx) error {
		_ = thing(k.ctx, tx, "a") // there is one
		return k.good("b")(tx)
	})
	k.must(funcs[0].Err)
	k.must(funcs[1].Err)
	k.rows("a", "b")
}

func sharedEnds(k *kit) {
	k.shared()
	for i, statement := range []string{"ROLLBACK", "COMMIT", "END"} {
		before, after := fmt.Sprintf("before %d", i), fmt.Sprintf("after %d", i)
		funcs := k.sharedBatch(k.good(before), func(tx *durable.SQLTx) error {
			_, err := tx.ExecContext(k.ctx, statement)
			return err
		}, k.good(after))
		k.must(funcs[0].Err)
		k.must(funcs[2].Err)
		if funcs[1].Err == nil {
			k.Fatalf("a function that says %s has not failed", statement)
		}
	}
	k.rows("before 0", "after 0", "before 1", "after 1", "before 2", "after 2")
}

func sharedContext(k *kit) {
	k.shared()
	funcs := k.sharedBatch(k.good("before"), func(tx *durable.SQLTx) error {
		ctx, cancel := context.WithCancel(k.ctx)
		defer cancel()
		if err := thing(ctx, tx, "lost"); err != nil {
			return err
		}
		cancel()
		return thing(ctx, tx, "lost too")
	}, k.good("after"))
	k.must(funcs[0].Err)
	k.must(funcs[2].Err)
	k.refused(funcs[1].Err, context.Canceled)
	k.rows("before", "after")
}

// sharedSavepoint allows a store to refuse a user's savepoints.
func sharedSavepoint(k *kit) {
	k.shared()
	funcs := k.sharedBatch(k.good("before"), func(tx *durable.SQLTx) error {
		for _, statement := range []string{
			"SAVEPOINT mine", "INSERT INTO thing (name) VALUES ('lost')", "ROLLBACK TO mine", "RELEASE mine",
		} {
			if _, err := tx.ExecContext(k.ctx, statement); err != nil {
				return err
			}
		}
		return k.good("mine")(tx)
	}, k.good("after"))
	k.must(funcs[0].Err)
	k.must(funcs[2].Err)
	if funcs[1].Err != nil {
		k.rows("before", "after")
		return
	}
	k.rows("before", "mine", "after")
}
