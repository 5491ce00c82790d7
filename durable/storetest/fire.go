package storetest

import (
	"time"

	"github.com/wake-go/wake/durable"
)

func fireTests() []test {
	return []test{
		{"a tick adds its tasks and moves the schedule on", fireOnce},
		{"a tick fires once, whoever comes second", fireSecond},
		{"two processes that fire at once fire once", fireRace},
		{"a missed tick moves the schedule on and adds nothing", fireMissed},
		{"a paused schedule does not fire", firePaused},
		{"overlap skip leaves a tick out while the last one's task is unfinished", overlapSkip},
		{"overlap replace cancels the last one's task", overlapReplace},
		{"overlap allow adds beside it", overlapAllow},
		{"a tick by hand fires when it is paused, and leaves the times as they are", fireManual},
		{"an unknown schedule does not fire", fireUnknown},
	}
}

// tick is the next tick of a schedule, a minute long.
func (k *kit) tick(row durable.ScheduleRow) durable.Fire {
	return durable.Fire{
		Name: row.Name, Expect: row.Next, Next: row.Next.Add(time.Minute), LastTick: row.Next, Overlap: row.Overlap,
		Inserts: []durable.Insert{k.in("tick")},
	}
}

func (k *kit) fire(f durable.Fire) durable.FireResult {
	k.Helper()
	res := k.commit(durable.Batch{Fires: []durable.Fire{f}}).Fired[0]
	for _, in := range res.Inserted {
		k.must(in.Err)
	}
	return res
}

func fireOnce(k *kit) {
	row := k.declare(k.row("a"))
	f := k.tick(row)
	f.Inserts = append(f.Inserts, k.in("tick", delay(time.Hour)), k.in("tick"))
	res := k.fire(f)
	equal(k, "fired", res.Fired, true)
	equal(k, "inserted", len(res.Inserted), 3)
	for i := range f.Inserts {
		equal(k, "inserted id", res.Inserted[i].ID, f.Inserts[i].ID)
	}
	got := k.schedule("a")
	k.when("next tick", got.Next, f.Next)
	k.when("last tick", got.LastTick, f.LastTick)
	equal(k, "last task", got.LastTask, f.Inserts[2].ID)
	k.sameIDs("claimed", refIDs(k.claim(9, "tick")), []durable.ID{f.Inserts[0].ID, f.Inserts[2].ID})

	f = k.tick(got)
	f.Next = time.Time{} // the last one there is
	res = k.commit(durable.Batch{
		Fires:  []durable.Fire{f},
		Claims: []durable.Claim{{Queue: durable.DefaultQueue, Kinds: []string{"tick"}, Limit: 9}},
	}).Fired[0]
	equal(k, "fired", res.Fired, true)
	equal(k, "a schedule that has ended has a next tick", k.schedule("a").Next.IsZero(), true)
	equal(k, "state of what was claimed by the commit that fired", k.get(f.Inserts[0].ID).State, durable.Running)
}

func fireSecond(k *kit) {
	row := k.declare(k.row("a"))
	f, late := k.tick(row), k.tick(row)
	equal(k, "fired", k.fire(f).Fired, true)
	res := k.other().fire(late)
	equal(k, "fired by the second", res.Fired, false)
	equal(k, "inserted by the second", len(res.Inserted), 0)
	both := []durable.Fire{k.tick(k.schedule("a")), k.tick(k.schedule("a"))}
	fired := k.commit(durable.Batch{Fires: both}).Fired
	equal(k, "fired first in a batch", fired[0].Fired, true)
	equal(k, "fired second in a batch", fired[1].Fired, false)
	k.sameIDs("tasks", k.list(durable.Filter{}, 10), []durable.ID{f.Inserts[0].ID, both[0].Inserts[0].ID})
}

func fireRace(k *kit) {
	const ticks = 20
	row := k.declare(k.row("a"))
	type answer struct {
		fired int
		err   error
	}
	answers := make(chan answer)
	for _, p := range []*kit{k, k.other()} {
		go func() {
			var a answer
			next := row
			for range ticks {
				f := p.tick(next)
				res, err := p.s.Commit(p.ctx, &durable.Batch{Boot: p.boot, Fires: []durable.Fire{f}})
				if err != nil {
					a.err = err
					break
				}
				if res.Fired[0].Fired {
					a.fired++
				}
				next.Next = f.Next
			}
			answers <- a
		}()
	}
	a, b := <-answers, <-answers
	k.must(a.err)
	k.must(b.err)
	equal(k, "ticks that fired", a.fired+b.fired, ticks)
	equal(k, "tasks", len(k.list(durable.Filter{Kind: "tick"}, 100)), ticks)
}

func fireMissed(k *kit) {
	row := k.declare(k.row("a"))
	f := k.tick(row)
	f.Inserts = nil
	equal(k, "fired", k.fire(f).Fired, true)
	got := k.schedule("a")
	k.when("next tick", got.Next, f.Next)
	equal(k, "last task", got.LastTask, durable.ID{})
	equal(k, "tasks", len(k.list(durable.Filter{}, 10)), 0)
}

func firePaused(k *kit) {
	row := k.declare(k.row("a"))
	row.Paused = true
	k.must(k.s.ChangeSchedule(k.ctx, row))
	equal(k, "fired while paused", k.fire(k.tick(row)).Fired, false)
	got := k.schedule("a")
	k.when("next tick", got.Next, row.Next)
	got.Paused = false
	k.must(k.s.ChangeSchedule(k.ctx, got))
	equal(k, "fired when resumed", k.fire(k.tick(got)).Fired, true)
}

// overlapping declares a schedule and fires its first tick.
func (k *kit) overlapping(rule string) (durable.ScheduleRow, durable.ID) {
	k.Helper()
	row := k.row(rule)
	row.Overlap = rule
	row = k.declare(row)
	f := k.tick(row)
	equal(k, "fired", k.fire(f).Fired, true)
	return k.schedule(rule), f.Inserts[0].ID
}

func overlapSkip(k *kit) {
	row, first := k.overlapping("skip")
	var running durable.Claimed
	for i := range 2 { // while it is ready, then while it runs
		f := k.tick(row)
		res := k.fire(f)
		equal(k, "fired", res.Fired, true)
		equal(k, "skipped", res.Skipped, 1)
		row = k.schedule("skip")
		k.when("next tick", row.Next, f.Next)
		equal(k, "last task", row.LastTask, first)
		if i == 0 {
			running = k.claimOne("tick")
		}
	}
	k.sameIDs("tasks", k.list(durable.Filter{}, 10), []durable.ID{first})
	k.finish(running.Ref, durable.MoveSucceed, 0)
	f := k.tick(row)
	res := k.fire(f)
	equal(k, "skipped when it has finished", res.Skipped, 0)
	k.sameIDs("tasks", k.list(durable.Filter{}, 10), []durable.ID{first, f.Inserts[0].ID})
}

func overlapReplace(k *kit) {
	row, first := k.overlapping("replace")
	second := k.tick(row)
	k.fire(second)
	equal(k, "state of a waiting task that was replaced", k.get(first).State, durable.Cancelled)
	c := k.claimOne("tick")
	equal(k, "claimed", c.Ref.ID, second.Inserts[0].ID)
	third := k.tick(k.schedule("replace"))
	res := k.fire(third)
	equal(k, "replaced", res.Replaced, c.Ref.ID)
	equal(k, "state of a running task that was replaced", k.get(c.Ref.ID).State, durable.Running)
	refs := k.beat().Cancelled
	if len(refs) != 1 || refs[0].ID != c.Ref.ID {
		k.Fatalf("a beat says that %v are cancelled, want %v", refs, c.Ref)
	}
	k.finish(c.Ref, durable.MoveCancel, 0)
	equal(k, "claimed", k.claimOne("tick").Ref.ID, third.Inserts[0].ID)
	equal(k, "last task", k.schedule("replace").LastTask, third.Inserts[0].ID)
}

func overlapAllow(k *kit) {
	row, first := k.overlapping("allow")
	f := k.tick(row)
	res := k.fire(f)
	equal(k, "skipped", res.Skipped, 0)
	equal(k, "replaced", res.Replaced, durable.ID{})
	k.sameIDs("claimed", refIDs(k.claim(9, "tick")), []durable.ID{first, f.Inserts[0].ID})
}

func fireManual(k *kit) {
	row := k.declare(k.row("a"))
	row.Paused = true
	k.must(k.s.ChangeSchedule(k.ctx, row))
	f := durable.Fire{Name: "a", Manual: true, Overlap: "allow", Inserts: []durable.Insert{k.in("tick")}}
	equal(k, "fired", k.fire(f).Fired, true)
	got := k.schedule("a")
	k.when("next tick", got.Next, row.Next)
	equal(k, "has a last tick", !got.LastTick.IsZero(), false)
	equal(k, "paused", got.Paused, true)
	equal(k, "claimed", k.claimOne("tick").Ref.ID, f.Inserts[0].ID)
}

func fireUnknown(k *kit) {
	f := k.tick(k.row("unknown"))
	equal(k, "fired", k.fire(f).Fired, false)
	f.Manual = true
	equal(k, "fired by hand", k.fire(f).Fired, false)
	equal(k, "tasks", len(k.list(durable.Filter{}, 10)), 0)
}
