package storetest

import (
	"fmt"

	"github.com/wake-go/wake/durable"
)

func repeatTests() []test {
	return []test{
		{"an insert that is repeated is not inserted twice, wherever its task is by then", repeatInsert},
		{"an insert that is repeated after its key was freed stays the task it was", repeatKey},
		{"a duplicate that is repeated stays a duplicate", repeatDuplicate},
		{"a repeated batch inserts what was not there", repeatFirst},
		{"an outcome that is repeated is not recorded twice", repeatFinish},
		{"a tick that is repeated does not fire twice", repeatFire},
	}
}

func repeatInsert(k *kit) {
	for _, s := range states() {
		if s == durable.Scheduled {
			continue
		}
		in := k.in(s.String())
		k.insert(in)
		if s != durable.Ready {
			c := k.claimOne(in.Kind)
			switch s {
			case durable.Succeeded:
				k.finish(c.Ref, durable.MoveSucceed, 0)
			case durable.Dead:
				k.finish(c.Ref, durable.MoveExhaust, 0)
			case durable.Cancelled:
				k.finish(c.Ref, durable.MoveCancel, 0)
			}
		}
		before := k.get(in.ID)
		for range 2 {
			res := k.commit(durable.Batch{Again: true, Inserts: []durable.Insert{in, k.in("fresh")}})
			equal(k, "repeated insert of a task that is "+s.String(), res.Inserted[0], durable.Inserted{ID: in.ID})
			k.must(res.Inserted[1].Err)
		}
		after := k.get(in.ID)
		equal(k, "state", after.State, before.State)
		equal(k, "fence", after.Fence, before.Fence)
		k.sameIDs("tasks", k.list(durable.Filter{Kind: in.Kind}, 10), []durable.ID{in.ID})
	}
}

func repeatKey(k *kit) {
	in := k.in("a", key("k"))
	k.insert(in)
	k.finish(k.claimOne("a").Ref, durable.MoveSucceed, 0)
	other := k.add("a", key("k"))
	res := k.commit(durable.Batch{Again: true, Inserts: []durable.Insert{in}})
	k.must(res.Inserted[0].Err)
	equal(k, "id of the repeated insert", res.Inserted[0].ID, in.ID)
	k.sameIDs("tasks", k.list(durable.Filter{}, 10), []durable.ID{in.ID, other})
}

func repeatDuplicate(k *kit) {
	id := k.add("a", key("k"))
	alias := k.in("a", key("k"))
	k.insert(alias)
	k.finish(k.claimOne("a").Ref, durable.MoveSucceed, 0)
	res := k.commit(durable.Batch{Again: true, Inserts: []durable.Insert{alias}})
	k.must(res.Inserted[0].Err)
	equal(k, "id of the repeated duplicate", res.Inserted[0].ID, id)
	k.sameIDs("tasks", k.list(durable.Filter{}, 10), []durable.ID{id})
}

func repeatFirst(k *kit) {
	var ins []durable.Insert
	var want []durable.ID
	for i := range 20 {
		ins = append(ins, k.in("a", key(fmt.Sprint(i))))
		want = append(want, ins[i].ID)
	}
	k.insert(ins[:10]...)
	res := k.commit(durable.Batch{Again: true, Inserts: ins})
	for i, in := range res.Inserted {
		k.must(in.Err)
		equal(k, "id", in.ID, want[i])
	}
	k.sameIDs("tasks", k.list(durable.Filter{}, 100), want)
	k.sameIDs("claimed", refIDs(k.claim(100, "a")), want)
}

// repeatFinish allows either answer: Finished is what settles it.
func repeatFinish(k *kit) {
	for _, m := range []durable.Move{durable.MoveSucceed, durable.MoveFail, durable.MoveExhaust, durable.MoveSnooze, durable.MoveRelease} {
		c := k.start(m.String())
		f := durable.Finish{Ref: c.Ref, Move: m}
		if m == durable.MoveFail || m == durable.MoveExhaust {
			f.Error = &durable.AttemptError{Attempt: 1, Cause: "error"}
		}
		k.commit(durable.Batch{Finishes: []durable.Finish{f}})
		before := k.get(c.Ref.ID)
		k.commit(durable.Batch{Again: true, Finishes: []durable.Finish{f}})
		after := k.get(c.Ref.ID)
		equal(k, "state", after.State, before.State)
		equal(k, "attempt", after.Attempt, before.Attempt)
		equal(k, "errors", len(after.Errors), len(before.Errors))
		if before.State == durable.Ready {
			next := k.claimOne(m.String())
			k.commit(durable.Batch{Again: true, Finishes: []durable.Finish{f}})
			k.status(c.Ref.ID, durable.Running, next.Attempt, 0)
		}
	}
}

func repeatFire(k *kit) {
	row := k.declare(k.row("nightly"))
	tick := k.tick(row)
	manual := durable.Fire{Name: "nightly", Manual: true, Overlap: "replace", Inserts: []durable.Insert{k.in("manual")}}
	for again := range 2 {
		k.commit(durable.Batch{Again: again > 0, Fires: []durable.Fire{tick, manual}})
	}
	k.sameIDs("tasks", k.list(durable.Filter{}, 10), []durable.ID{tick.Inserts[0].ID, manual.Inserts[0].ID})
	equal(k, "state of what was replaced", k.get(tick.Inserts[0].ID).State, durable.Cancelled)
	equal(k, "state of what replaced it, and has not replaced itself", k.get(manual.Inserts[0].ID).State, durable.Ready)
}
