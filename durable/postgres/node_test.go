package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wake-go/wake/durable"
	"github.com/wake-go/wake/durable/postgres"
)

// Two processes with one name, as two replicas of a container may have, keep
// their tasks apart; when one dies without a word, the other has its tasks long
// before the lease ends.
func TestOneNameTwoProcesses(t *testing.T) {
	cfg := postgres.Config{URL: serverURL(t), DeathDelay: 300 * time.Millisecond}
	cfg.Schema = newSchema(t, cfg.URL)
	a, b := open(t, cfg), open(t, cfg)
	first := register(t, a, durable.Node{Name: "web-1"})
	claimed := commit(t, a, &durable.Batch{Boot: first, Inserts: []durable.Insert{newInsert("k")}, Claims: claims(1, "k")}).Claimed
	second := register(t, b, durable.Node{Name: "web-1"})
	sweep := func() durable.Swept {
		swept, err := b.Sweep(t.Context(), second)
		if err != nil {
			t.Fatal(err)
		}
		return swept
	}
	eventually(t, "both hold their locks", func() bool {
		return value(t, b.DB(), `SELECT count(lock_key) FROM `+table(cfg.Schema, "node")) == "2"
	})
	for range 5 {
		if swept := sweep(); swept != (durable.Swept{}) {
			t.Fatalf("swept of a process that lives: %+v", swept)
		}
	}
	nodes, err := b.Nodes(t.Context())
	if err != nil || len(nodes) != 2 || nodes[0].Name == nodes[1].Name {
		t.Errorf("the nodes are %+v, %v", nodes, err)
	}
	if err := a.Close(); err != nil { // it unregisters nothing, like one that is killed
		t.Fatal(err)
	}
	var swept durable.Swept
	eventually(t, "the dead one's tasks are taken back", func() bool { swept = sweep(); return swept.Nodes > 0 })
	if swept != (durable.Swept{Recovered: 1, Nodes: 1}) {
		t.Errorf("swept %+v", swept)
	}
	again := commit(t, b, &durable.Batch{Boot: second, Claims: claims(1, "k")}).Claimed
	if len(again) != 1 || again[0].Ref.ID != claimed[0].Ref.ID || again[0].Crashes != 1 {
		t.Errorf("claimed %+v", again)
	}
}

// A session that is only lost for a moment is no death, and where the delay is
// negative no lost session is one.
func TestALostSessionIsNoDeathByItself(t *testing.T) {
	cfg := postgres.Config{URL: serverURL(t), DeathDelay: -1}
	cfg.Schema = newSchema(t, cfg.URL)
	a, b := open(t, cfg), open(t, cfg)
	boot, other := register(t, a, durable.Node{}), register(t, b, durable.Node{})
	commit(t, a, &durable.Batch{Boot: boot, Inserts: []durable.Insert{newInsert("k")}, Claims: claims(1, "k")})
	eventually(t, "both hold their locks", func() bool {
		return value(t, b.DB(), `SELECT count(lock_key) FROM `+table(cfg.Schema, "node")) == "2"
	})
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		if swept, err := b.Sweep(t.Context(), other); err != nil || swept != (durable.Swept{}) {
			t.Fatalf("swept before the lease has ended: %+v, %v", swept, err)
		}
	}
	b.Advance(time.Minute)
	if swept, err := b.Sweep(t.Context(), other); err != nil || swept.Recovered != 1 {
		t.Fatalf("swept when it has: %+v, %v", swept, err)
	}
}

// A process whose tasks are taken away while it claims gets none after that.
func TestClaimingWhileBeingSwept(t *testing.T) {
	cfg := postgres.Config{URL: serverURL(t)}
	cfg.Schema = newSchema(t, cfg.URL)
	a, b := open(t, cfg), open(t, cfg)
	for range 10 {
		boot := register(t, a, durable.Node{})
		other := register(t, b, durable.Node{})
		var ins []durable.Insert
		for range 200 {
			ins = append(ins, newInsert("k"))
		}
		commit(t, a, &durable.Batch{Inserts: ins})
		var stop atomic.Bool
		var claiming sync.WaitGroup
		for range 3 {
			claiming.Go(func() {
				for !stop.Load() {
					if _, err := a.Commit(context.Background(), &durable.Batch{Boot: boot, Claims: claims(1, "k")}); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		b.Advance(time.Hour)
		a.Advance(time.Hour)
		eventually(t, "the sweep finds it", func() bool {
			swept, err := b.Sweep(t.Context(), other)
			if err != nil {
				t.Error(err)
			}
			return swept.Nodes > 0 || err != nil
		})
		stop.Store(true)
		claiming.Wait()
		if n := value(t, b.DB(), `SELECT count(*) FROM `+table(cfg.Schema, "task")+` WHERE state = 2 AND boot = $1`, boot.String()); n != "0" {
			t.Fatalf("a process that was swept has %s tasks", n)
		}
		mustExec(t, b.DB(), `DELETE FROM `+table(cfg.Schema, "task"))
	}
}

var work = durable.Declare[int]("work")

// fleet starts engines with a store each.
func fleet(t *testing.T, n int, cfg postgres.Config, run func(context.Context, int) error) []*durable.Engine {
	t.Helper()
	var engines []*durable.Engine
	for range n {
		q := durable.NewQueue(open(t, cfg))
		e := durable.NewEngine(q, work.Run(run))
		if err := e.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			if err := errors.Join(e.Drain(ctx), q.Close(ctx)); err != nil {
				t.Error(err)
			}
		})
		engines = append(engines, e)
	}
	return engines
}

// Three engines on three handles share the work: each task runs once.
func TestAFleetRunsEachTaskOnce(t *testing.T) {
	const n = 3000
	cfg := postgres.Config{URL: serverURL(t)}
	cfg.Schema = newSchema(t, cfg.URL)
	var runs [n]atomic.Int32
	var left sync.WaitGroup
	left.Add(n)
	fleet(t, 3, cfg, func(_ context.Context, i int) error { runs[i].Add(1); left.Done(); return nil })
	q := durable.NewQueue(open(t, cfg))
	defer q.Close(context.Background())
	var adding sync.WaitGroup
	for w := range 20 {
		adding.Go(func() {
			for i := w; i < n; i += 20 {
				job := work.With(i)
				if i%10 == 0 {
					job = job.Key(fmt.Sprint(i))
				}
				if _, err := q.Add(context.Background(), job); err != nil {
					t.Error(err)
				}
			}
		})
	}
	adding.Wait()
	left.Wait()
	for i := range runs {
		if got := runs[i].Load(); got != 1 {
			t.Errorf("task %d ran %d times", i, got)
		}
	}
}

// What happens in one process is known in the others in well under a second.
func TestAFleetHearsAtOnce(t *testing.T) {
	cfg := postgres.Config{URL: serverURL(t)}
	cfg.Schema = newSchema(t, cfg.URL)
	began, ended := make(chan int), make(chan error)
	fleet(t, 1, cfg, func(ctx context.Context, i int) error {
		began <- i
		<-ctx.Done()
		ended <- context.Cause(ctx)
		return ctx.Err()
	})
	q := durable.NewQueue(open(t, cfg))
	defer q.Close(context.Background())
	within := func(what string, start time.Time) {
		t.Helper()
		if took := time.Since(start); took > 900*time.Millisecond {
			t.Errorf("%s took %v", what, took)
		}
	}
	id, err := q.Add(t.Context(), work.With(1)) // the listening has begun
	if err != nil {
		t.Fatal(err)
	}
	<-began
	for range 3 {
		start := time.Now()
		if _, err := q.Cancel(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		if cause := <-ended; !errors.Is(cause, durable.ErrCancelled) {
			t.Errorf("the cause is %v", cause)
		}
		within("cancelling", start)
		start = time.Now()
		if id, err = q.Add(t.Context(), work.With(1)); err != nil {
			t.Fatal(err)
		}
		<-began
		within("beginning", start)
	}
	if _, err := q.Cancel(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	<-ended
}
