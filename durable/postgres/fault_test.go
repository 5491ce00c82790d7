package postgres_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/wake-go/wake/durable"
	"github.com/wake-go/wake/durable/postgres"
)

// A commit whose answer is lost has happened: the store says that nobody knows,
// and repeating it does nothing twice.
func TestAnAnswerIsLost(t *testing.T) {
	server := serverURL(t)
	network, url := newProxy(t, server)
	schema := newSchema(t, server)
	s := open(t, postgres.Config{URL: url, Schema: schema})
	direct := open(t, postgres.Config{URL: server, Schema: schema})
	boot := register(t, s, durable.Node{})
	keyed := newInsert("a")
	keyed.Key = "k"
	var res *durable.BatchResult
	for range 2 { // all statements are prepared
		res = commit(t, s, &durable.Batch{Boot: boot, Inserts: []durable.Insert{newInsert("a"), newInsert("a")}, Claims: claims(2, "a")})
		if len(res.Claimed) != 2 {
			t.Fatalf("claimed %v", res.Claimed)
		}
		commit(t, s, &durable.Batch{Boot: boot, Inserts: []durable.Insert{newInsert("b")}, Finishes: []durable.Finish{
			{Ref: res.Claimed[0].Ref, Move: durable.MoveSucceed}, {Ref: res.Claimed[1].Ref, Move: durable.MoveExhaust, Error: &durable.AttemptError{}},
		}})
	}
	res = commit(t, s, &durable.Batch{Boot: boot, Inserts: []durable.Insert{newInsert("a"), newInsert("a")}, Claims: claims(2, "a")})
	finishes := []durable.Finish{
		{Ref: res.Claimed[0].Ref, Move: durable.MoveSucceed},
		{Ref: res.Claimed[1].Ref, Move: durable.MoveFail, Delay: time.Hour, Error: &durable.AttemptError{Attempt: 1, Cause: "error", Message: "no"}},
	}
	batch := &durable.Batch{Boot: boot, Inserts: []durable.Insert{newInsert("b")}, Finishes: finishes}
	lost := network.loseAnswers()
	_, err := s.Commit(t.Context(), batch)
	if !errors.Is(err, durable.ErrUnknown) {
		t.Fatalf("the error of a commit whose answer was lost is %v", err)
	}
	<-lost
	network.answer()
	eventually(t, "the server has committed", func() bool {
		_, err := direct.Get(t.Context(), batch.Inserts[0].ID)
		return err == nil
	})
	batch.Again = true
	batch.Inserts = append(batch.Inserts, keyed)
	for range 2 {
		res = commit(t, s, batch)
		if !slices.Equal(res.Finished, []bool{true, true}) || res.Inserted[0] != (durable.Inserted{ID: batch.Inserts[0].ID}) || res.Inserted[1] != (durable.Inserted{ID: keyed.ID}) {
			t.Fatalf("the repeated batch was answered %+v", res)
		}
	}
	failed, err := s.Get(t.Context(), finishes[1].Ref.ID)
	if err != nil || len(failed.Errors) != 1 || failed.State != durable.Scheduled {
		t.Fatalf("the task that failed is %+v, %v", failed, err)
	}
	all, err := s.List(t.Context(), durable.Filter{}, durable.Page{})
	if err != nil || len(all) != 10 {
		t.Fatalf("%d tasks, %v; want 10", len(all), err)
	}
}

// While the network is down every call says that the store is not available,
// and when it is back the store works, and listens, again.
func TestTheNetworkIsDownForAWhile(t *testing.T) {
	server := serverURL(t)
	network, url := newProxy(t, server)
	schema := newSchema(t, server)
	s := open(t, postgres.Config{URL: url, Schema: schema})
	other := open(t, postgres.Config{URL: server, Schema: schema})
	commit(t, s, &durable.Batch{Inserts: []durable.Insert{newInsert("a")}})
	network.setDown(true)
	// What was under way, or begun before anybody noticed, may have happened.
	if _, err := s.Commit(t.Context(), &durable.Batch{}); !errors.Is(err, durable.ErrUnknown) && !errors.Is(err, durable.ErrUnavailable) {
		t.Errorf("the first commit: %v", err)
	}
	for what, f := range map[string]func(context.Context) error{
		"Commit": func(ctx context.Context) error {
			_, err := s.Commit(ctx, &durable.Batch{Inserts: []durable.Insert{newInsert("a")}})
			return err
		},
		"Ping":   s.Ping,
		"Get":    func(ctx context.Context) error { _, err := s.Get(ctx, durable.NewID()); return err },
		"Cancel": func(ctx context.Context) error { _, err := s.Cancel(ctx, durable.NewID()); return err },
		"Beat":   func(ctx context.Context) error { _, err := s.Beat(ctx, durable.Boot(durable.NewID())); return err },
		"InTx": func(ctx context.Context) error {
			return s.InTx(ctx, &durable.Func{Run: func(*durable.SQLTx) error { return nil }})
		},
	} {
		if err := f(t.Context()); !errors.Is(err, durable.ErrUnavailable) {
			t.Errorf("%s: %v", what, err)
		}
	}
	network.setDown(false)
	if err := s.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	heard := watch(t, s)
	eventually(t, "another process is heard of", func() bool {
		commit(t, other, &durable.Batch{Inserts: []durable.Insert{newInsert("a")}})
		select {
		case what := <-heard:
			return what&durable.SignalTasks != 0
		default:
			return false
		}
	})
}

// watch returns what a store reports until the test ends.
func watch(t *testing.T, s durable.Store) <-chan durable.Signal {
	t.Helper()
	heard := make(chan durable.Signal, 100)
	ctx, cancel := context.WithCancel(context.Background())
	var watching sync.WaitGroup
	watching.Go(func() {
		_ = s.Watch(ctx, func(what durable.Signal) {
			select {
			case heard <- what:
			default:
			}
		})
	})
	t.Cleanup(func() { cancel(); watching.Wait() })
	return heard
}

// terminate ends all sessions of a store but the asker's.
func terminate(t *testing.T, asker *postgres.Store, name string) {
	t.Helper()
	mustExec(t, asker.DB(), `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1 AND pid <> pg_backend_pid()`, name)
}

// A server that ends all sessions costs nobody anything: what comes next goes
// through on new ones, and a process that lives keeps its tasks.
func TestAllSessionsAreEnded(t *testing.T) {
	server := serverURL(t)
	schema := newSchema(t, server)
	name := "wake_" + schema
	s := open(t, postgres.Config{URL: server + "&application_name=" + name, Schema: schema, DeathDelay: 500 * time.Millisecond})
	other := open(t, postgres.Config{URL: server, Schema: schema, DeathDelay: 500 * time.Millisecond})
	boot, rival := register(t, s, durable.Node{}), register(t, other, durable.Node{})
	locked := func() bool {
		return value(t, other.DB(), `SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE l.locktype = 'advisory' AND a.application_name = $1`, name) == "1"
	}
	eventually(t, "the process holds its lock", locked)
	res := commit(t, s, &durable.Batch{Boot: boot, Inserts: []durable.Insert{newInsert("a")}, Claims: claims(1, "a")})
	for range 3 {
		terminate(t, other, name)
		for range 5 {
			commit(t, s, &durable.Batch{Boot: boot, Inserts: []durable.Insert{newInsert("b")}})
			if _, err := s.Beat(t.Context(), boot); err != nil {
				t.Fatal(err)
			}
		}
		for range 5 {
			if swept, err := other.Sweep(t.Context(), rival); err != nil || swept != (durable.Swept{}) {
				t.Fatalf("swept %+v, %v", swept, err)
			}
		}
		eventually(t, "the process holds its lock again", locked)
	}
	if ok := commit(t, s, &durable.Batch{Boot: boot, Finishes: []durable.Finish{{Ref: res.Claimed[0].Ref, Move: durable.MoveSucceed}}}).Finished[0]; !ok {
		t.Error("the process has lost its task")
	}
}

// A server that has become a standby refuses, which passes.
func TestTheServerOnlyReads(t *testing.T) {
	server := serverURL(t)
	schema := newSchema(t, server)
	open(t, postgres.Config{URL: server, Schema: schema})
	s := open(t, postgres.Config{URL: server + "&default_transaction_read_only=on", Schema: schema})
	if _, err := s.Commit(t.Context(), &durable.Batch{Inserts: []durable.Insert{newInsert("a")}}); err != nil && !errors.Is(err, durable.ErrUnavailable) {
		t.Errorf("a commit: %v", err)
	} else if err == nil {
		t.Error("a commit succeeded")
	}
	if err := s.Ping(t.Context()); !errors.Is(err, durable.ErrUnavailable) {
		t.Errorf("Ping: %v", err)
	}
}

// Through a pooler the suite's promises hold without listening, and a process
// is dead when its lease has ended.
func TestThroughAPooler(t *testing.T) {
	server := serverURL(t)
	network, url := newProxy(t, server)
	network.pooler = true
	schema := newSchema(t, server)
	s := open(t, postgres.Config{URL: url, Schema: schema, DeathDelay: time.Millisecond})
	direct := open(t, postgres.Config{URL: server, Schema: schema, DeathDelay: time.Millisecond})
	boot, rival := register(t, s, durable.Node{}), register(t, direct, durable.Node{})
	res := commit(t, s, &durable.Batch{Boot: boot, Inserts: []durable.Insert{newInsert("a"), newInsert("a")}, Claims: claims(2, "a")})
	commit(t, s, &durable.Batch{Boot: boot, Finishes: []durable.Finish{{Ref: res.Claimed[0].Ref, Move: durable.MoveSucceed}}})
	heard := watch(t, s)
	if what := <-heard; what&durable.SignalTasks == 0 {
		t.Errorf("heard %b", what)
	}
	for range 3 {
		if swept, err := direct.Sweep(t.Context(), rival); err != nil || swept != (durable.Swept{}) {
			t.Fatalf("swept %+v, %v", swept, err)
		}
	}
	if n := value(t, direct.DB(), `SELECT count(*) FROM `+schema+`.node WHERE lock_key IS NOT NULL AND boot = $1`, boot.String()); n != "0" {
		t.Error("a process behind a pooler claims to hold a lock")
	}
	direct.Advance(time.Minute)
	if swept, err := direct.Sweep(t.Context(), rival); err != nil || swept != (durable.Swept{Recovered: 1, Nodes: 1}) {
		t.Errorf("swept when its lease has ended: %+v, %v", swept, err)
	}
}
