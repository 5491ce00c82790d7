package storetest

import (
	"fmt"
	"slices"
	"time"

	"github.com/wake-go/wake/durable"
)

func claimTests() []test {
	return []test{
		{"a greater priority is claimed first, then the older task", claimOrder},
		{"a task that comes back keeps its place", claimOldPlace},
		{"only the kinds and the queues that are asked for are claimed", claimFilter},
		{"many tasks that are not asked for hide nothing", claimBehindOthers},
		{"no more than the limit is claimed", claimLimit},
		{"a paused queue is not claimed from until it is resumed", claimPaused},
		{"a task can be claimed in the commit that inserts it", claimAtOnce},
		{"each claim raises the fence and the attempt", claimFence},
		{"a claim names its worker and its time", claimNode},
		{"a boot that is not registered strands no task", claimUnregistered},
		{"a calm claim leaves out what one more crash would park, and nothing else", claimCalm},
		{"a scheduled task is not claimed before its time", scheduledWaits},
		{"NextDue is the time of the next scheduled task", nextDue},
	}
}

func claimOrder(k *kit) {
	var want []durable.ID
	ids := map[string]durable.ID{}
	for i, prio := range []int{0, 5, -5, 5, 1000, 0, -1000} {
		ids[fmt.Sprint(prio, "/", i)] = k.add([]string{"a", "b", "c"}[i%3], priority(prio))
	}
	for _, name := range []string{"1000/4", "5/1", "5/3", "0/0", "0/5", "-5/2", "-1000/6"} {
		want = append(want, ids[name])
	}
	var got []durable.ID
	for range want {
		got = append(got, refIDs(k.claim(1, "a", "b", "c"))...)
	}
	if !slices.Equal(got, want) {
		k.Fatalf("claimed in the order %v, want %v", got, want)
	}
}

func claimOldPlace(k *kit) {
	first := k.start("a")
	k.add("a")
	for _, m := range []durable.Move{durable.MoveFail, durable.MoveSnooze, durable.MoveRelease} {
		k.finish(first.Ref, m, 0)
		next := k.claim(1, "a")
		k.sameIDs("claimed after "+m.String(), refIDs(next), []durable.ID{first.Ref.ID})
		first = next[0]
	}
	k.finish(first.Ref, durable.MoveFail, time.Minute)
	k.advance(time.Minute)
	k.sameIDs("claimed after a wait", refIDs(k.claim(1, "a")), []durable.ID{first.Ref.ID})
}

func claimFilter(k *kit) {
	a := k.add("a")
	k.add("b")
	k.add("a", queue("slow"))
	k.add("A")
	k.sameIDs("claimed", refIDs(k.claim(10, "a", "unknown")), []durable.ID{a})
	equal(k, "claimed of no kinds", len(k.claim(10)), 0)
	equal(k, "claimed of an unknown kind", len(k.claim(10, "c", "", "%")), 0)
	res := k.commit(durable.Batch{Claims: []durable.Claim{{Queue: "none", Kinds: []string{"a", "b"}, Limit: 10}}})
	equal(k, "claimed of an unknown queue", len(res.Claimed), 0)
}

func claimBehindOthers(k *kit) {
	var ins []durable.Insert
	for range 300 {
		ins = append(ins, k.in("unknown", priority(9)), k.in("a", queue("slow"), priority(9)), k.in("a", delay(time.Hour), priority(9)))
	}
	for chunk := range slices.Chunk(ins, k.s.Traits().MaxBatch) {
		k.insert(chunk...)
	}
	k.sameIDs("claimed", refIDs(k.claim(1, "a")), nil)
	id := k.add("a")
	k.sameIDs("claimed", refIDs(k.claim(1, "a")), []durable.ID{id})
}

func claimLimit(k *kit) {
	var all []durable.ID
	for range 10 {
		all = append(all, k.add("a"), k.add("b", queue("slow")))
	}
	equal(k, "claimed with limit 0", len(k.claim(0, "a")), 0)
	got := refIDs(k.claim(3, "a"))
	equal(k, "claimed with limit 3", len(got), 3)
	res := k.commit(durable.Batch{Claims: []durable.Claim{
		{Queue: durable.DefaultQueue, Kinds: []string{"a", "b"}, Limit: 5},
		{Queue: "slow", Kinds: []string{"a", "b"}, Limit: 2},
		{Queue: "slow", Kinds: []string{"b"}, Limit: 100},
	}})
	equal(k, "claimed by three claims", len(res.Claimed), 5+10)
	got = append(got, refIDs(res.Claimed)...)
	got = append(got, refIDs(k.claim(100, "a"))...)
	k.sameIDs("claimed altogether", got, all)
}

func claimPaused(k *kit) {
	running := k.start("a")
	id := k.add("a")
	other := k.add("a", queue("slow"))
	k.must(k.s.SetPaused(k.ctx, durable.DefaultQueue, true))
	k.must(k.s.SetPaused(k.ctx, durable.DefaultQueue, true))
	claims := []durable.Claim{
		{Queue: durable.DefaultQueue, Kinds: []string{"a"}, Limit: 9}, {Queue: "slow", Kinds: []string{"a"}, Limit: 9},
	}
	k.sameIDs("claimed while paused", refIDs(k.commit(durable.Batch{Claims: claims}).Claimed), []durable.ID{other})
	fresh := k.in("a")
	res := k.commit(durable.Batch{Inserts: []durable.Insert{fresh}, Claims: claims})
	equal(k, "claimed of a paused queue with an insert", len(res.Claimed), 0)
	k.finish(running.Ref, durable.MoveSucceed, 0) // what runs goes on
	equal(k, "claimed by another process", len(k.other().claim(9, "a")), 0)
	k.must(k.s.SetPaused(k.ctx, durable.DefaultQueue, false))
	k.sameIDs("claimed when resumed", refIDs(k.claim(9, "a")), []durable.ID{id, fresh.ID})
}

func claimAtOnce(k *kit) {
	in, later := k.in("a"), k.in("a", delay(time.Minute))
	res := k.commit(durable.Batch{
		Inserts: []durable.Insert{in, later, k.in("unknown")},
		Claims:  []durable.Claim{{Queue: durable.DefaultQueue, Kinds: []string{"a"}, Limit: 9}},
	})
	k.sameIDs("claimed", refIDs(res.Claimed), []durable.ID{in.ID})
	k.finish(res.Claimed[0].Ref, durable.MoveSucceed, 0)
}

func claimFence(k *kit) {
	c := k.start("a")
	equal(k, "attempt of the first claim", c.Attempt, 1)
	for i := range 3 {
		k.finish(c.Ref, durable.MoveRelease, 0)
		next := k.claimOne("a")
		if next.Ref.Fence <= c.Ref.Fence {
			k.Fatalf("claim %d has fence %d, the one before %d", i+2, next.Ref.Fence, c.Ref.Fence)
		}
		equal(k, "attempt after a release", next.Attempt, 1)
		c = next
	}
	k.finish(c.Ref, durable.MoveFail, 0)
	equal(k, "attempt after a failure", k.claimOne("a").Attempt, 2)
}

func claimNode(k *kit) {
	reg := k.register(durable.Node{Name: "alpha"})
	c := k.start("a")
	t := k.get(c.Ref.ID)
	equal(k, "node", t.Node, reg.Name)
	equal(k, "fence", t.Fence, c.Ref.Fence)
	if !near(t.StartedAt, k.now()) {
		k.Fatalf("started at %v; it is %v", t.StartedAt, k.now())
	}
	k.finish(c.Ref, durable.MoveSucceed, 0)
	equal(k, "node that ran it", k.get(c.Ref.ID).Node, reg.Name)
}

// claimUnregistered allows a store to give nothing to such a boot, or to take
// it back with the next sweep.
func claimUnregistered(k *kit) {
	stranger := *k
	stranger.boot = durable.Boot(durable.NewID())
	k.add("a")
	stranger.claim(1, "a")
	k.advance(2 * lease)
	_, err := k.s.Sweep(k.ctx, k.boot)
	k.must(err)
	k.claimOne("a")
}

func claimCalm(k *kit) {
	keeper := k.other()
	suspect := k.add("a", priority(5))
	for range durable.MaxCrashes - 1 {
		victim := k.other()
		victim.claimOne("a")
		victim.lose(keeper)
	}
	once := k.add("a", priority(4))
	victim := k.other()
	for _, c := range victim.calm("a") {
		if c.Ref.ID == suspect {
			k.Fatal("a calm claim took a suspect")
		}
	}
	victim.lose(keeper)
	fresh := k.add("a")
	keeper.sameIDs("calmly claimed", refIDs(keeper.calm("a")), []durable.ID{once, fresh})
	equal(k, "crashes of what was claimed otherwise", keeper.claimOne("a").Ref.ID, suspect)
}

// calm claims what is no suspect.
func (k *kit) calm(kind string) []durable.Claimed {
	k.Helper()
	return k.commit(durable.Batch{Claims: []durable.Claim{{Queue: durable.DefaultQueue, Kinds: []string{kind}, Limit: 10, Calm: true}}}).Claimed
}

func scheduledWaits(k *kit) {
	byDelay := k.add("a", delay(time.Minute))
	byTime := k.add("a", func(in *durable.Insert) { in.At = k.now().Add(2 * time.Minute) })
	past := k.add("a", func(in *durable.Insert) { in.At = k.now().Add(-time.Minute) })
	equal(k, "state of a delayed task", k.get(byDelay).State, durable.Scheduled)
	equal(k, "state of a task with a time", k.get(byTime).State, durable.Scheduled)
	equal(k, "state of a task whose time is past", k.get(past).State, durable.Ready)
	if t := k.get(byDelay); !near(t.RunAt, k.now().Add(time.Minute)) {
		k.Fatalf("a task of now (%v) delayed by a minute is to run at %v", k.now(), t.RunAt)
	}
	k.sameIDs("claimed at once", refIDs(k.claim(9, "a")), []durable.ID{past})
	k.advance(30 * time.Second)
	k.sameIDs("claimed after half of the delay", refIDs(k.claim(9, "a")), nil)
	k.advance(31 * time.Second)
	k.sameIDs("claimed after the delay", refIDs(k.claim(9, "a")), []durable.ID{byDelay})
	k.advance(time.Minute)
	k.sameIDs("claimed after the time", refIDs(k.claim(9, "a")), []durable.ID{byTime})
}

func nextDue(k *kit) {
	start := k.now()
	due := func(what string, want time.Duration) {
		k.Helper()
		got := k.commit(durable.Batch{}).NextDue
		if want == 0 != got.IsZero() || want != 0 && !near(got, start.Add(want)) {
			k.Fatalf("%s: the next task is due at %v, want %v after %v", what, got, want, start)
		}
	}
	due("no task", 0)
	k.add("unknown")
	due("a ready task", 0)
	hour := k.add("a", delay(time.Hour))
	due("a task in an hour", time.Hour)
	k.add("a", delay(time.Minute))
	due("another in a minute", time.Minute)
	k.advance(2 * time.Minute)
	k.claimOne("a")
	due("the first is running", time.Hour)
	k.must(k.s.Delete(k.ctx, hour))
	due("the second is deleted", 0)
}
