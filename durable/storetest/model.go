package storetest

import (
	"cmp"
	"slices"
	"time"

	"github.com/wake-go/wake/durable"
)

// model is what a store should be: maps, and no thought for speed. Its time
// begins at zero and goes in whole minutes, while everything that ends does so
// at half a minute, so that the time which a test takes changes nothing.
type model struct {
	now     time.Duration
	tasks   map[durable.ID]*modelTask
	aliases map[durable.ID]durable.ID
	nodes   map[durable.Boot]time.Duration // when their leases end
	paused  map[string]bool
	ticks   ticks
	touched map[durable.ID]bool // since the last comparison
	order   int                 // of the last task that was inserted
}

type modelTask struct {
	durable.Insert
	durable.Status
	order           int
	boot            durable.Boot
	cancelled       bool // somebody has asked for it
	created, ended  time.Duration
	errors          int
	result          string
	progress        int
	progressUnknown bool // a retry may forget it
}

func newModel() *model {
	return &model{
		tasks: map[durable.ID]*modelTask{}, aliases: map[durable.ID]durable.ID{},
		nodes: map[durable.Boot]time.Duration{}, paused: map[string]bool{}, touched: map[durable.ID]bool{},
	}
}

// clock turns the model's time into one that Advance takes.
func clock(d time.Duration) time.Time { return time.Unix(0, 0).Add(d) }

func (m *model) find(id durable.ID) *modelTask {
	if t := m.tasks[id]; t != nil {
		return t
	}
	return m.tasks[m.aliases[id]]
}

// choose returns tasks in the order of insertion.
func (m *model) choose(keep func(*modelTask) bool) []*modelTask {
	var found []*modelTask
	for _, t := range m.tasks {
		if keep(t) {
			found = append(found, t)
		}
	}
	slices.SortFunc(found, func(a, b *modelTask) int { return cmp.Compare(a.order, b.order) })
	return found
}

func (m *model) running(boot durable.Boot) []*modelTask {
	return m.choose(func(t *modelTask) bool { return t.State == durable.Running && t.boot == boot })
}

func (m *model) holder(kind, key string) *modelTask {
	held := m.choose(func(t *modelTask) bool {
		return key != "" && t.Kind == kind && t.Key == key && !t.State.Finished()
	})
	if len(held) == 0 {
		return nil
	}
	return held[0]
}

func (m *model) move(t *modelTask, move durable.Move, delay time.Duration) error {
	was := t.State
	to, err := durable.Advance(t.Status, move, clock(m.now), delay)
	if err != nil {
		return err
	}
	t.Status = to
	if was == durable.Running && t.cancelled && !t.State.Finished() {
		t.State = durable.Cancelled
	}
	if t.State.Finished() {
		t.ended = m.now
	}
	m.touched[t.ID] = true
	return nil
}

func (m *model) insert(in durable.Insert, again bool) durable.Inserted {
	if t := m.find(in.ID); t != nil && again {
		return durable.Inserted{ID: t.ID, Duplicate: t.ID != in.ID}
	}
	m.touched[in.ID] = true
	if t := m.holder(in.Kind, in.Key); t != nil {
		m.aliases[in.ID] = t.ID
		return durable.Inserted{ID: t.ID, Duplicate: true}
	}
	m.order++
	t := &modelTask{Insert: in, order: m.order, created: m.now, progress: -1}
	t.State, t.RunAt = durable.Ready, clock(m.now)
	if in.Delay > 0 {
		t.State, t.RunAt = durable.Scheduled, clock(m.now+in.Delay)
	}
	m.tasks[in.ID] = t
	return durable.Inserted{ID: in.ID}
}

// owned returns the task of a claim that boot still has.
func (m *model) owned(boot durable.Boot, ref durable.Ref) *modelTask {
	t := m.tasks[ref.ID]
	if t == nil || t.State != durable.Running || t.boot != boot || t.Fence != ref.Fence {
		return nil
	}
	return t
}

func (m *model) finish(boot durable.Boot, f durable.Finish) bool {
	t := m.owned(boot, f.Ref)
	if t == nil || m.move(t, f.Move, f.Delay) != nil {
		return false
	}
	if f.Move == durable.MoveSucceed {
		t.result = string(f.Result)
	}
	if f.Error != nil {
		t.errors = min(t.errors+1, durable.MaxErrors)
	}
	return true
}

func (m *model) report(boot durable.Boot, p durable.ProgressUpdate) bool {
	t := m.owned(boot, p.Ref)
	if t == nil {
		return false
	}
	t.progress, t.progressUnknown = p.Report.Done, false
	m.touched[t.ID] = true
	return true
}

// due reports whether a task is ready, or will be with the next commit.
func (m *model) due(t *modelTask) bool {
	return t.State == durable.Ready || t.State == durable.Scheduled && !t.RunAt.After(clock(m.now))
}

func (m *model) promote() {
	for _, t := range m.choose(m.due) {
		if t.State == durable.Scheduled {
			_ = m.move(t, durable.MovePromote, 0) // which every scheduled task has
		}
	}
}

// claim returns the ids that a claim gets.
func (m *model) claim(boot durable.Boot, c durable.Claim) []durable.ID {
	ready := m.choose(func(t *modelTask) bool {
		return t.State == durable.Ready && t.Queue == c.Queue && slices.Contains(c.Kinds, t.Kind) && !m.paused[c.Queue]
	})
	slices.SortStableFunc(ready, func(a, b *modelTask) int { return cmp.Compare(b.Priority, a.Priority) })
	var got []durable.ID
	for _, t := range ready[:min(len(ready), c.Limit)] {
		t.boot = boot
		_ = m.move(t, durable.MoveClaim, 0) // which every ready task has
		got = append(got, t.ID)
	}
	return got
}

// nextDue returns when the next scheduled task becomes ready.
func (m *model) nextDue() (next time.Time, ok bool) {
	for _, t := range m.tasks {
		if t.State == durable.Scheduled && (!ok || t.RunAt.Before(next)) {
			next, ok = t.RunAt, true
		}
	}
	return next, ok
}

// die ends a node as one that crashed.
func (m *model) die(boot durable.Boot) (swept durable.Swept) {
	for _, t := range m.running(boot) {
		_ = m.move(t, durable.MoveCrash, 0) // which every running task has
		t.errors = min(t.errors+1, durable.MaxErrors)
		switch t.State {
		case durable.Ready:
			swept.Recovered++
		case durable.Dead:
			swept.Dead++
		}
	}
	delete(m.nodes, boot)
	swept.Nodes++
	return swept
}

func (m *model) sweep(boot durable.Boot) (swept durable.Swept) {
	for other, until := range m.nodes {
		if other == boot || m.now < until {
			continue
		}
		s := m.die(other)
		swept.Recovered, swept.Dead, swept.Nodes = swept.Recovered+s.Recovered, swept.Dead+s.Dead, swept.Nodes+s.Nodes
	}
	return swept
}

func (m *model) cancel(t *modelTask) durable.State {
	switch {
	case t.State.Finished():
	case t.State == durable.Running:
		t.cancelled = true
	default:
		_ = m.move(t, durable.MoveCancel, 0) // which every unfinished task has
	}
	m.touched[t.ID] = true
	return t.State
}

func (m *model) retry(t *modelTask) error {
	if t.State == durable.Dead || t.State == durable.Cancelled {
		if m.holder(t.Kind, t.Key) != nil {
			return durable.ErrDuplicate
		}
	}
	if err := m.move(t, durable.MoveRetry, 0); err != nil {
		return err
	}
	t.cancelled, t.progressUnknown = false, true
	return nil
}

func (m *model) remove(t *modelTask) {
	delete(m.tasks, t.ID)
	for alias, id := range m.aliases {
		if id == t.ID {
			delete(m.aliases, alias)
			m.touched[alias] = true
		}
	}
	m.touched[t.ID] = true
}

func (m *model) prune(keep map[string]durable.Retention) int {
	old := m.choose(func(t *modelTask) bool {
		r, ok := keep[t.Queue]
		if !ok {
			r = keep[""]
		}
		r = r.WithDefaults()
		limit := map[durable.State]time.Duration{durable.Succeeded: r.Succeeded, durable.Dead: r.Dead, durable.Cancelled: r.Cancelled}
		return t.State.Finished() && t.ended+limit[t.State] < m.now
	})
	for _, t := range old {
		m.remove(t)
	}
	return len(old)
}
