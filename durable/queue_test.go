package durable_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wake-go/wake/durable"
)

// gate makes commits wait until it is opened; it says how many do.
type gate struct{ closed, waiting chan struct{} }

func newGate() *gate { return &gate{make(chan struct{}), make(chan struct{}, 100)} }

func (g *gate) pass(*durable.Batch) error {
	g.waiting <- struct{}{}
	<-g.closed
	return nil
}

// addLater adds a task from another goroutine.
func (b *bed) addLater(ctx context.Context, jobs ...durable.Queueable) <-chan error {
	done := make(chan error, 1)
	go func() {
		_, err := b.q.AddAll(ctx, jobs...)
		done <- err
	}()
	synctest.Wait()
	return done
}

func TestABatchClosesWhenTheCommitBeforeReturns(t *testing.T) {
	inBubble(t, func(b *bed) {
		g := newGate()
		b.faults.set(g.pass, nil)
		b.addLater(b.ctx, work.With("first"))
		for range 10 {
			b.addLater(b.ctx, work.With("waits"))
		}
		if n := len(b.faults.seen()); n != 1 {
			t.Fatalf("%d commits are under way, want one", n)
		}
		close(g.closed)
		synctest.Wait()
		seen := b.faults.seen()
		if len(seen) != 2 || len(seen[0].Inserts) != 1 || len(seen[1].Inserts) != 10 {
			t.Errorf("%d commits, want two, with 1 and 10 tasks", len(seen))
		}
	})
}

func TestAsManyCommitsAsTheStoreLikes(t *testing.T) {
	inBubble(t, func(b *bed) {
		b.queue(durable.QueueConfig{}, func(traits *durable.Traits) { traits.Committers = 2 })
		g := newGate()
		b.faults.set(g.pass, nil)
		for range 5 {
			b.addLater(b.ctx, work.With(""))
		}
		if n := len(b.faults.seen()); n != 2 {
			t.Errorf("%d commits are under way, want two", n)
		}
		close(g.closed)
	})
}

func TestMaxBatch(t *testing.T) {
	inBubble(t, func(b *bed) {
		b.queue(durable.QueueConfig{}, func(traits *durable.Traits) { traits.MaxBatch = 3 })
		g := newGate()
		b.faults.set(g.pass, nil)
		job := work.With("")
		for _, n := range []int{1, 2, 2, 5, 1} {
			jobs := make([]durable.Queueable, n)
			for i := range jobs {
				jobs[i] = job
			}
			b.addLater(b.ctx, jobs...)
		}
		close(g.closed)
		synctest.Wait()
		var sizes []int
		for _, batch := range b.faults.seen() {
			sizes = append(sizes, len(batch.Inserts))
		}
		if fmt.Sprint(sizes) != "[1 2 2 5 1]" {
			t.Errorf("batches of %v", sizes)
		}
	})
}

func TestAddAllIsAllOrNone(t *testing.T) {
	for _, shared := range []bool{false, true} {
		t.Run(fmt.Sprint("shared transactions ", shared), func(t *testing.T) {
			inBubble(t, func(b *bed) {
				b.queue(durable.QueueConfig{}, func(traits *durable.Traits) { traits.SharedTx = shared })
				good, err := b.q.Encode(work.With("a"))
				if err != nil {
					t.Fatal(err)
				}
				bad := good
				bad.Kind = "" // the store refuses it
				bad.ID = durable.NewID()
				if _, err := b.q.Commit(b.ctx, []durable.Insert{good, bad}); err == nil {
					t.Error("a bad task was committed")
				}
				if _, err := b.q.Get(b.ctx, good.ID); !errors.Is(err, durable.ErrNotFound) {
					t.Errorf("the good one is there: %v", err)
				}
				if n := len(b.faults.seen()[0].Inserts); shared && n > 0 {
					t.Errorf("%d tasks were added one by one", n)
				}
				ids, err := b.q.AddAll(b.ctx, work.With("a"), work.With("b"))
				if err != nil {
					t.Fatal(err)
				}
				for _, id := range ids {
					b.wantState(id, durable.Ready)
				}
			})
		})
	}
}

func TestCommitTimeout(t *testing.T) {
	inBubble(t, func(b *bed) {
		g := newGate()
		b.faults.set(g.pass, nil)
		start := time.Now()
		flying := b.addLater(b.ctx, work.With("a"))
		waiting := b.addLater(b.ctx, work.With("b").Tags("waited"))
		if err := <-flying; !errors.Is(err, durable.ErrUnavailable) || !errors.Is(err, durable.ErrUnknown) {
			t.Errorf("the one under way: %v", err)
		}
		if err := <-waiting; !errors.Is(err, durable.ErrUnavailable) || errors.Is(err, durable.ErrUnknown) {
			t.Errorf("the one that waited: %v", err)
		}
		if took := time.Since(start); took != 10*time.Second {
			t.Errorf("it took %v", took)
		}
		b.faults.set(nil, nil)
		close(g.closed)
		synctest.Wait()
		if tasks, _ := b.q.List(b.ctx, durable.Filter{Tag: "waited"}, durable.Page{}); len(tasks) != 0 {
			t.Error("what was not under way was added later")
		}
	})
}

func TestACallersContext(t *testing.T) {
	inBubble(t, func(b *bed) {
		gone := errors.New("the client has gone")
		ended, end := context.WithCancelCause(b.ctx)
		end(gone)
		if _, err := b.q.Add(ended, work.With("a")); !errors.Is(err, gone) || errors.Is(err, durable.ErrUnknown) {
			t.Errorf("with a context that has ended: %v", err)
		}
		g := newGate()
		b.faults.set(g.pass, nil)
		ctx, cancel := context.WithCancelCause(b.ctx)
		flying := b.addLater(ctx, work.With("flying"))
		waiting := b.addLater(ctx, work.With("waiting"))
		cancel(gone)
		if err := <-flying; !errors.Is(err, gone) || !errors.Is(err, durable.ErrUnknown) {
			t.Errorf("the one under way: %v", err)
		}
		if err := <-waiting; !errors.Is(err, gone) || errors.Is(err, durable.ErrUnknown) {
			t.Errorf("the one that waited: %v", err)
		}
		close(g.closed)
		synctest.Wait()
		if tasks, _ := b.q.List(b.ctx, durable.Filter{}, durable.Page{}); len(tasks) != 1 {
			t.Errorf("%d tasks, want the one that was under way", len(tasks))
		}
	})
}

func TestMaxWaiting(t *testing.T) {
	inBubble(t, func(b *bed) {
		b.queue(durable.QueueConfig{MaxWaiting: 2}, nil)
		g := newGate()
		b.faults.set(g.pass, nil)
		one, two := b.addLater(b.ctx, work.With("")), b.addLater(b.ctx, work.With(""))
		if _, err := b.q.Add(b.ctx, work.With("")); !errors.Is(err, durable.ErrUnavailable) {
			t.Errorf("the third caller got %v", err)
		}
		close(g.closed)
		if err := errors.Join(<-one, <-two); err != nil {
			t.Error(err)
		}
		b.add(work.With("")) // the places are free again
	})
}

var errLost = fmt.Errorf("the connection broke: %w: %w", durable.ErrUnavailable, durable.ErrUnknown)

func TestALostAnswerIsAskedForAgain(t *testing.T) {
	inBubble(t, func(b *bed) {
		lost := 0
		b.faults.set(nil, func(*durable.Batch) error {
			if lost++; lost < 3 {
				return errLost
			}
			return nil
		})
		ids, err := b.q.AddAll(b.ctx, work.With("a"), work.With("b").Key("k"))
		if err != nil {
			t.Fatal(err)
		}
		b.wantState(ids[1], durable.Ready)
		if tasks, _ := b.q.List(b.ctx, durable.Filter{}, durable.Page{}); len(tasks) != 2 {
			t.Errorf("%d tasks, want two", len(tasks))
		}
		seen := b.faults.seen()
		if seen[0].Again || !seen[1].Again || !seen[2].Again {
			t.Error("the second and third batch have to say that they are repeated")
		}
	})
}

func TestAnAnswerThatStaysLost(t *testing.T) {
	inBubble(t, func(b *bed) {
		b.faults.set(nil, func(*durable.Batch) error { return errLost })
		_, err := b.q.Add(b.ctx, work.With("a"))
		if !errors.Is(err, durable.ErrUnknown) {
			t.Errorf("got %v", err)
		}
		if n := len(b.faults.seen()); n < 3 {
			t.Errorf("it was tried %d times", n)
		}
	})
}

func TestAnUnavailableStoreFailsAtOnce(t *testing.T) {
	inBubble(t, func(b *bed) {
		b.faults.set(func(*durable.Batch) error { return durable.ErrFull }, nil)
		start := time.Now()
		if _, err := b.q.Add(b.ctx, work.With("a")); !errors.Is(err, durable.ErrUnavailable) || !errors.Is(err, durable.ErrFull) || errors.Is(err, durable.ErrUnknown) {
			t.Errorf("got %v", err)
		}
		if time.Since(start) > 0 {
			t.Error("the caller had to wait")
		}
	})
}

func TestOneBadPartDoesNotFailTheOthers(t *testing.T) {
	inBubble(t, func(b *bed) {
		refused := errors.New("no poison, please")
		g := newGate()
		b.faults.set(g.pass, nil)
		b.addLater(b.ctx, work.With(""))
		good := []<-chan error{}
		var bad <-chan error
		for i := range 20 {
			arg := "good"
			if i == 7 {
				arg = "poison"
			}
			done := b.addLater(b.ctx, work.With(arg))
			if i == 7 {
				bad = done
			} else {
				good = append(good, done)
			}
		}
		b.faults.set(func(batch *durable.Batch) error {
			for _, in := range batch.Inserts {
				if bytes.Contains(in.Payload, []byte("poison")) {
					return refused
				}
			}
			return nil
		}, nil)
		close(g.closed)
		for _, done := range good {
			if err := <-done; err != nil {
				t.Errorf("a good one: %v", err)
			}
		}
		if err := <-bad; !errors.Is(err, refused) || errors.Is(err, durable.ErrUnavailable) {
			t.Errorf("the bad one: %v", err)
		}
	})
}

func TestAStoreThatRefusesEverythingIsNotAskedForEachPart(t *testing.T) {
	inBubble(t, func(b *bed) {
		broken := errors.New("database disk image is malformed")
		g := newGate()
		b.faults.set(g.pass, nil)
		b.addLater(b.ctx, work.With(""))
		var all []<-chan error
		for range 64 {
			all = append(all, b.addLater(b.ctx, work.With("")))
		}
		b.faults.set(func(*durable.Batch) error { return broken }, nil)
		close(g.closed)
		for _, done := range all {
			if err := <-done; !errors.Is(err, broken) {
				t.Errorf("got %v", err)
			}
		}
		if n := len(b.faults.seen()); n > 20 {
			t.Errorf("the store was asked %d times", n)
		}
	})
}

func TestWhatCannotBeAdded(t *testing.T) {
	inBubble(t, func(b *bed) {
		b.queue(durable.QueueConfig{MaxPayload: 100}, nil)
		for name, job := range map[string]durable.Queueable{
			"nil":       nil,
			"empty":     durable.Job{},
			"too large": work.With(strings.Repeat("x", 200)),
			"bad key":   work.With("").Key("\x00"),
		} {
			if _, err := b.q.Add(b.ctx, job); err == nil || !strings.HasPrefix(err.Error(), "durable: ") {
				t.Errorf("%s: %v", name, err)
			} else if name == "too large" && !errors.Is(err, durable.ErrTooLarge) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if len(b.faults.seen()) > 0 {
			t.Error("the store was asked")
		}
	})
}

func TestADuplicateIsAnotherName(t *testing.T) {
	inBubble(t, func(b *bed) {
		first := b.add(work.With("a").Key("k"))
		second := b.add(work.With("b").Key("k"))
		if first == second || b.get(second).ID != first {
			t.Error("the second id is not another name for the first task")
		}
	})
}

func TestCloseWaitsForWhatWasGiven(t *testing.T) {
	inBubble(t, func(b *bed) {
		g := newGate()
		b.faults.set(g.pass, nil)
		added := b.addLater(b.ctx, work.With(""))
		ctx, cancel := context.WithTimeout(b.ctx, time.Second)
		defer cancel()
		if err := b.q.Close(ctx); err == nil {
			t.Error("Close did not wait for the commit under way")
		}
		if _, err := b.q.Add(b.ctx, work.With("")); !errors.Is(err, durable.ErrClosed) {
			t.Errorf("add after Close: %v", err)
		}
		close(g.closed)
		if err := <-added; err != nil {
			t.Error(err)
		}
		if err := b.q.Close(b.ctx); err != nil {
			t.Error(err)
		}
	})
}

// flip is a codec that turns all bits over.
type flip struct{ broken bool }

func (f *flip) Seal(_ string, plain []byte) ([]byte, error) {
	sealed := bytes.Clone(plain)
	for i := range sealed {
		sealed[i] ^= 0xff
	}
	return sealed, nil
}

func (f *flip) Open(kind string, sealed []byte) ([]byte, error) {
	if f.broken {
		return nil, errors.New("the key is lost")
	}
	return f.Seal(kind, sealed)
}

func TestCodec(t *testing.T) {
	inBubble(t, func(b *bed) {
		codec := &flip{}
		b.queue(durable.QueueConfig{Codec: codec, Redact: func(string, []byte) []byte { return []byte("***") }}, func(traits *durable.Traits) { traits.SharedTx = true })
		double := durable.DeclareResult[int, int]("double")
		b.run(durable.EngineConfig{}, double.Run(func(_ context.Context, n int) (int, error) { return 2 * n, nil }))
		id := b.add(double.With(21))
		if n, err := double.Wait(b.ctx, b.q, id); n != 42 || err != nil {
			t.Errorf("result %d, %v", n, err)
		}
		stored, err := b.memory.Get(b.ctx, id)
		if err != nil || string(stored.Payload) != "\xcd\xce" || string(stored.Result) != "\xcb\xcd" {
			t.Errorf("stored %q and %q, %v", stored.Payload, stored.Result, err)
		}
		task := b.get(id)
		if string(task.Payload) != "21" || string(task.Result) != "42" || string(b.q.Redacted(task)) != "***" {
			t.Errorf("got %q and %q", task.Payload, task.Result)
		}
		var inTx durable.ID
		if err := b.q.InTx(b.ctx, func(_ context.Context, tx *durable.SQLTx) error { inTx = tx.Add(double.With(1)); return nil }); err != nil {
			t.Fatal(err)
		}
		if n, err := double.Wait(b.ctx, b.q, inTx); n != 2 || err != nil {
			t.Errorf("added in a transaction: %d, %v", n, err)
		}

		codec.broken = true
		task = b.wantState(b.add(double.With(1)), durable.Dead)
		if e := task.Errors[0]; e.Cause != "payload" || !strings.Contains(e.Message, "the key is lost") {
			t.Errorf("an argument that cannot be opened: %+v", e)
		}
		if _, err := double.Wait(b.ctx, b.q, id); err == nil || !strings.Contains(err.Error(), "the key is lost") {
			t.Errorf("a result that cannot be opened: %v", err)
		}
	})
}

func TestMetaIsPassedOn(t *testing.T) {
	inBubble(t, func(b *bed) {
		child := durable.Declare[string]("child")
		var id durable.ID
		b.run(durable.EngineConfig{}, handler(func(ctx context.Context, _ string) (err error) {
			id, err = durable.QueueFrom(ctx).Add(ctx, child.With("").Owner("o"))
			return err
		}))
		ctx := durable.WithMeta(b.ctx, durable.Meta{RequestID: "r", TraceParent: "t", Owner: "p"})
		parent, err := b.q.Add(ctx, work.With(""))
		if err != nil {
			t.Fatal(err)
		}
		if m := b.get(parent).Meta; m != (durable.Meta{RequestID: "r", TraceParent: "t", Owner: "p"}) {
			t.Errorf("the task has %+v", m)
		}
		if m := b.get(id).Meta; m != (durable.Meta{RequestID: "r", TraceParent: "t", Owner: "o"}) {
			t.Errorf("its child has %+v", m)
		}
	})
}

func TestManyCallersAtOnce(t *testing.T) {
	inBubble(t, func(b *bed) {
		ran := map[string]int{}
		var mu sync.Mutex
		b.run(durable.EngineConfig{}, handler(func(_ context.Context, arg string) error {
			mu.Lock()
			defer mu.Unlock()
			ran[arg]++
			return nil
		}))
		var wg sync.WaitGroup
		for i := range 32 {
			wg.Go(func() {
				for j := range 50 {
					b.add(work.With(fmt.Sprint(i, "-", j)))
				}
			})
		}
		wg.Wait()
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		if len(ran) != 32*50 {
			t.Errorf("%d tasks ran", len(ran))
		}
		for arg, n := range ran {
			if n != 1 {
				t.Errorf("%s ran %d times", arg, n)
			}
		}
	})
}
