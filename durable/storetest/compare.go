package storetest

import (
	"cmp"
	"errors"
	"slices"
	"time"

	"pgregory.net/rapid"

	"github.com/wake-go/wake/durable"
)

// drawTask chooses an id that was ever inserted: a task's, a duplicate's, or
// that of a task which is gone.
func (m *machine) drawTask(t *rapid.T) (durable.ID, *modelTask) {
	id, ok := pick(t, "task", m.known)
	if !ok {
		t.Skip("no tasks")
	}
	return id, m.find(id)
}

func (m *machine) cancel(t *rapid.T) {
	id, task := m.drawTask(t)
	got, err := m.s.Cancel(m.ctx, id)
	if task == nil {
		sameError(t, "cancel", err, durable.ErrNotFound)
		return
	}
	must(t, err)
	same(t, "state when cancelled", got, m.model.cancel(task))
}

func (m *machine) retry(t *rapid.T) {
	id, task := m.drawTask(t)
	if task != nil && task.State == durable.Scheduled && m.due(task) {
		t.Skip("a store may have made it ready already")
	}
	err := m.s.Retry(m.ctx, id)
	if task == nil {
		sameError(t, "retry", err, durable.ErrNotFound)
		return
	}
	sameError(t, "retry", err, m.model.retry(task))
}

func (m *machine) delete(t *rapid.T) {
	id, task := m.drawTask(t)
	err := m.s.Delete(m.ctx, id)
	switch {
	case task == nil:
		sameError(t, "delete", err, durable.ErrNotFound)
	case task.State == durable.Running:
		sameError(t, "delete", err, durable.ErrState)
	default:
		must(t, err)
		m.remove(task)
	}
}

func (m *machine) pause(t *rapid.T) {
	q := rapid.SampledFrom([]string{"default", "slow"}).Draw(t, "queue")
	m.paused[q] = chance(t, "paused", 50)
	must(t, m.s.SetPaused(m.ctx, q, m.paused[q]))
}

func (m *machine) beat(t *rapid.T) {
	boot, ok := pick(t, "boot", m.boots)
	if !ok {
		t.Skip("no nodes")
	}
	res, err := m.s.Beat(m.ctx, boot)
	if _, ok := m.nodes[boot]; !ok {
		sameError(t, "beat", err, durable.ErrLeaseLost)
		return
	}
	must(t, err)
	m.nodes[boot] = m.now + modelLease
	want := map[durable.ID]int64{}
	for _, task := range m.running(boot) {
		if task.cancelled {
			want[task.ID] = task.Fence
		}
	}
	same(t, "cancelled tasks at a beat", len(res.Cancelled), len(want))
	for _, ref := range res.Cancelled {
		same(t, "fence of a task that is cancelled", ref.Fence, want[ref.ID])
	}
}

func (m *machine) sweep(t *rapid.T) {
	boot, ok := pick(t, "boot", m.leased())
	if !ok {
		t.Skip("no node lives")
	}
	swept, err := m.s.Sweep(m.ctx, boot)
	must(t, err)
	same(t, "swept", swept, m.model.sweep(boot))
}

func (m *machine) reconcile(t *rapid.T) {
	boot, ok := pick(t, "boot", m.leased())
	if !ok {
		t.Skip("no node lives")
	}
	m.release(t, boot, rapid.IntRange(0, 100).Draw(t, "percent known"))
}

// release reconciles a node with some of what it has claimed.
func (m *machine) release(t *rapid.T, boot durable.Boot, percent int) {
	var known []durable.Ref
	lost := 0
	for _, task := range m.running(boot) {
		if percent > 0 && chance(t, "known", percent) {
			i := slices.IndexFunc(m.refs, func(r durable.Ref) bool { return r.ID == task.ID && r.Fence == task.Fence })
			known = append(known, m.refs[i])
			continue
		}
		lost++
		must(t, m.move(task, durable.MoveRelease, 0))
	}
	released, err := m.s.Reconcile(m.ctx, boot, known)
	must(t, err)
	same(t, "released", released, lost)
}

func (m *machine) unregister(t *rapid.T) {
	boot, ok := pick(t, "boot", m.leased())
	if !ok {
		t.Skip("no node lives")
	}
	m.release(t, boot, 0)
	must(t, m.s.Unregister(m.ctx, boot))
	delete(m.nodes, boot)
}

// crash lets all nodes die at once. Whether their deaths are proved or their
// leases have to end, it is over when a new one has joined.
func (m *machine) crash(t *rapid.T) {
	if m.f.Crash == nil || m.f.Reopen == nil || !chance(t, "crash", 50) {
		t.Skip("no crash")
	}
	m.f.Crash()
	m.s = m.f.Reopen()
	m.f.Store = m.s
	m.skip(6 * time.Minute)
	m.join(t)
}

func (m *machine) prune(t *rapid.T) {
	retention := func(label string) durable.Retention {
		d := rapid.SliceOfN(rapid.SampledFrom([]time.Duration{0, 630 * time.Second, 1230 * time.Second}), 3, 3).Draw(t, label)
		return durable.Retention{Succeeded: d[0], Cancelled: d[1], Dead: d[2]}
	}
	keep := map[string]durable.Retention{"": retention("retention")}
	if chance(t, "one for slow", 50) {
		keep["slow"] = retention("retention of slow")
	}
	deleted, err := m.s.Prune(m.ctx, keep, 10_000)
	must(t, err)
	same(t, "pruned", deleted, m.model.prune(keep))
}

// compare compares all tasks with the model's, and in full those that were
// touched since the last time.
func (m *machine) compare(t *rapid.T) {
	now, err := m.s.Now(m.ctx)
	must(t, err)
	if now.Sub(m.base)-m.now > 15*time.Second {
		t.Skip("this check took so long that its times cannot be told from the model's any more")
	}
	want := m.choose(func(*modelTask) bool { return true })
	slices.Reverse(want)
	var got []durable.Task
	for p := (durable.Page{Limit: 20}); ; p.After = got[len(got)-1].ID {
		page, err := m.s.List(m.ctx, durable.Filter{}, p)
		must(t, err)
		got = append(got, page...)
		if len(page) < p.Limit {
			break
		}
	}
	same(t, "tasks", len(got), len(want))
	for i := range want {
		same(t, "id in the list", got[i].ID, want[i].ID)
		m.sameTask(t, &got[i], want[i])
	}
	m.sameCounts(t, want)
	m.sameSchedule(t)
	for id := range m.touched {
		m.compareOne(t, id)
	}
	clear(m.touched)
}

// compareOne compares what only Get tells.
func (m *machine) compareOne(t *rapid.T, id durable.ID) {
	got, err := m.s.Get(m.ctx, id)
	want := m.find(id)
	if want == nil {
		if !errors.Is(err, durable.ErrNotFound) {
			t.Fatalf("task %v is gone, and the store says %v, %v", id, got, err)
		}
		return
	}
	must(t, err)
	same(t, "id", got.ID, want.ID)
	m.sameTask(t, got, want)
	same(t, "payload", string(got.Payload), string(want.Payload))
	same(t, "errors", len(got.Errors), want.errors)
	if got.State == durable.Succeeded {
		same(t, "result", string(got.Result), want.result)
	}
	if !want.progressUnknown {
		done := -1
		if got.Progress != nil {
			done = got.Progress.Done
		}
		same(t, "progress", done, want.progress)
	}
}

func (m *machine) sameTask(t *rapid.T, got *durable.Task, want *modelTask) {
	t.Helper()
	state := got.State
	if state == durable.Ready && want.State == durable.Scheduled && m.due(want) {
		state = durable.Scheduled // made ready by something else than a commit
	}
	same(t, "state of "+want.ID.String(), state, want.State)
	same(t, "attempt", got.Attempt, want.Attempt)
	same(t, "crashes", got.Crashes, want.Crashes)
	same(t, "fence", got.Fence, want.Fence)
	same(t, "kind", got.Kind, want.Kind)
	same(t, "queue", got.Queue, want.Queue)
	same(t, "priority", got.Priority, want.Priority)
	same(t, "key", got.Key, want.Key)
	same(t, "max attempts", got.MaxAttempts, want.MaxAttempts)
	m.sameTime(t, "created", got.CreatedAt, want.created)
	same(t, "has finished", !got.FinishedAt.IsZero(), want.State.Finished())
	if want.State.Finished() {
		m.sameTime(t, "finished", got.FinishedAt, want.ended)
		return
	}
	m.sameTime(t, "to be run", got.RunAt, want.RunAt.Sub(clock(0)))
	same(t, "is to be cancelled", !got.CancelledAt.IsZero(), want.cancelled)
}

// sameCounts compares the counts, scheduled tasks counting as ready ones: a
// store may make them so at any time when they are due.
func (m *machine) sameCounts(t *rapid.T, tasks []*modelTask) {
	got, err := m.s.Counts(m.ctx)
	must(t, err)
	type group struct {
		queue, kind string
		state       durable.State
	}
	sum := map[group]int{}
	of := func(queue, kind string, s durable.State) group {
		if s == durable.Scheduled {
			s = durable.Ready
		}
		return group{queue, kind, s}
	}
	for _, c := range got {
		sum[of(c.Queue, c.Kind, c.State)] += c.N
	}
	for _, task := range tasks {
		sum[of(task.Queue, task.Kind, task.State)]--
	}
	var wrong []group
	for g, n := range sum {
		if n != 0 {
			wrong = append(wrong, g)
		}
	}
	slices.SortFunc(wrong, func(a, b group) int {
		return cmp.Or(cmp.Compare(a.queue, b.queue), cmp.Compare(a.kind, b.kind), cmp.Compare(a.state, b.state))
	})
	if len(wrong) > 0 {
		t.Fatalf("the counts of %v are not those of the model: %+v", wrong, got)
	}
}
