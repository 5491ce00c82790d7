package storetest

import (
	"fmt"
	"slices"
	"time"

	"github.com/wake-go/wake/durable"
)

func listTests() []test {
	return []test{
		{"a filter finds what it names, newest first", listFilters},
		{"a filter by time finds what was created then", listTimes},
		{"a page has at most what it asks for", listLimits},
		{"all pages together have every task once, while tasks move", listMoving},
		{"counts are by queue, kind and state", counts},
		{"queues are those that have tasks or are paused", queues},
	}
}

func listFilters(k *kit) {
	byState := map[durable.State]durable.ID{}
	var all []durable.ID
	for _, s := range states() {
		byState[s] = k.inState(s, s.String(), tags("state", s.String()), key("k"))
		all = append(all, byState[s])
	}
	slow := k.add("ready", queue("slow"), tags("state-of-the-art"))
	all = append(all, slow)
	for _, c := range []struct {
		name   string
		filter durable.Filter
		want   []durable.ID
	}{
		{"all", durable.Filter{}, all},
		{"dead", durable.Filter{States: []durable.State{durable.Dead}}, []durable.ID{byState[durable.Dead]}},
		{"succeeded or scheduled", durable.Filter{States: []durable.State{durable.Succeeded, durable.Scheduled}},
			[]durable.ID{byState[durable.Scheduled], byState[durable.Succeeded]}},
		{"queue", durable.Filter{Queue: "slow"}, []durable.ID{slow}},
		{"unknown queue", durable.Filter{Queue: "fast"}, nil},
		{"kind", durable.Filter{Kind: "ready"}, []durable.ID{byState[durable.Ready], slow}},
		{"kind and queue", durable.Filter{Kind: "ready", Queue: durable.DefaultQueue}, []durable.ID{byState[durable.Ready]}},
		{"kind and state that exclude each other", durable.Filter{Kind: "ready", States: []durable.State{durable.Dead}}, nil},
		{"tag", durable.Filter{Tag: "state"}, all[:6]},
		{"another tag", durable.Filter{Tag: "dead"}, []durable.ID{byState[durable.Dead]}},
		{"part of a tag", durable.Filter{Tag: "stat"}, nil},
		{"a pattern", durable.Filter{Tag: "%", Kind: "%"}, nil},
		{"key of an unfinished task", durable.Filter{Kind: "running", Key: "k"}, []durable.ID{byState[durable.Running]}},
		{"key of a finished task", durable.Filter{Kind: "dead", Key: "k"}, []durable.ID{byState[durable.Dead]}},
		{"key that not all of its kind have", durable.Filter{Kind: "ready", Key: "k"}, []durable.ID{byState[durable.Ready]}},
		{"key of another kind", durable.Filter{Kind: "none", Key: "k"}, nil},
	} {
		want := slices.Clone(c.want)
		slices.Reverse(want)
		for _, size := range []int{1, 2, 100} {
			if got := k.list(c.filter, size); !slices.Equal(got, want) {
				k.Fatalf("%s, in pages of %d: %v, want %v", c.name, size, got, want)
			}
		}
	}
}

func listTimes(k *kit) {
	start := k.now()
	first := k.add("a")
	k.finish(k.claimOne("a").Ref, durable.MoveSucceed, 0)
	k.advance(time.Hour)
	second := k.add("a")
	half := start.Add(30 * time.Minute)
	k.sameIDs("after", k.list(durable.Filter{After: half}, 10), []durable.ID{second})
	k.sameIDs("before", k.list(durable.Filter{Before: half}, 10), []durable.ID{first})
	k.sameIDs("between", k.list(durable.Filter{After: half, Before: start.Add(2 * time.Hour)}, 10), []durable.ID{second})
	k.sameIDs("never", k.list(durable.Filter{After: half, Before: half}, 10), nil)
}

func listLimits(k *kit) {
	var ins []durable.Insert
	for range 1100 {
		ins = append(ins, k.in("a"))
	}
	for chunk := range slices.Chunk(ins, k.s.Traits().MaxBatch) {
		k.insert(chunk...)
	}
	for limit, want := range map[int]int{0: 100, 1: 1, 1000: 1000, 5000: 1000} {
		tasks, err := k.s.List(k.ctx, durable.Filter{}, durable.Page{Limit: limit})
		k.must(err)
		equal(k, fmt.Sprintf("tasks of a page with limit %d", limit), len(tasks), want)
		equal(k, "the first", tasks[0].ID, ins[len(ins)-1].ID)
	}
}

func listMoving(k *kit) {
	want := map[durable.ID]int{}
	for range 100 {
		want[k.add("a")] = 0
	}
	var found []durable.ID
	for p := (durable.Page{Limit: 7}); ; p.After = found[len(found)-1] {
		tasks, err := k.s.List(k.ctx, durable.Filter{}, p)
		k.must(err)
		for i := range tasks {
			found = append(found, tasks[i].ID)
		}
		if len(tasks) < p.Limit {
			break
		}
		for i, c := range k.claim(9, "a") {
			k.finish(c.Ref, []durable.Move{durable.MoveSucceed, durable.MoveSnooze, durable.MoveExhaust}[i%3], 0)
		}
		k.add("a")
		k.must(k.s.Delete(k.ctx, k.add("b")))
		if len(found) == 14 {
			k.must(k.s.Delete(k.ctx, found[13])) // the one that the next page begins after
		}
	}
	for _, id := range found {
		if n, ok := want[id]; !ok || n > 0 {
			k.Fatalf("task %v is on the pages more than once, or was added later", id)
		}
		want[id]++
	}
	for id, n := range want {
		equal(k, "times that task "+id.String()+" is on a page", n, 1)
	}
}

func counts(k *kit) {
	for _, s := range states() {
		k.inState(s, "a")
		if s != durable.Ready { // inState claims all that is ready
			k.inState(s, "b")
		} else {
			k.claim(1, "a")
		}
	}
	k.insert(k.in("a", queue("slow")), k.in("a", queue("slow")), k.in("c", queue("slow")))
	got, err := k.s.Counts(k.ctx)
	k.must(err)
	want := map[durable.Count]bool{
		{Queue: "slow", Kind: "a", State: durable.Ready, N: 2}:                   true,
		{Queue: "slow", Kind: "c", State: durable.Ready, N: 1}:                   true,
		{Queue: durable.DefaultQueue, Kind: "a", State: durable.Running, N: 2}:   true,
		{Queue: durable.DefaultQueue, Kind: "b", State: durable.Running, N: 1}:   true,
		{Queue: durable.DefaultQueue, Kind: "a", State: durable.Scheduled, N: 1}: true,
		{Queue: durable.DefaultQueue, Kind: "b", State: durable.Scheduled, N: 1}: true,
		{Queue: durable.DefaultQueue, Kind: "a", State: durable.Succeeded, N: 1}: true,
		{Queue: durable.DefaultQueue, Kind: "b", State: durable.Succeeded, N: 1}: true,
		{Queue: durable.DefaultQueue, Kind: "a", State: durable.Dead, N: 1}:      true,
		{Queue: durable.DefaultQueue, Kind: "b", State: durable.Dead, N: 1}:      true,
		{Queue: durable.DefaultQueue, Kind: "a", State: durable.Cancelled, N: 1}: true,
		{Queue: durable.DefaultQueue, Kind: "b", State: durable.Cancelled, N: 1}: true,
	}
	for _, c := range got {
		if !want[c] {
			k.Fatalf("%+v was counted; the counts are %+v", c, got)
		}
	}
	equal(k, "counts", len(got), len(want))
}

func queues(k *kit) {
	k.add("a", queue("old"))
	k.add("a", queue("later"), delay(time.Hour))
	_, err := k.s.Cancel(k.ctx, k.add("a", queue("later"))) // finished tasks do not wait
	k.must(err)
	k.advance(10 * time.Minute)
	k.add("a", queue("old"))
	k.add("a", queue("new"))
	k.must(k.s.SetPaused(k.ctx, "empty", true))
	k.must(k.s.SetPaused(k.ctx, "new", true))
	k.must(k.s.SetPaused(k.ctx, "resumed", true))
	k.must(k.s.SetPaused(k.ctx, "resumed", false))
	got, err := k.s.Queues(k.ctx)
	k.must(err)
	found := map[string]durable.QueueInfo{}
	for _, q := range got {
		found[q.Name] = q
	}
	equal(k, "queues of a name", len(found), len(got))
	for name, want := range map[string]durable.QueueInfo{
		"old": {Oldest: 10 * time.Minute}, "later": {}, "new": {Paused: true}, "empty": {Paused: true},
	} {
		q, ok := found[name]
		if !ok || q.Paused != want.Paused || (q.Oldest-want.Oldest).Abs() > 10*time.Second {
			k.Fatalf("queue %q is %+v (%v); want %+v", name, q, ok, want)
		}
	}
	if found["resumed"].Paused {
		k.Fatal("a queue that was resumed is paused")
	}
}
