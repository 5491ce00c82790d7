package storetest

import (
	"bytes"
	"fmt"
	"time"

	"github.com/wake-go/wake/durable"
)

func finishTests() []test {
	return []test{
		{"each outcome leaves the task where it belongs", outcomes},
		{"a result is kept", resultKept},
		{"the error of each attempt is kept, with the store's time", errorsKept},
		{"of very many errors the last ones are kept", errorsBounded},
		{"the outcome of a stale claim is refused and changes nothing", staleFinish},
		{"the outcome of another process is refused and changes nothing", foreignFinish},
		{"an outcome is recorded once", finishOnce},
		{"the outcome of an unknown task is refused", finishUnknown},
		{"the outcomes of a batch stand and fall alone", finishMixed},
		{"progress is kept, until the claim is over", progressKept},
		{"Finished tells a claim that was finished from one that was taken away", finishedTells},
		{"a task that is to be cancelled does not run again", cancelledStays},
	}
}

func outcomes(k *kit) {
	for _, c := range []struct {
		move    durable.Move
		delay   time.Duration
		state   durable.State
		attempt int
	}{
		{durable.MoveSucceed, 0, durable.Succeeded, 1},
		{durable.MoveFail, 0, durable.Ready, 1},
		{durable.MoveFail, time.Minute, durable.Scheduled, 1},
		{durable.MoveExhaust, 0, durable.Dead, 1},
		{durable.MoveSnooze, 0, durable.Ready, 0},
		{durable.MoveSnooze, time.Minute, durable.Scheduled, 0},
		{durable.MoveRelease, 0, durable.Ready, 0},
		{durable.MoveCancel, 0, durable.Cancelled, 1},
	} {
		kind := fmt.Sprint(c.move, c.delay)
		claim := k.start(kind)
		k.finish(claim.Ref, c.move, c.delay)
		k.status(claim.Ref.ID, c.state, c.attempt, 0)
		t := k.get(claim.Ref.ID)
		if want := k.now().Add(c.delay); !c.state.Finished() && !near(t.RunAt, want) {
			k.Fatalf("%s: to be run at %v, want %v", kind, t.RunAt, want)
		}
		equal(k, kind+": has a time when it finished", !t.FinishedAt.IsZero(), c.state.Finished())
		if c.state.Finished() && !near(t.FinishedAt, k.now()) {
			k.Fatalf("%s: finished at %v; it is %v", kind, t.FinishedAt, k.now())
		}
		equal(k, kind+": kept payload", string(t.Payload), `{"n":1}`)
		if c.delay > 0 {
			equal(k, kind+": claimed before its time", len(k.claim(1, kind)), 0)
			k.advance(c.delay + time.Second)
		}
		want := 1
		if c.state.Finished() {
			want = 0
		}
		equal(k, kind+": claimed again", len(k.claim(1, kind)), want)
	}
}

func resultKept(k *kit) {
	c := k.start("a")
	if !k.tryFinish(durable.Finish{Ref: c.Ref, Move: durable.MoveSucceed, Result: []byte(`{"sum":3}`)}) {
		k.Fatal("the outcome was refused")
	}
	equal(k, "result", string(k.get(c.Ref.ID).Result), `{"sum":3}`)
	tasks, err := k.s.List(k.ctx, durable.Filter{}, durable.Page{})
	k.must(err)
	if t := tasks[0]; len(t.Payload) > 0 || len(t.Result) > 0 || len(t.Errors) > 0 {
		k.Fatalf("List has payload %q, result %q, errors %v", t.Payload, t.Result, t.Errors)
	}
}

func errorsKept(k *kit) {
	c := k.start("a")
	var times []time.Time
	for i, m := range []durable.Move{durable.MoveFail, durable.MoveFail, durable.MoveExhaust} {
		e := durable.AttemptError{Attempt: i + 1, Cause: "panic", Message: fmt.Sprint("message ", i), Stack: "stack\n\tof it", Node: "n", At: time.Unix(1, 0)}
		if !k.tryFinish(durable.Finish{Ref: c.Ref, Move: m, Error: &e}) {
			k.Fatal("the outcome was refused")
		}
		times = append(times, k.now())
		k.advance(time.Minute)
		if i < 2 {
			c = k.claimOne("a")
		}
	}
	t := k.get(c.Ref.ID)
	equal(k, "errors", len(t.Errors), 3)
	for i, e := range t.Errors {
		if !near(e.At, times[i]) {
			k.Fatalf("error %d was at %v; want the store's time, %v", i, e.At, times[i])
		}
		e.At = time.Time{}
		equal(k, "error", e, durable.AttemptError{Attempt: i + 1, Cause: "panic", Message: fmt.Sprint("message ", i), Stack: "stack\n\tof it", Node: "n"})
	}
	k.must(k.s.Retry(k.ctx, t.ID))
	equal(k, "errors after a retry", len(k.get(t.ID).Errors), 3)
}

func errorsBounded(k *kit) {
	c := k.start("a")
	const more = 7
	for i := range durable.MaxErrors + more {
		if !k.tryFinish(durable.Finish{Ref: c.Ref, Move: durable.MoveFail, Error: &durable.AttemptError{Attempt: i, Cause: "error"}}) {
			k.Fatal("the outcome was refused")
		}
		c = k.claimOne("a")
	}
	errs := k.get(c.Ref.ID).Errors
	equal(k, "errors", len(errs), durable.MaxErrors)
	equal(k, "the first that is kept", errs[0].Attempt, more)
}

// refusedOutcomes checks that nothing can be recorded for a claim.
func (k *kit) refusedOutcomes(ref durable.Ref) {
	k.Helper()
	before := k.get(ref.ID)
	for _, m := range []durable.Move{durable.MoveSucceed, durable.MoveFail, durable.MoveExhaust, durable.MoveSnooze, durable.MoveRelease, durable.MoveCancel} {
		if k.tryFinish(durable.Finish{Ref: ref, Move: m, Result: []byte(`"stale"`), Error: &durable.AttemptError{Message: "stale"}}) {
			k.Fatalf("%v was accepted for the claim %v", m, ref)
		}
	}
	res := k.commit(durable.Batch{Progress: []durable.ProgressUpdate{{Ref: ref, Report: durable.ProgressReport{Done: 99}}}})
	equal(k, "progress of a stale claim", res.Progressed[0], false)
	after := k.get(ref.ID)
	if after.State != before.State || after.Attempt != before.Attempt || after.Fence != before.Fence ||
		!bytes.Equal(after.Result, before.Result) || len(after.Errors) != len(before.Errors) ||
		(after.Progress == nil) != (before.Progress == nil) {
		k.Fatalf("what was refused has changed the task from %+v to %+v", before, after)
	}
}

func staleFinish(k *kit) {
	// The same boot claims the task again, for the same attempt: only the fence
	// tells the two claims apart.
	for _, m := range []durable.Move{durable.MoveRelease, durable.MoveSnooze, durable.MoveFail} {
		kind := m.String()
		old := k.start(kind)
		k.finish(old.Ref, m, 0)
		k.refusedOutcomes(old.Ref)
		again := k.claimOne(kind)
		equal(k, "claimed again", again.Ref.ID, old.Ref.ID)
		k.refusedOutcomes(old.Ref)
		k.finish(again.Ref, durable.MoveSucceed, 0)
		k.refusedOutcomes(old.Ref)
	}
	c := k.start("late")
	k.finish(c.Ref, durable.MoveExhaust, 0)
	k.refusedOutcomes(c.Ref)
}

func foreignFinish(k *kit) {
	c := k.start("a")
	o := k.other()
	o.refusedOutcomes(c.Ref)
	k.finish(c.Ref, durable.MoveRelease, 0)
	theirs := o.claimOne("a")
	k.refusedOutcomes(c.Ref)
	k.refusedOutcomes(theirs.Ref)
	o.finish(theirs.Ref, durable.MoveSucceed, 0)
}

func finishOnce(k *kit) {
	c := k.start("a")
	res := k.commit(durable.Batch{Finishes: []durable.Finish{
		{Ref: c.Ref, Move: durable.MoveSucceed, Result: []byte("1")}, {Ref: c.Ref, Move: durable.MoveSucceed, Result: []byte("2")},
	}})
	equal(k, "first outcome in a batch", res.Finished[0], true)
	equal(k, "second outcome in a batch", res.Finished[1], false)
	equal(k, "result", string(k.get(c.Ref.ID).Result), "1")
	k.refusedOutcomes(c.Ref)
}

func finishUnknown(k *kit) {
	ref := durable.Ref{ID: k.ids.next(), Seq: 77, Fence: 1}
	equal(k, "outcome of an unknown task", k.tryFinish(durable.Finish{Ref: ref, Move: durable.MoveSucceed}), false)
	waiting := k.add("a")
	equal(k, "outcome of a task that waits", k.tryFinish(durable.Finish{Ref: durable.Ref{ID: waiting}, Move: durable.MoveSucceed}), false)
	k.status(waiting, durable.Ready, 0, 0)
}

func finishMixed(k *kit) {
	var finishes []durable.Finish
	for i := range 60 {
		c := k.start("a")
		f := durable.Finish{Ref: c.Ref, Move: []durable.Move{durable.MoveSucceed, durable.MoveExhaust, durable.MoveSnooze}[i%3], Delay: time.Hour}
		if i%5 == 0 {
			f.Ref.Fence--
		}
		finishes = append(finishes, f)
	}
	res := k.commit(durable.Batch{Finishes: finishes})
	for i, f := range finishes {
		equal(k, fmt.Sprintf("outcome %d", i), res.Finished[i], i%5 != 0)
		want := []durable.State{durable.Succeeded, durable.Dead, durable.Scheduled}[i%3]
		if i%5 == 0 {
			want = durable.Running
		}
		equal(k, fmt.Sprintf("state after outcome %d", i), k.get(f.Ref.ID).State, want)
	}
}

func progressKept(k *kit) {
	c := k.start("a")
	for i := range 3 {
		report := durable.ProgressReport{Done: i, Total: 3, Message: fmt.Sprintf("step %d", i), At: time.Unix(1, 0)}
		res := k.commit(durable.Batch{Progress: []durable.ProgressUpdate{{Ref: c.Ref, Report: report}}})
		equal(k, "progress", res.Progressed[0], true)
		p := k.get(c.Ref.ID).Progress
		if p == nil || p.Done != i || p.Total != 3 || p.Message != report.Message || !near(p.At, k.now()) {
			k.Fatalf("progress is %+v, want %+v at %v", p, report, k.now())
		}
	}
	k.finish(c.Ref, durable.MoveSucceed, 0)
	equal(k, "progress of a finished task", k.get(c.Ref.ID).Progress.Done, 2)
	k.refusedOutcomes(c.Ref)
}

func finishedTells(k *kit) {
	tells := func(what string, who *kit, ref durable.Ref, want bool) {
		k.Helper()
		got, err := who.s.Finished(k.ctx, who.boot, ref)
		k.must(err)
		equal(k, what, got, want)
	}
	o := k.other()
	for _, m := range []durable.Move{durable.MoveSucceed, durable.MoveExhaust, durable.MoveCancel, durable.MoveFail, durable.MoveSnooze} {
		c := k.start(m.String())
		tells("running", k, c.Ref, false)
		k.finish(c.Ref, m, time.Hour)
		tells("after "+m.String(), k, c.Ref, true)
		tells("asked by another process", o, c.Ref, false)
		stale := c.Ref
		stale.Fence--
		tells("an earlier claim", k, stale, false)
	}
	tells("an unknown task", k, durable.Ref{ID: k.ids.next(), Fence: 1}, false)

	c := k.start("lost")
	k.advance(2 * lease)
	_, err := o.s.Sweep(k.ctx, o.boot)
	k.must(err)
	tells("after the task was taken away", k, c.Ref, false)
	theirs := o.claimOne("lost")
	tells("while another runs it", k, c.Ref, false)
	o.finish(theirs.Ref, durable.MoveSucceed, 0)
	tells("when another has finished it", k, c.Ref, false)
	tells("the other's own", o, theirs.Ref, true)
}

func cancelledStays(k *kit) {
	for _, m := range []durable.Move{durable.MoveFail, durable.MoveSnooze, durable.MoveRelease} {
		c := k.start(m.String())
		_, err := k.s.Cancel(k.ctx, c.Ref.ID)
		k.must(err)
		k.finish(c.Ref, m, 0)
		equal(k, "state after "+m.String(), k.get(c.Ref.ID).State, durable.Cancelled)
	}
	c := k.start("finish wins")
	_, err := k.s.Cancel(k.ctx, c.Ref.ID)
	k.must(err)
	k.finish(c.Ref, durable.MoveSucceed, 0)
	equal(k, "state after success", k.get(c.Ref.ID).State, durable.Succeeded)
}
