package storetest

import (
	"slices"
	"time"

	"github.com/wake-go/wake/durable"
)

func nodeTests() []test {
	return []test{
		{"a node is listed while it is registered", nodeListed},
		{"a second node of a name gets another while the first is alive", nodeName},
		{"a beat renews the lease", beatRenews},
		{"a lease that has ended costs a crash, not an attempt", leaseEnds},
		{"a sweep leaves alone what is alive, and the sweeper itself", sweepSpares},
		{"the third crash parks a task as dead and says why", poison},
		{"a crash does not run again what is to be cancelled", crashCancelled},
		{"errors and crashes are counted apart", crashesApart},
		{"what a lost reply claimed is released at no cost", reconcile},
		{"reconciling leaves other processes' tasks alone", reconcileOthers},
		{"an unregistered node is gone, and its tasks are not lost", unregister},
		{"a process that crashed is found dead when the store is opened again", crashReopen},
	}
}

func nodeListed(k *kit) {
	want := durable.Node{
		Name: "alpha", Host: "host", PID: 42, Version: "1.2", Kinds: []string{"a", "b"}, Schedules: []string{"nightly"},
		Started: k.now().Truncate(time.Second), Lease: time.Minute,
	}
	reg := k.register(want)
	c := k.start("a")
	find := func() *durable.NodeInfo {
		nodes, err := k.other().s.Nodes(k.ctx)
		k.must(err)
		if i := slices.IndexFunc(nodes, func(n durable.NodeInfo) bool { return n.Boot == k.boot }); i >= 0 {
			return &nodes[i]
		}
		return nil
	}
	n := find()
	if n == nil {
		k.Fatal("the node is not listed")
	}
	equal(k, "name", n.Name, reg.Name)
	equal(k, "host", n.Host, "host")
	equal(k, "pid", n.PID, 42)
	equal(k, "version", n.Version, "1.2")
	equal(k, "worker", n.Worker, true)
	equal(k, "running tasks", n.Running, 1)
	if !slices.Equal(n.Kinds, want.Kinds) || !slices.Equal(n.Schedules, want.Schedules) || !n.Started.Equal(want.Started) {
		k.Fatalf("the node is %+v, want %+v", n, want)
	}
	if until := k.now().Add(time.Minute); !near(n.LeaseUntil, until) {
		k.Fatalf("the lease is until %v, want %v", n.LeaseUntil, until)
	}
	k.finish(c.Ref, durable.MoveSucceed, 0)
	k.must(k.s.Unregister(k.ctx, k.boot))
	if find() != nil {
		k.Fatal("the node is listed after it has unregistered")
	}
}

func nodeName(k *kit) {
	first := k.register(durable.Node{Name: "alpha"})
	equal(k, "name", first.Name, "alpha")
	second := *k
	if name := second.register(durable.Node{Name: "alpha"}).Name; name == "alpha" || name == "" {
		k.Fatalf("two nodes that live have the names %q and %q", first.Name, name)
	}
	if reg := second.register(durable.Node{}); reg.Name == "" || reg.Name == "alpha" {
		k.Fatalf("a node without a name got %q", reg.Name)
	}
	k.must(k.s.Unregister(k.ctx, k.boot))
	equal(k, "name that is free again", second.register(durable.Node{Name: "alpha"}).Name, "alpha")
}

func (k *kit) beat() durable.BeatResult {
	k.Helper()
	res, err := k.s.Beat(k.ctx, k.boot)
	k.must(err)
	return res
}

func (k *kit) sweep() durable.Swept {
	k.Helper()
	swept, err := k.s.Sweep(k.ctx, k.boot)
	k.must(err)
	return swept
}

// lose lets the lease of k end and o find it.
func (k *kit) lose(o *kit) durable.Swept {
	k.Helper()
	k.advance(lease * 3 / 5)
	o.beat()
	k.advance(lease * 3 / 5)
	o.beat()
	return o.sweep()
}

func beatRenews(k *kit) {
	o := k.other()
	c := k.start("a")
	for range 4 {
		k.advance(lease * 3 / 5)
		equal(k, "cancelled", len(k.beat().Cancelled), 0)
		o.beat()
		equal(k, "swept", o.sweep(), durable.Swept{})
	}
	k.finish(c.Ref, durable.MoveSucceed, 0)
	equal(k, "swept when it is over", k.lose(o).Recovered, 0)
}

func leaseEnds(k *kit) {
	o := k.other()
	a, b := k.start("a"), k.start("b")
	k.add("waiting")
	swept := k.lose(o)
	equal(k, "swept", swept, durable.Swept{Recovered: 2, Nodes: 1})
	k.status(a.Ref.ID, durable.Ready, 0, 1)
	t := k.get(b.Ref.ID)
	if len(t.Errors) != 1 || t.Errors[0].Cause != "crash" || t.Errors[0].Attempt != 1 || t.Errors[0].Message == "" || !near(t.Errors[0].At, k.now()) {
		k.Fatalf("the errors of a task whose worker died are %+v", t.Errors)
	}
	k.refusedOutcomes(a.Ref)
	_, err := k.s.Beat(k.ctx, k.boot)
	k.refused(err, durable.ErrLeaseLost)
	equal(k, "swept again", o.sweep(), durable.Swept{})

	theirs := o.claimOne("a")
	equal(k, "attempt", theirs.Attempt, 1)
	equal(k, "crashes", theirs.Crashes, 1)
	k.refusedOutcomes(a.Ref)
	o.finish(theirs.Ref, durable.MoveSucceed, 0)

	k.register(durable.Node{}) // and it goes on with another boot
	k.finish(k.claimOne("b").Ref, durable.MoveSucceed, 0)
}

func sweepSpares(k *kit) {
	o := k.other()
	mine, theirs := k.start("a"), o.start("b")
	k.advance(2 * lease)
	k.beat()
	equal(k, "swept by the one whose lease has ended", o.sweep(), durable.Swept{})
	k.status(mine.Ref.ID, durable.Running, 1, 0)
	k.status(theirs.Ref.ID, durable.Running, 1, 0)
	o.beat() // nobody else has swept it
	o.finish(theirs.Ref, durable.MoveSucceed, 0)
}

func poison(k *kit) {
	o := k.other()
	id := k.add("a", key("k"))
	for i := range durable.MaxCrashes {
		k.status(id, durable.Ready, 0, i)
		k.claimOne("a")
		swept := k.lose(o)
		if i+1 < durable.MaxCrashes {
			equal(k, "swept", swept, durable.Swept{Recovered: 1, Nodes: 1})
			k.register(durable.Node{})
			continue
		}
		equal(k, "swept", swept, durable.Swept{Dead: 1, Nodes: 1})
	}
	t := k.get(id)
	equal(k, "state", t.State, durable.Dead)
	equal(k, "crashes", t.Crashes, durable.MaxCrashes)
	equal(k, "has a time when it finished", near(t.FinishedAt, k.now()), true)
	equal(k, "errors", len(t.Errors), durable.MaxCrashes)
	for _, e := range t.Errors {
		equal(k, "cause", e.Cause, "crash")
	}
	equal(k, "claimed", len(o.claim(1, "a")), 0)
	free := o.in("a", key("k"))
	equal(k, "insert with the key of a dead task", o.insert(free)[0], durable.Inserted{ID: free.ID})
	k.must(o.s.Delete(k.ctx, free.ID))
	k.must(o.s.Retry(k.ctx, id))
	k.status(id, durable.Ready, 0, 0)
}

func crashCancelled(k *kit) {
	o := k.other()
	c := k.start("a")
	_, err := k.s.Cancel(k.ctx, c.Ref.ID)
	k.must(err)
	k.lose(o)
	equal(k, "state", k.get(c.Ref.ID).State, durable.Cancelled)
	equal(k, "claimed", len(o.claim(1, "a")), 0)
}

func crashesApart(k *kit) {
	o := k.other()
	c := k.start("a")
	k.finish(c.Ref, durable.MoveFail, 0)
	c = k.claimOne("a")
	k.status(c.Ref.ID, durable.Running, 2, 0)
	k.lose(o)
	k.status(c.Ref.ID, durable.Ready, 1, 1)
	c = o.claimOne("a")
	o.finish(c.Ref, durable.MoveFail, 0)
	k.status(c.Ref.ID, durable.Ready, 2, 1)
	var causes []string
	for _, e := range k.get(c.Ref.ID).Errors {
		causes = append(causes, e.Cause)
	}
	if !slices.Equal(causes, []string{"error", "crash", "error"}) {
		k.Fatalf("the causes of its errors are %q", causes)
	}
}

func (k *kit) reconcile(known ...durable.Ref) int {
	k.Helper()
	n, err := k.s.Reconcile(k.ctx, k.boot, known)
	k.must(err)
	return n
}

func reconcile(k *kit) {
	known, lost, again := k.start("a"), k.start("b"), k.start("c")
	stale := again.Ref
	k.finish(again.Ref, durable.MoveRelease, 0)
	again = k.claimOne("c") // by a commit whose answer was lost
	equal(k, "released", k.reconcile(known.Ref, stale), 2)
	k.status(known.Ref.ID, durable.Running, 1, 0)
	k.status(lost.Ref.ID, durable.Ready, 0, 0)
	k.status(again.Ref.ID, durable.Ready, 0, 0)
	k.refusedOutcomes(lost.Ref)
	equal(k, "errors", len(k.get(lost.Ref.ID).Errors), 0)
	equal(k, "released again", k.reconcile(known.Ref), 0)
	k.finish(known.Ref, durable.MoveSucceed, 0)
	k.finish(k.claimOne("b").Ref, durable.MoveSucceed, 0)
	k.claimOne("c")
	equal(k, "released of none that are known", k.reconcile(), 1)
}

func reconcileOthers(k *kit) {
	o := k.other()
	theirs := o.start("a")
	mine := k.start("b")
	equal(k, "released", k.reconcile(mine.Ref), 0)
	equal(k, "released by the other", o.reconcile(theirs.Ref), 0)
	equal(k, "released", k.reconcile(), 1)
	k.status(theirs.Ref.ID, durable.Running, 1, 0)
}

func unregister(k *kit) {
	o := k.other()
	k.start("a")
	k.must(k.s.Unregister(k.ctx, k.boot))
	_, err := k.s.Beat(k.ctx, k.boot)
	k.refused(err, durable.ErrLeaseLost)
	k.lose(o) // a store may leave it to a sweep
	o.claimOne("a")
}

func crashReopen(k *kit) {
	if k.f.Crash == nil || k.f.Reopen == nil {
		k.Skip("the store cannot crash")
	}
	k.register(durable.Node{Name: "alpha"})
	running, waiting := k.start("a"), k.add("b", key("k"))
	done := k.inState(durable.Succeeded, "c")
	k.f.Crash()
	k.s = k.f.Reopen()
	k.f.Store = k.s
	k.syncTime()
	reg := k.register(durable.Node{Name: "alpha"})
	recovered := reg.Swept.Recovered
	if recovered == 0 { // its death was not proved: the lease has to end
		k.advance(2 * lease)
		k.beat()
		recovered = k.sweep().Recovered
	}
	equal(k, "recovered", recovered, 1)
	k.status(running.Ref.ID, durable.Ready, 0, 1)
	k.status(waiting, durable.Ready, 0, 0)
	equal(k, "state of a finished task", k.get(done).State, durable.Succeeded)
	k.refusedOutcomes(running.Ref)
	k.duplicates(waiting, "b", "k")
	k.finish(k.claimOne("a").Ref, durable.MoveSucceed, 0)
}
