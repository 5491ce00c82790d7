package memory_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wake-go/wake/durable"
	"github.com/wake-go/wake/durable/memory"
)

func insert(kind string) durable.Insert {
	return durable.Insert{ID: durable.NewID(), Kind: kind, Queue: durable.DefaultQueue, MaxAttempts: 1}
}

func commit(t *testing.T, s *memory.Store, b *durable.Batch) *durable.BatchResult {
	t.Helper()
	res, err := s.Commit(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func TestNoSQL(t *testing.T) {
	s := memory.New(memory.Config{})
	defer s.Close()
	job := durable.Declare[string]("job")
	var id durable.ID
	f := &durable.Func{Run: func(tx *durable.SQLTx) error {
		ctx := t.Context()
		_, exec := tx.ExecContext(ctx, "DELETE FROM users")
		_, query := tx.QueryContext(ctx, "SELECT 1")
		_, prepare := tx.PrepareContext(ctx, "SELECT 1")
		row := tx.QueryRowContext(ctx, "SELECT 1").Scan(new(int))
		for _, err := range []error{exec, query, prepare, row} {
			if err == nil || !strings.Contains(err.Error(), "no SQL") {
				t.Errorf("a statement answered %v; want an error that says there is no SQL", err)
			}
		}
		id = tx.Add(job.With("x"))
		return nil
	}}
	if err := s.InTx(t.Context(), f); err != nil {
		t.Fatal(err)
	}
	if task, err := s.Get(t.Context(), id); err != nil || task.State != durable.Ready {
		t.Fatalf("the task is %+v, %v", task, err)
	}
}

func TestFuncInBatchIsRefused(t *testing.T) {
	s := memory.New(memory.Config{})
	defer s.Close()
	f := &durable.Func{Run: func(*durable.SQLTx) error { t.Error("the function ran"); return nil }}
	in := insert("a")
	res := commit(t, s, &durable.Batch{Funcs: []*durable.Func{f}, Inserts: []durable.Insert{in}})
	if f.Err == nil || res.Inserted[0].Err != nil {
		t.Fatalf("function: %v; insert beside it: %v", f.Err, res.Inserted[0].Err)
	}
}

func TestMaxTasks(t *testing.T) {
	s := memory.New(memory.Config{MaxTasks: 2})
	defer s.Close()
	ins := []durable.Insert{insert("a"), insert("a"), insert("a")}
	res := commit(t, s, &durable.Batch{Inserts: ins})
	for i, in := range res.Inserted {
		if full := i == 2; full != errors.Is(in.Err, durable.ErrFull) || full != errors.Is(in.Err, durable.ErrUnavailable) {
			t.Errorf("insert %d of 3 in a store for 2: %v", i, in.Err)
		}
	}
	add := func() error {
		return s.InTx(t.Context(), &durable.Func{Run: func(tx *durable.SQLTx) error {
			tx.Add(durable.Declare[int]("job").With(1))
			return nil
		}})
	}
	if err := add(); !errors.Is(err, durable.ErrFull) {
		t.Errorf("a function that adds to a full store: %v", err)
	}
	if err := s.Delete(t.Context(), ins[0].ID); err != nil {
		t.Fatal(err)
	}
	if err := add(); err != nil {
		t.Errorf("a function that adds when there is room again: %v", err)
	}
}

func TestBadConfigPanics(t *testing.T) {
	defer func() {
		if v, _ := recover().(string); !strings.Contains(v, "MaxTasks") || !strings.Contains(v, "-1") {
			t.Errorf("the panic %q does not name the field and the value", v)
		}
	}()
	memory.New(memory.Config{MaxTasks: -1})
}

func TestClock(t *testing.T) {
	now := time.Date(2026, 3, 29, 1, 59, 59, 0, time.FixedZone("CET", 3600))
	s := memory.New(memory.Config{Now: func() time.Time { return now }})
	defer s.Close()
	s.Advance(time.Minute)
	got, err := s.Now(t.Context())
	if want := now.Add(time.Minute); err != nil || !got.Equal(want) || got.Location() != time.UTC {
		t.Fatalf("it is %v, %v; want %v in UTC", got, err, want)
	}
}

// TestFakeTime: in a bubble of package synctest the store's time is the
// bubble's.
func TestFakeTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory.New(memory.Config{})
		defer s.Close()
		boot := durable.Boot(durable.NewID())
		if _, err := s.Register(t.Context(), durable.Node{Boot: boot}); err != nil {
			t.Fatal(err)
		}
		in := insert("a")
		in.Delay = time.Hour
		b := &durable.Batch{Boot: boot, Claims: []durable.Claim{{Queue: durable.DefaultQueue, Kinds: []string{"a"}, Limit: 1}}}
		res := commit(t, s, &durable.Batch{Boot: boot, Inserts: []durable.Insert{in}})
		time.Sleep(time.Until(res.NextDue) - time.Nanosecond)
		if res := commit(t, s, b); len(res.Claimed) != 0 {
			t.Fatal("claimed a nanosecond too early")
		}
		time.Sleep(time.Nanosecond)
		if res := commit(t, s, b); len(res.Claimed) != 1 {
			t.Fatal("not claimed at its time")
		}
	})
}

// TestWatchEveryQueue: each of two watchers hears of a commit, and of all that
// happens while it is busy once.
func TestWatchEveryQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory.New(memory.Config{})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var calls [2]int
		var heard [2]durable.Signal
		busy := make(chan struct{})
		for i := range 2 {
			go func() {
				_ = s.Watch(ctx, func(signal durable.Signal) {
					calls[i]++
					heard[i] |= signal
					<-busy
				})
			}()
		}
		synctest.Wait()
		for range 5 {
			commit(t, s, &durable.Batch{Inserts: []durable.Insert{insert("a")}})
			synctest.Wait()
		}
		s.Advance(time.Minute)
		close(busy)
		synctest.Wait()
		want := durable.SignalTasks | durable.SignalSchedules
		if calls != [2]int{2, 2} || heard != [2]durable.Signal{want, want} {
			t.Errorf("watchers were called %v times and heard %v; want 2 times each, and %v", calls, heard, want)
		}
		if err := s.Close(); err != nil { // which ends Watch
			t.Fatal(err)
		}
	})
}

func TestClosed(t *testing.T) {
	s := memory.New(memory.Config{})
	for range 2 {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	_, err := s.Commit(t.Context(), &durable.Batch{})
	watch := s.Watch(t.Context(), func(durable.Signal) {})
	inTx := s.InTx(t.Context(), &durable.Func{Run: func(*durable.SQLTx) error { t.Error("the function ran"); return nil }})
	for _, err := range []error{err, watch, inTx, s.Ping(t.Context())} {
		if !errors.Is(err, durable.ErrClosed) {
			t.Errorf("a closed store answered %v; want an error that matches ErrClosed", err)
		}
	}
}

// What is handed in and out is not shared with the store.
func TestCopies(t *testing.T) {
	s := memory.New(memory.Config{})
	defer s.Close()
	in := insert("a")
	in.Payload, in.Tags = []byte("payload"), []string{"tag"}
	commit(t, s, &durable.Batch{Inserts: []durable.Insert{in}})
	in.Payload[0], in.Tags[0] = 'X', "X"
	for range 2 {
		task, err := s.Get(t.Context(), in.ID)
		if err != nil || string(task.Payload) != "payload" || task.Tags[0] != "tag" {
			t.Fatalf("the task is %q %q, %v", task.Payload, task.Tags, err)
		}
		task.Payload[0], task.Tags[0] = 'Y', "Y"
	}
}

// BenchmarkCycle is one task added, claimed and finished, in batches of 100.
func BenchmarkCycle(b *testing.B) {
	s := memory.New(memory.Config{MaxTasks: 1 << 30})
	defer s.Close()
	boot := durable.Boot(durable.NewID())
	if _, err := s.Register(b.Context(), durable.Node{Boot: boot}); err != nil {
		b.Fatal(err)
	}
	const size = 100
	var finishes []durable.Finish
	for i := 0; i < b.N; i += size {
		batch := &durable.Batch{
			Boot: boot, Finishes: finishes,
			Claims: []durable.Claim{{Queue: durable.DefaultQueue, Kinds: []string{"a"}, Limit: size}},
		}
		for range size {
			batch.Inserts = append(batch.Inserts, insert("a"))
		}
		res, err := s.Commit(b.Context(), batch)
		if err != nil || len(res.Claimed) != size {
			b.Fatal(len(res.Claimed), err)
		}
		finishes = finishes[:0]
		for _, c := range res.Claimed {
			finishes = append(finishes, durable.Finish{Ref: c.Ref, Move: durable.MoveSucceed})
		}
	}
}
