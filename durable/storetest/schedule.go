package storetest

import (
	"bytes"
	"slices"
	"time"

	"github.com/wake-go/wake/durable"
)

func scheduleTests() []test {
	return []test{
		{"a schedule is as it was declared", declareAsGiven},
		{"declaring again keeps the next tick, unless the times have changed", declareAgain},
		{"what people say of a schedule survives what code says", declareOverride},
		{"a greater revision of the code wins", declareRevision},
		{"a change to a schedule that has changed is refused", changeStale},
		{"a schedule is declared for as long as a node that lives declares it", orphan},
		{"schedules are listed by name, until they are deleted", scheduleList},
	}
}

// row makes a schedule that is due in a minute.
func (k *kit) row(name string) durable.ScheduleRow {
	return durable.ScheduleRow{
		Name: name, Spec: "@every 1m", Zone: "UTC", Misfire: "once", Overlap: "allow", Revision: 1,
		Task: durable.Insert{Kind: "tick", Queue: durable.DefaultQueue, MaxAttempts: 3, Payload: []byte("{}")},
		Next: k.now().Add(time.Minute).Truncate(time.Second).UTC(),
	}
}

// declare declares a schedule and returns it as it is stored.
func (k *kit) declare(row durable.ScheduleRow) durable.ScheduleRow {
	k.Helper()
	k.must(k.s.DeclareSchedules(k.ctx, []durable.ScheduleRow{row}))
	return k.schedule(row.Name)
}

func (k *kit) schedule(name string) durable.ScheduleRow {
	k.Helper()
	rows, err := k.s.Schedules(k.ctx)
	k.must(err)
	i := slices.IndexFunc(rows, func(r durable.ScheduleRow) bool { return r.Name == name })
	if i < 0 {
		k.Fatalf("there is no schedule %q among %+v", name, rows)
	}
	return rows[i]
}

// when checks a time of a schedule, which is stored exactly to the second.
func (k *kit) when(what string, got, want time.Time) {
	k.Helper()
	if !got.Equal(want) {
		k.Fatalf("%s: got %v, want %v", what, got, want)
	}
}

func declareAsGiven(k *kit) {
	for _, name := range append(odd(), "nightly") {
		in := k.row(name)
		in.Spec, in.Zone, in.Misfire, in.Overlap = "0 9 * * *", "Europe/Berlin", "all", "replace"
		in.Jitter, in.Revision = 3*time.Second, 1<<40
		in.Task = durable.Insert{
			Kind: name, Queue: "slow", Priority: -3, Key: "k", MaxAttempts: 4, Timeout: time.Minute,
			Tags: []string{"x", "y"}, Payload: []byte(`{"name":"ü"}`), Meta: durable.Meta{Owner: name},
		}
		got := k.declare(in)
		k.when("next tick", got.Next, in.Next)
		if !got.LastTick.IsZero() || !got.LastTask.IsZero() || got.Paused || got.OverrideSpec != "" || got.OverrideZone != "" || got.Declared {
			k.Fatalf("a new schedule has a past: %+v", got)
		}
		g, w := got.Task, in.Task
		if g.Kind != w.Kind || g.Queue != w.Queue || g.Priority != w.Priority || g.Key != w.Key || g.MaxAttempts != w.MaxAttempts ||
			g.Timeout != w.Timeout || !slices.Equal(g.Tags, w.Tags) || !bytes.Equal(g.Payload, w.Payload) || g.Meta != w.Meta {
			k.Fatalf("the task is %+v, want %+v", g, w)
		}
		equal(k, "code", code(got), code(in))
	}
	never := k.row("never")
	never.Next = time.Time{}
	equal(k, "a schedule without a next tick has one", !k.declare(never).Next.IsZero(), false)
}

// code is what code says of a schedule, but for its task.
type codeOf struct {
	spec, zone, misfire, overlap string
	jitter                       time.Duration
	revision                     int64
}

func code(r durable.ScheduleRow) codeOf {
	return codeOf{r.Spec, r.Zone, r.Misfire, r.Overlap, r.Jitter, r.Revision}
}

func declareAgain(k *kit) {
	first := k.declare(k.row("a"))
	same := k.row("a")
	same.Next, same.Misfire, same.Revision = first.Next.Add(time.Hour), "skip", 2
	same.Task.Payload = []byte("new")
	got := k.declare(same)
	k.when("next tick when the times are the same", got.Next, first.Next)
	equal(k, "misfire rule", got.Misfire, "skip")
	equal(k, "payload", string(got.Task.Payload), "new")

	spec := same
	spec.Spec = "@every 5m"
	k.when("next tick when the spec is another", k.declare(spec).Next, spec.Next)
	zone := spec
	zone.Zone, zone.Next = "Asia/Tokyo", first.Next.Add(2*time.Hour)
	got = k.declare(zone)
	k.when("next tick when the zone is another", got.Next, zone.Next)
	equal(k, "zone", got.Zone, "Asia/Tokyo")

	tick := k.tick(got)
	k.commit(durable.Batch{Fires: []durable.Fire{tick}})
	got = k.declare(zone)
	k.when("next tick after one has fired", got.Next, tick.Next)
	k.when("last tick", got.LastTick, tick.LastTick)
	equal(k, "last task", got.LastTask, tick.Inserts[0].ID)
}

func declareOverride(k *kit) {
	row := k.declare(k.row("a"))
	row.OverrideSpec, row.OverrideZone, row.Paused = "@every 9m", "Europe/Paris", true
	row.Next = row.Next.Add(9 * time.Minute)
	k.must(k.s.ChangeSchedule(k.ctx, row))

	deploy := k.row("a")
	deploy.Revision, deploy.Spec, deploy.Zone, deploy.Next = 2, "@every 2m", "Asia/Tokyo", row.Next.Add(time.Hour)
	deploy.OverrideSpec, deploy.Paused = "code does not say this", false
	got := k.declare(deploy)
	equal(k, "spec", got.Spec, "@every 2m")
	equal(k, "zone", got.Zone, "Asia/Tokyo")
	equal(k, "override of the spec", got.OverrideSpec, "@every 9m")
	equal(k, "override of the zone", got.OverrideZone, "Europe/Paris")
	equal(k, "paused", got.Paused, true)
	k.when("next tick", got.Next, row.Next)

	got.OverrideSpec, got.OverrideZone, got.Paused, got.Next = "", "", false, deploy.Next
	k.must(k.s.ChangeSchedule(k.ctx, got))
	got = k.schedule("a")
	equal(k, "override of the spec when it is reset", got.OverrideSpec, "")
	equal(k, "spec", got.Spec, "@every 2m")
	equal(k, "paused", got.Paused, false)
	k.when("next tick", got.Next, deploy.Next)
}

func declareRevision(k *kit) {
	row := k.row("a")
	row.Revision = 5
	first := k.declare(row)
	old := k.row("a")
	old.Revision, old.Spec, old.Next = 4, "@every 3m", first.Next.Add(time.Hour)
	old.Task.Payload = []byte("old")
	got := k.declare(old)
	equal(k, "code", code(got), code(first))
	equal(k, "payload", string(got.Task.Payload), "{}")
	k.when("next tick", got.Next, first.Next)
	old.Revision = 5
	equal(k, "spec of the same revision", k.declare(old).Spec, "@every 3m")
	k.must(k.s.DeclareSchedules(k.ctx, nil))
}

func changeStale(k *kit) {
	read := k.declare(k.row("a"))
	first, second := read, read
	first.Paused = true
	k.must(k.s.ChangeSchedule(k.ctx, first))
	second.OverrideSpec = "@every 2m"
	k.refused(k.s.ChangeSchedule(k.ctx, second), durable.ErrState)
	got := k.schedule("a")
	equal(k, "paused", got.Paused, true)
	equal(k, "override", got.OverrideSpec, "")

	// Code's settings are not people's to write.
	third := got
	third.Spec, third.Revision, third.Paused = "@every 7m", 99, false
	k.must(k.s.ChangeSchedule(k.ctx, third))
	got = k.schedule("a")
	equal(k, "code", code(got), code(read))
	equal(k, "paused", got.Paused, false)

	// A tick in between must not be undone.
	stale := got
	tick := k.tick(got)
	k.commit(durable.Batch{Fires: []durable.Fire{tick}})
	_ = k.s.ChangeSchedule(k.ctx, stale)
	k.when("next tick", k.schedule("a").Next, tick.Next)

	k.refused(k.s.ChangeSchedule(k.ctx, k.row("unknown")), durable.ErrNotFound)
}

func orphan(k *kit) {
	k.declare(k.row("a"))
	equal(k, "declared by nobody", k.schedule("a").Declared, false)
	o := k.other()
	o.register(durable.Node{Schedules: []string{"b", "a"}})
	equal(k, "declared by a node", k.schedule("a").Declared, true)
	o2 := k.other()
	o2.register(durable.Node{Schedules: []string{"a"}})
	k.must(o.s.Unregister(k.ctx, o.boot))
	equal(k, "declared by one of two nodes", k.schedule("a").Declared, true)
	o2.lose(k)
	equal(k, "declared by a node that died", k.schedule("a").Declared, false)
}

func scheduleList(k *kit) {
	names := func() []string {
		rows, err := k.other().s.Schedules(k.ctx)
		k.must(err)
		var names []string
		for _, r := range rows {
			names = append(names, r.Name)
		}
		return names
	}
	k.must(k.s.DeclareSchedules(k.ctx, []durable.ScheduleRow{k.row("c"), k.row("a"), k.row("b")}))
	if got := names(); !slices.Equal(got, []string{"a", "b", "c"}) {
		k.Fatalf("the schedules are %q", got)
	}
	k.must(k.s.DeleteSchedule(k.ctx, "b"))
	if got := names(); !slices.Equal(got, []string{"a", "c"}) {
		k.Fatalf("when b is deleted, the schedules are %q", got)
	}
}
