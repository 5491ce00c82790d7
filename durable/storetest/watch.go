package storetest

import (
	"context"
	"time"

	"github.com/wake-go/wake/durable"
)

func watchTests() []test {
	return []test{
		{"another process's doings are heard of", watchOthers},
		{"a user's transaction is heard of when it commits", watchTx},
		{"the passing of time is heard of", watchTime},
		{"watching ends with its context", watchEnds},
	}
}

// watcher hears what a store says, until the test ends.
type watcher struct {
	k       *kit
	signals chan durable.Signal
	ended   chan error
}

// watch makes a watcher that is known to hear.
func (k *kit) watch(o *kit) *watcher {
	k.Helper()
	ctx, cancel := context.WithCancel(k.ctx)
	w := &watcher{k, make(chan durable.Signal), make(chan error, 1)}
	go func() {
		w.ended <- k.s.Watch(ctx, func(s durable.Signal) {
			select {
			case w.signals <- s:
			case <-ctx.Done():
			}
		})
	}()
	k.Cleanup(func() {
		cancel()
		select {
		case <-w.ended:
		case <-time.After(patience):
			k.Error("Watch has not returned though its context has ended")
		}
	})

	// It may take a moment until the store listens: something is said again
	// and again until it is heard.
	said, stop := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(said)
		for {
			_ = o.s.SetPaused(k.ctx, "nothing", true)
			select {
			case <-stop:
				return
			case <-time.After(5 * time.Millisecond):
			}
		}
	}()
	w.wait("anything", ^durable.Signal(0))
	close(stop)
	<-said
	return w
}

// hear does something and waits until it is heard of. What was said before is
// let go by first: a watcher may hear too much, and would else hear that.
func (w *watcher) hear(what string, want durable.Signal, do func()) {
	w.k.Helper()
	for quiet := false; !quiet; {
		select {
		case <-w.signals:
		case <-time.After(20 * time.Millisecond):
			quiet = true
		}
	}
	do()
	w.wait(what, want)
}

func (w *watcher) wait(what string, want durable.Signal) {
	w.k.Helper()
	deadline := time.After(patience)
	for {
		select {
		case got := <-w.signals:
			if got&want != 0 {
				return
			}
		case err := <-w.ended:
			w.ended <- err
			w.k.Fatalf("Watch returned %v", err)
		case <-deadline:
			w.k.Fatalf("%s was not heard of", what)
		}
	}
}

func watchOthers(k *kit) {
	o := k.other()
	w := k.watch(o)
	w.hear("an insert", durable.SignalTasks, func() { o.insert(o.in("a"), o.in("b")) })
	c := k.claim(1, "a")[0]
	w.hear("cancelling a running task", durable.SignalCancelled, func() {
		_, err := o.s.Cancel(k.ctx, c.Ref.ID)
		k.must(err)
	})
	b := o.claimOne("b")
	w.hear("progress", durable.SignalFinished, func() {
		o.commit(durable.Batch{Progress: []durable.ProgressUpdate{{Ref: b.Ref, Report: durable.ProgressReport{Done: 1}}}})
	})
	w.hear("an outcome", durable.SignalFinished, func() { o.finish(b.Ref, durable.MoveSucceed, 0) })
	w.hear("a schedule", durable.SignalSchedules, func() { o.declare(o.row("nightly")) })
	k.finish(c.Ref, durable.MoveExhaust, 0)
	w.hear("a retry", durable.SignalTasks, func() { k.must(o.s.Retry(k.ctx, c.Ref.ID)) })
	w.hear("resuming", durable.SignalTasks, func() { k.must(o.s.SetPaused(k.ctx, "nothing", false)) })
	w.hear("a function", durable.SignalTasks, func() {
		k.must(o.inTx(k.ctx, func(tx *durable.SQLTx) error { tx.Add(job().With("x")); return nil }))
	})
}

func watchTx(k *kit) {
	if k.f.BeginTx == nil {
		k.Skip("the store has no SQL")
	}
	w := k.watch(k.other())
	tx := k.begin()
	_, err := k.s.InsertTx(k.ctx, durable.SQL(tx), []durable.Insert{k.in("a")})
	k.must(err)
	w.hear("a task of a transaction", durable.SignalTasks, func() { k.must(tx.Commit()) })
	k.claimOne("a")
}

func watchTime(k *kit) {
	k.add("a", delay(time.Minute))
	w := k.watch(k.other())
	w.hear("a minute", durable.SignalTasks, func() { k.advance(time.Minute + time.Second) })
	k.claimOne("a")
}

func watchEnds(k *kit) {
	ctx, cancel := context.WithCancel(k.ctx)
	ended := make(chan error, 1)
	go func() { ended <- k.s.Watch(ctx, func(durable.Signal) {}) }()
	cancel()
	select {
	case <-ended:
	case <-time.After(patience):
		k.Fatal("Watch has not returned though its context has ended")
	}
}
