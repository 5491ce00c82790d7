package storetest

import (
	"fmt"
	"time"

	"github.com/wake-go/wake/durable"
)

func taskTests() []test {
	return []test{
		{"cancelling ends what does not run, and asks what runs", cancelStates},
		{"the worker of a task hears at its next beat that it is to be cancelled", cancelHeard},
		{"retrying runs again what was given up", retryStates},
		{"a retry begins to count again", retryCounts},
		{"deleting removes all but what runs", deleteStates},
		{"a duplicate's id is as good as the task's", byAlias},
		{"an unknown task is one that is not found", unknownTask},
		{"finished tasks are kept for as long as their queue says", prune},
		{"finished tasks are kept for ten minutes at least", pruneMinimum},
		{"pruning goes in steps, and leaves what is unfinished", pruneSteps},
	}
}

func cancelStates(k *kit) {
	want := map[durable.State]durable.State{
		durable.Ready: durable.Cancelled, durable.Scheduled: durable.Cancelled, durable.Running: durable.Running,
		durable.Succeeded: durable.Succeeded, durable.Dead: durable.Dead, durable.Cancelled: durable.Cancelled,
	}
	for _, s := range states() {
		id := k.inState(s, s.String())
		for range 2 {
			got, err := k.s.Cancel(k.ctx, id)
			k.must(err)
			equal(k, "answer for a task that is "+s.String(), got, want[s])
		}
		t := k.get(id)
		equal(k, "state", t.State, want[s])
		if s == durable.Running || s == durable.Ready {
			equal(k, s.String()+": has a time when it was cancelled", near(t.CancelledAt, k.now()), true)
		}
		equal(k, s.String()+": has a time when it finished", !t.FinishedAt.IsZero(), want[s].Finished())
	}
	k.advance(2 * time.Hour)
	for _, s := range states() {
		equal(k, "claimed of what was cancelled", len(k.claim(9, s.String())), 0)
	}
}

func cancelHeard(k *kit) {
	o := k.other()
	a, b := k.start("a"), k.start("b")
	theirs := o.start("c")
	for _, c := range []durable.Claimed{a, theirs} {
		_, err := o.s.Cancel(k.ctx, c.Ref.ID)
		k.must(err)
	}
	for range 2 {
		refs := k.beat().Cancelled
		if len(refs) != 1 || refs[0].ID != a.Ref.ID || refs[0].Fence != a.Ref.Fence {
			k.Fatalf("a beat says that %v are cancelled, want %v", refs, a.Ref)
		}
	}
	k.finish(a.Ref, durable.MoveCancel, 0)
	k.status(a.Ref.ID, durable.Cancelled, 1, 0)
	equal(k, "cancelled at the next beat", len(k.beat().Cancelled), 0)
	k.finish(b.Ref, durable.MoveSucceed, 0)
}

func retryStates(k *kit) {
	for _, s := range states() {
		id := k.inState(s, s.String())
		err := k.s.Retry(k.ctx, id)
		switch s {
		case durable.Ready, durable.Running, durable.Succeeded:
			k.refused(err, durable.ErrState)
			equal(k, "state", k.get(id).State, s)
		default:
			k.must(err)
			k.sameIDs("claimed", refIDs(k.claim(9, s.String())), []durable.ID{id})
		}
	}
}

func retryCounts(k *kit) {
	o := k.other()
	c := k.start("a")
	k.lose(o)
	k.register(durable.Node{})
	for range 3 {
		c = k.claimOne("a")
		k.finish(c.Ref, durable.MoveFail, 0)
	}
	c = k.claimOne("a")
	k.finish(c.Ref, durable.MoveExhaust, 0)
	k.status(c.Ref.ID, durable.Dead, 4, 1)
	k.must(k.s.Retry(k.ctx, c.Ref.ID))
	k.status(c.Ref.ID, durable.Ready, 0, 0)
	t := k.get(c.Ref.ID)
	if !t.FinishedAt.IsZero() || !t.CancelledAt.IsZero() {
		k.Fatalf("a task that is ready has finished at %v and was cancelled at %v", t.FinishedAt, t.CancelledAt)
	}
	next := k.claimOne("a")
	if next.Ref.Fence <= c.Ref.Fence {
		k.Fatalf("after a retry the fence is %d, before it %d", next.Ref.Fence, c.Ref.Fence)
	}
	k.refusedOutcomes(c.Ref)

	_, err := k.s.Cancel(k.ctx, next.Ref.ID)
	k.must(err)
	k.finish(next.Ref, durable.MoveCancel, 0)
	k.must(k.s.Retry(k.ctx, next.Ref.ID))
	c = k.claimOne("a")
	equal(k, "cancelled at a beat, after a retry", len(k.beat().Cancelled), 0)
	k.finish(c.Ref, durable.MoveFail, 0)
	equal(k, "state after a retry and a failure", k.get(c.Ref.ID).State, durable.Ready)

	later := k.inState(durable.Scheduled, "b")
	k.must(k.s.Retry(k.ctx, later))
	if t := k.get(later); !near(t.RunAt, k.now()) {
		k.Fatalf("a retry of a scheduled task runs it at %v; it is %v", t.RunAt, k.now())
	}
}

func deleteStates(k *kit) {
	for _, s := range states() {
		id := k.inState(s, s.String(), payload(make([]byte, 4096)))
		err := k.s.Delete(k.ctx, id)
		if s == durable.Running {
			k.refused(err, durable.ErrState)
			equal(k, "state", k.get(id).State, s)
			continue
		}
		k.must(err)
		_, err = k.s.Get(k.ctx, id)
		k.refused(err, durable.ErrNotFound)
		k.refused(k.s.Delete(k.ctx, id), durable.ErrNotFound)
	}
	k.advance(2 * time.Hour)
	equal(k, "claimed of what was deleted", len(k.claim(9, "ready", "scheduled")), 0)
	equal(k, "tasks", len(k.list(durable.Filter{}, 100)), 1)
}

func byAlias(k *kit) {
	id := k.add("a", key("k"))
	alias := k.in("a", key("k"))
	k.insert(alias)
	s, err := k.s.Cancel(k.ctx, alias.ID)
	k.must(err)
	equal(k, "state", s, durable.Cancelled)
	equal(k, "state", k.get(id).State, durable.Cancelled)
	k.must(k.s.Retry(k.ctx, alias.ID))
	equal(k, "state", k.get(id).State, durable.Ready)
	k.must(k.s.Delete(k.ctx, alias.ID))
	for _, gone := range []durable.ID{id, alias.ID} {
		_, err := k.s.Get(k.ctx, gone)
		k.refused(err, durable.ErrNotFound)
	}
}

func unknownTask(k *kit) {
	k.add("a")
	for _, id := range []durable.ID{k.ids.next(), {}} {
		_, err := k.s.Get(k.ctx, id)
		k.refused(err, durable.ErrNotFound)
		_, err = k.s.Cancel(k.ctx, id)
		k.refused(err, durable.ErrNotFound)
		k.refused(k.s.Retry(k.ctx, id), durable.ErrNotFound)
		k.refused(k.s.Delete(k.ctx, id), durable.ErrNotFound)
	}
}

// prune prunes until nothing is left to, and returns how much it was.
func (k *kit) prune(keep map[string]durable.Retention) int {
	k.Helper()
	total := 0
	for {
		n, err := k.s.Prune(k.ctx, keep, 1000)
		k.must(err)
		if total += n; n == 0 {
			return total
		}
	}
}

func prune(k *kit) {
	left := map[string]durable.ID{}
	for _, q := range []string{durable.DefaultQueue, "short"} {
		for _, m := range []durable.Move{durable.MoveSucceed, durable.MoveCancel, durable.MoveExhaust} {
			id := k.add("a", queue(q), payload(make([]byte, 2000)))
			res := k.commit(durable.Batch{Claims: []durable.Claim{{Queue: q, Kinds: []string{"a"}, Limit: 1}}})
			k.finish(res.Claimed[0].Ref, m, 0)
			left[q+" "+m.String()] = id
		}
	}
	keep := map[string]durable.Retention{
		"":      {Succeeded: 2 * time.Hour},
		"short": {Succeeded: time.Hour, Cancelled: 2 * time.Hour, Dead: 3 * time.Hour},
	}
	gone := func(after time.Duration, names ...string) {
		k.Helper()
		k.advance(after)
		equal(k, fmt.Sprintf("deleted after another %v", after), k.prune(keep), len(names))
		for _, name := range names {
			_, err := k.s.Get(k.ctx, left[name])
			k.refused(err, durable.ErrNotFound)
			delete(left, name)
		}
		for _, id := range left {
			k.get(id)
		}
	}
	gone(0)
	gone(61*time.Minute, "short succeed")
	gone(60*time.Minute, "short cancel", "default succeed")
	gone(60*time.Minute, "short exhaust")
	gone(22*time.Hour, "default cancel")
	gone(28 * 24 * time.Hour)
	gone(24*time.Hour, "default exhaust")
}

func pruneMinimum(k *kit) {
	id := k.inState(durable.Succeeded, "a")
	keep := map[string]durable.Retention{"": {Succeeded: -1}}
	k.advance(durable.MinRetention - time.Minute)
	equal(k, "deleted before ten minutes are over", k.prune(keep), 0)
	k.get(id)
	k.advance(2 * time.Minute)
	equal(k, "deleted after ten minutes", k.prune(keep), 1)
}

func pruneSteps(k *kit) {
	var ins []durable.Insert
	for range 30 {
		ins = append(ins, k.in("a"))
	}
	k.insert(ins...)
	for _, c := range k.claim(20, "a") {
		k.finish(c.Ref, durable.MoveSucceed, 0)
	}
	scheduled := k.inState(durable.Scheduled, "b")
	alias := k.in("c", key("k"))
	k.add("c", key("k"))
	k.insert(alias)
	k.finish(k.claimOne("c").Ref, durable.MoveSucceed, 0)
	k.advance(1000 * time.Hour)
	for _, want := range []int{8, 8, 5, 0} {
		n, err := k.s.Prune(k.ctx, nil, 8)
		k.must(err)
		equal(k, "deleted in a step", n, want)
	}
	equal(k, "tasks that are left", len(k.list(durable.Filter{}, 100)), 11)
	k.get(scheduled)
	_, err := k.s.Get(k.ctx, alias.ID)
	k.refused(err, durable.ErrNotFound)
}
