package storetest

import (
	"time"

	"github.com/wake-go/wake/durable"
)

func keyTests() []test {
	return []test{
		{"a duplicate gets the id of the existing task, and is another name for it", duplicate},
		{"two tasks of a batch with one key are one", duplicateInBatch},
		{"keys belong to a kind", keyOfKind},
		{"an unfinished task holds its key", keyHeld},
		{"a finished task holds its key no more", keyFreed},
		{"a deleted task holds its key no more", keyDeleted},
		{"a retry takes the key again, unless another task has it", keyRetry},
		{"two processes that add one key get one task", keyRace},
	}
}

// duplicates checks that id is held by an unfinished task with a kind and key.
func (k *kit) duplicates(id durable.ID, kind, name string) {
	k.Helper()
	in := k.in(kind, key(name))
	res := k.insert(in)[0]
	if !res.Duplicate || res.ID != id {
		k.Fatalf("an insert with the key of task %v answered %+v", id, res)
	}
	equal(k, "id by another name", k.get(in.ID).ID, id)
}

func duplicate(k *kit) {
	id := k.add("a", key("k"), payload([]byte("first")))
	alias := k.in("a", key("k"), payload([]byte("second")))
	res := k.insert(alias)[0]
	if !res.Duplicate || res.ID != id {
		k.Fatalf("a duplicate of %v answered %+v", id, res)
	}
	t := k.get(alias.ID)
	equal(k, "id", t.ID, id)
	equal(k, "payload", string(t.Payload), "first")
	k.sameIDs("tasks", k.list(durable.Filter{}, 10), []durable.ID{id})
	c := k.claimOne("a")
	k.duplicates(id, "a", "k")
	k.finish(c.Ref, durable.MoveSucceed, 0)
	equal(k, "state by the other name", k.get(alias.ID).State, durable.Succeeded)
}

func duplicateInBatch(k *kit) {
	a, b, c := k.in("a", key("k")), k.in("a", key("k")), k.in("a")
	res := k.insert(a, b, c)
	equal(k, "the first", res[0], durable.Inserted{ID: a.ID})
	equal(k, "the second", res[1], durable.Inserted{ID: a.ID, Duplicate: true})
	equal(k, "the third", res[2], durable.Inserted{ID: c.ID})
	equal(k, "id by another name", k.get(b.ID).ID, a.ID)
}

func keyOfKind(k *kit) {
	for _, in := range []durable.Insert{k.in("a", key("k")), k.in("b", key("k")), k.in("a", key("K")), k.in("a", key("k ")), k.in("ak", key(""))} {
		equal(k, "insert", k.insert(in)[0], durable.Inserted{ID: in.ID})
	}
	k.duplicates(k.list(durable.Filter{Kind: "b"}, 10)[0], "b", "k")
	if res := k.insert(k.in("a", key("k"), queue("another")))[0]; !res.Duplicate {
		k.Fatal("the key of a kind was free in another queue")
	}
}

func keyHeld(k *kit) {
	id := k.inState(durable.Scheduled, "scheduled", key("k"))
	k.duplicates(id, "scheduled", "k")
	for _, m := range []durable.Move{durable.MoveFail, durable.MoveSnooze, durable.MoveRelease} {
		for _, wait := range []time.Duration{0, time.Minute} {
			kind := m.String() + wait.String()
			c := k.start(kind, key("k"))
			k.duplicates(c.Ref.ID, kind, "k")
			k.finish(c.Ref, m, wait)
			k.duplicates(c.Ref.ID, kind, "k")
			k.advance(time.Minute + time.Second)
			k.duplicates(c.Ref.ID, kind, "k")
			k.finish(k.claimOne(kind).Ref, durable.MoveSucceed, 0)
		}
	}
}

func keyFreed(k *kit) {
	for _, s := range []durable.State{durable.Succeeded, durable.Dead, durable.Cancelled} {
		old := k.inState(s, s.String(), key("k"))
		in := k.in(s.String(), key("k"))
		equal(k, "insert after "+s.String(), k.insert(in)[0], durable.Inserted{ID: in.ID})
		equal(k, "key of the finished task", k.get(old).Key, "k")
		k.duplicates(in.ID, s.String(), "k")
	}
	id := k.add("ready", key("k"))
	_, err := k.s.Cancel(k.ctx, id)
	k.must(err)
	in := k.in("ready", key("k"))
	equal(k, "insert after a cancel", k.insert(in)[0], durable.Inserted{ID: in.ID})
}

func keyDeleted(k *kit) {
	id := k.add("a", key("k"))
	alias := k.in("a", key("k"))
	k.insert(alias)
	k.must(k.s.Delete(k.ctx, id))
	_, err := k.s.Get(k.ctx, alias.ID)
	k.refused(err, durable.ErrNotFound)
	in := k.in("a", key("k"))
	equal(k, "insert after a delete", k.insert(in)[0], durable.Inserted{ID: in.ID})
}

func keyRetry(k *kit) {
	for _, s := range []durable.State{durable.Dead, durable.Cancelled} {
		kind := s.String()
		old := k.inState(s, kind, key("k"))
		other := k.add(kind, key("k"))
		k.refused(k.s.Retry(k.ctx, old), durable.ErrDuplicate)
		equal(k, "state after a refused retry", k.get(old).State, s)
		k.finish(k.claimOne(kind).Ref, durable.MoveSucceed, 0)
		equal(k, "state of the other", k.get(other).State, durable.Succeeded)
		k.must(k.s.Retry(k.ctx, old))
		equal(k, "state after a retry", k.get(old).State, durable.Ready)
		k.duplicates(old, kind, "k")
	}
}

func keyRace(k *kit) {
	const n = 40
	type answer struct {
		in  durable.ID
		got durable.Inserted
		err error
	}
	answers := make(chan answer, 2*n)
	for _, p := range []*kit{k, k.other()} {
		go func() {
			for i := range n {
				in := p.in("a", key(string(rune('a'+i))))
				res, err := p.s.Commit(p.ctx, &durable.Batch{Boot: p.boot, Inserts: []durable.Insert{in}})
				if err != nil {
					answers <- answer{err: err}
					continue
				}
				answers <- answer{in: in.ID, got: res.Inserted[0]}
			}
		}()
	}
	fresh := 0
	for range 2 * n {
		a := <-answers
		k.must(a.err)
		k.must(a.got.Err)
		if !a.got.Duplicate {
			fresh++
		}
		equal(k, "id behind the one that was inserted", k.get(a.in).ID, a.got.ID)
	}
	equal(k, "tasks that are no duplicates", fresh, n)
	equal(k, "tasks", len(k.list(durable.Filter{}, 100)), n)
}
