package sqlite

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wake-go/wake/durable"
)

// No statement of the store reads a table of tasks from end to end, so none
// gets slower with the number of tasks, except for those that count or list.
func TestNoStatementScansTasks(t *testing.T) {
	s, err := Open(t.Context(), Config{Path: filepath.Join(t.TempDir(), "test.db"), Relaxed: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	useEverything(t, s)
	for query := range s.writer.stmts {
		if verb, _, _ := strings.Cut(strings.TrimSpace(query), " "); verb == "BEGIN" || verb == "COMMIT" || verb == "ROLLBACK" || verb == "PRAGMA" || verb == "SAVEPOINT" || verb == "RELEASE" {
			continue
		}
		rows, err := s.reads.Query(`EXPLAIN QUERY PLAN `+query, make([]any, 1000)...)
		if err != nil {
			t.Fatalf("%s: %v", query, err)
		}
		for rows.Next() {
			var id, parent, unused int
			var step string
			if err := rows.Scan(&id, &parent, &unused, &step); err != nil {
				t.Fatal(err)
			}
			// The indexes of tasks that run or are scheduled have just those.
			if strings.HasPrefix(step, "SCAN wake_") && !strings.Contains(step, "INDEX wake_task_running") && !strings.Contains(step, "INDEX wake_task_scheduled") &&
				!strings.HasPrefix(step, "SCAN wake_lane") && !strings.HasPrefix(step, "SCAN wake_queue") && !strings.HasPrefix(step, "SCAN wake_node") && !strings.HasPrefix(step, "SCAN wake_schedule") {
				t.Errorf("%s\nin %s", step, query)
			}
		}
		if err := rows.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(s.writer.stmts); n < 50 {
		t.Errorf("only %d statements were used", n)
	}
}

// useEverything runs each of the store's statements that write at least once.
func useEverything(t *testing.T, s *Store) {
	t.Helper()
	ctx := t.Context()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	boot := durable.Boot(durable.NewID())
	_, err := s.Register(ctx, durable.Node{Boot: boot, Lease: time.Minute, Schedules: []string{"nightly"}})
	must(err)
	insert := func(change func(*durable.Insert)) durable.Insert {
		in := durable.Insert{ID: durable.NewID(), Kind: "k", Queue: "q", MaxAttempts: 3, Payload: []byte(`1`)}
		change(&in)
		return in
	}
	var ins []durable.Insert
	for range 90 {
		ins = append(ins, insert(func(*durable.Insert) {}))
	}
	for range 2 {
		ins = append(ins, insert(func(in *durable.Insert) { in.Key, in.Tags, in.Payload = "key", []string{"tag"}, make([]byte, 4000) }))
	}
	ins = append(ins, insert(func(in *durable.Insert) { in.Delay = time.Second }), insert(func(in *durable.Insert) { in.Queue = "other" }))
	commit := func(b *durable.Batch) *durable.BatchResult {
		t.Helper()
		b.Boot = boot
		res, err := s.Commit(ctx, b)
		must(err)
		return res
	}
	claim := []durable.Claim{{Queue: "q", Kinds: []string{"k"}, Limit: 1000}, {Queue: "other", Kinds: []string{"k", "l"}, Limit: 10}}
	res := commit(&durable.Batch{Inserts: ins, Funcs: []*durable.Func{{Run: func(*durable.SQLTx) error { return nil }}}, Claims: claim})
	var done []durable.Finish
	for i, c := range res.Claimed {
		f := durable.Finish{Ref: c.Ref, Move: durable.MoveSucceed}
		switch i {
		case 0:
			f.Move, f.Error = durable.MoveExhaust, &durable.AttemptError{Cause: "error"}
		case 1:
			f.Move, f.Error, f.Delay = durable.MoveFail, &durable.AttemptError{Cause: "error"}, time.Second
		case 2:
			f.Result = []byte(`1`)
		case 3:
			f.Ref.Fence--
		case 4:
			continue
		}
		done = append(done, f)
	}
	commit(&durable.Batch{Finishes: done, Progress: []durable.ProgressUpdate{{Ref: res.Claimed[4].Ref}}})
	commit(&durable.Batch{Again: true, Finishes: done[:3], Inserts: ins[:1]})
	_, err = s.Cancel(ctx, res.Claimed[4].Ref.ID)
	must(err)
	_, err = s.Beat(ctx, boot)
	must(err)
	_, err = s.Reconcile(ctx, boot, nil)
	must(err)
	dead := durable.Boot(durable.NewID())
	_, err = s.Register(ctx, durable.Node{Boot: dead, Lease: time.Second})
	must(err)
	_, err = s.Commit(ctx, &durable.Batch{Boot: dead, Inserts: []durable.Insert{insert(func(*durable.Insert) {})}, Claims: claim})
	must(err)
	s.Advance(10 * time.Second)
	_, err = s.Sweep(ctx, boot)
	must(err)
	commit(&durable.Batch{Claims: claim}) // promotes
	must(s.Retry(ctx, res.Claimed[0].Ref.ID))
	must(s.SetPaused(ctx, "q", true))
	must(s.DeclareSchedules(ctx, []durable.ScheduleRow{{Name: "nightly", Spec: "@daily", Zone: "UTC", Task: ins[0], Next: s.clock.now()}}))
	rows, err := s.Schedules(ctx)
	must(err)
	tick := insert(func(in *durable.Insert) { in.Meta.Tick = 1 })
	commit(&durable.Batch{Fires: []durable.Fire{{Name: "nightly", Expect: rows[0].Next, Next: s.clock.now(), LastTick: rows[0].Next, Overlap: "replace", Inserts: []durable.Insert{tick}}}})
	commit(&durable.Batch{Fires: []durable.Fire{{Name: "nightly", Manual: true, Overlap: "replace", Inserts: []durable.Insert{insert(func(*durable.Insert) {})}}}})
	rows, err = s.Schedules(ctx)
	must(err)
	must(s.ChangeSchedule(ctx, rows[0]))
	must(s.DeleteSchedule(ctx, "nightly"))
	must(s.Delete(ctx, res.Claimed[5].Ref.ID))
	s.Advance(40 * 24 * time.Hour)
	_, err = s.Prune(ctx, nil, 10)
	must(err)
	must(s.Unregister(ctx, boot))
}
