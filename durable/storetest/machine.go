package storetest

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/wake-go/wake/durable"
)

// Model compares the store with a plain model of it: after every one of a
// random sequence of operations both must be the same. The flags of rapid say
// how often (-rapid.checks) and for how long (-rapid.steps), and repeat what
// has failed (-rapid.seed). Each check opens a store of its own, and closes it
// with Fixture.Close.
func Model(t *testing.T, open func(t *testing.T) *Fixture) {
	rapid.Check(t, func(r *rapid.T) {
		f := open(t)
		defer f.close()
		m := newMachine(r, f)
		r.Repeat(map[string]func(*rapid.T){
			"":          m.compare,
			"commit":    m.commit,
			"work":      m.commit, // half of what happens is commits
			"add":       m.commit,
			"run":       m.commit,
			"advance":   m.advance,
			"cancel":    m.cancel,
			"retry":     m.retry,
			"delete":    m.delete,
			"pause":     m.pause,
			"register":  m.register,
			"beat":      m.beat,
			"sweep":     m.sweep,
			"reconcile": m.reconcile,
			"leave":     m.unregister,
			"crash":     m.crash,
			"prune":     m.prune,
			"hold":      m.hold,
		})
		for id := range m.tasks {
			m.touched[id] = true
		}
		m.compare(r)
	})
}

// modelLease is that of each node of the model.
const modelLease = 5*time.Minute + 30*time.Second

// machine makes random moves on a store and its model.
type machine struct {
	*model
	f    *Fixture
	s    durable.Store
	ctx  context.Context
	ids  *ids
	base time.Time // the store's time when the model's was zero

	boots []durable.Boot // ever registered
	known []durable.ID   // ever inserted
	refs  []durable.Ref  // ever claimed
}

func newMachine(t *rapid.T, f *Fixture) *machine {
	m := &machine{model: newModel(), f: f, s: f.Store, ctx: context.Background(), ids: &ids{}}
	now, err := m.s.Now(m.ctx)
	must(t, err)
	m.base = now
	m.ids.at(now)
	m.join(t)
	m.declare(t)
	return m
}

func must(t *rapid.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func same[T comparable](t *rapid.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Fatalf("%s: the store has %v, the model %v", what, got, want)
	}
}

// sameError checks for an error that matches want, or none.
func sameError(t *rapid.T, what string, got, want error) {
	t.Helper()
	if want == nil && got != nil {
		t.Fatalf("%s: the store has the error %v, the model none", what, got)
	}
	for _, rule := range []error{durable.ErrNotFound, durable.ErrState, durable.ErrDuplicate, durable.ErrLeaseLost} {
		if errors.Is(want, rule) && !errors.Is(got, rule) {
			t.Fatalf("%s: the store has the error %v, the model %v", what, got, want)
		}
	}
}

// sameTime compares one of the store's times with one of the model's.
func (m *machine) sameTime(t *rapid.T, what string, got time.Time, want time.Duration) {
	t.Helper()
	if (got.Sub(m.base) - want).Abs() > 20*time.Second {
		t.Fatalf("%s: the store has %v, %v after its first time; the model %v", what, got, got.Sub(m.base), want)
	}
}

// pick chooses an element, and says whether there is one.
func pick[T any](t *rapid.T, label string, from []T) (chosen T, ok bool) {
	if len(from) == 0 {
		return chosen, false
	}
	return from[rapid.IntRange(0, len(from)-1).Draw(t, label)], true
}

func chance(t *rapid.T, label string, percent int) bool {
	return rapid.IntRange(0, 99).Draw(t, label) < percent
}

// leased are the nodes whose leases have not ended, in the order of their
// registration.
func (m *machine) leased() []durable.Boot {
	return slices.DeleteFunc(slices.Clone(m.boots), func(b durable.Boot) bool {
		until, ok := m.nodes[b]
		return !ok || until <= m.now
	})
}

// join registers a node, and takes back what the dead have left.
func (m *machine) join(t *rapid.T) {
	boot := durable.Boot(durable.NewID())
	reg, err := m.s.Register(m.ctx, durable.Node{Boot: boot, Name: "node", Lease: modelLease, Worker: true})
	must(t, err)
	swept, err := m.s.Sweep(m.ctx, boot)
	must(t, err)
	swept = durable.Swept{
		Recovered: swept.Recovered + reg.Swept.Recovered, Dead: swept.Dead + reg.Swept.Dead, Nodes: swept.Nodes + reg.Swept.Nodes,
	}
	m.nodes[boot] = m.now + modelLease
	m.boots = append(m.boots, boot)
	same(t, "swept when a node joins", swept, m.model.sweep(boot))
}

func (m *machine) register(t *rapid.T) {
	if len(m.nodes) >= 4 {
		t.Skip("enough nodes")
	}
	m.join(t)
}

func (m *machine) advance(t *rapid.T) {
	d := rapid.SampledFrom([]time.Duration{1, 2, 3, 4, 11, 25}).Draw(t, "minutes") * time.Minute
	m.skip(d)
}

func (m *machine) skip(d time.Duration) {
	m.f.Advance(d)
	m.now += d
	m.ids.at(m.base.Add(m.now))
}

// commit commits a batch with some of everything.
func (m *machine) commit(t *rapid.T) {
	boot, ok := pick(t, "boot", m.leased())
	if !ok {
		t.Skip("no node lives")
	}
	b := &durable.Batch{Boot: boot, Again: chance(t, "again", 20)}
	for range rapid.IntRange(0, 3).Draw(t, "outcomes") {
		if ref, ok := m.drawRef(t, boot); ok {
			b.Finishes = append(b.Finishes, drawFinish(t, ref))
		}
	}
	if ref, ok := m.drawRef(t, boot); ok && chance(t, "progress", 30) {
		b.Progress = []durable.ProgressUpdate{{Ref: ref, Report: durable.ProgressReport{Done: rapid.IntRange(0, 9).Draw(t, "done"), Total: 9}}}
	}
	if chance(t, "tick", 25) {
		b.Fires = append(b.Fires, m.drawFire(t))
	}
	for range rapid.IntRange(0, 3).Draw(t, "inserts") {
		b.Inserts = append(b.Inserts, m.drawInsert(t, b.Again))
	}
	for _, q := range []string{"default", "slow"} {
		if chance(t, "claim of "+q, 60) {
			kinds := rapid.SampledFrom([][]string{{"a"}, {"b"}, {"a", "b"}, {"b", "a", "unknown"}}).Draw(t, "kinds")
			b.Claims = append(b.Claims, durable.Claim{Queue: q, Kinds: kinds, Limit: rapid.IntRange(0, 3).Draw(t, "limit")})
		}
	}
	res, err := m.s.Commit(m.ctx, b)
	must(t, err)
	m.applied(t, b, res)
}

// applied makes the same batch on the model and compares the answers.
func (m *machine) applied(t *rapid.T, b *durable.Batch, res *durable.BatchResult) {
	m.sameTime(t, "time of the commit", res.Now, m.now)
	for i, f := range b.Finishes {
		// What has been recorded by an earlier batch may count as recorded in
		// one that is repeated.
		if want := m.finish(b.Boot, f); want || !b.Again {
			same(t, "finished", res.Finished[i], want)
		}
	}
	for i, p := range b.Progress {
		same(t, "progressed", res.Progressed[i], m.report(b.Boot, p))
	}
	for i, f := range b.Fires {
		m.sameFire(t, f, res.Fired[i])
	}
	for i, in := range b.Inserts {
		m.sameInsert(t, in, res.Inserted[i], m.insert(in, b.Again))
	}
	m.promote()
	m.sameClaims(t, b, res)
	next, ok := m.nextDue()
	same(t, "there is a next scheduled task", !res.NextDue.IsZero(), ok)
	if ok {
		m.sameTime(t, "next due", res.NextDue, next.Sub(clock(0)))
	}
}

func (m *machine) sameInsert(t *rapid.T, in durable.Insert, got, want durable.Inserted) {
	t.Helper()
	must(t, got.Err)
	same(t, "inserted", got.ID, want.ID)
	if !slices.Contains(m.known, in.ID) {
		m.known = append(m.known, in.ID)
	}
}

func (m *machine) sameClaims(t *rapid.T, b *durable.Batch, res *durable.BatchResult) {
	t.Helper()
	want := map[durable.ID]bool{}
	for _, c := range b.Claims {
		for _, id := range m.claim(b.Boot, c) {
			want[id] = true
		}
	}
	for _, c := range res.Claimed {
		task := m.tasks[c.Ref.ID]
		if !want[c.Ref.ID] {
			t.Fatalf("the store has claimed %v (%+v), the model %v", c.Ref, task, want)
		}
		delete(want, c.Ref.ID)
		same(t, "fence of a claim", c.Ref.Fence, task.Fence)
		same(t, "attempt of a claim", c.Attempt, task.Attempt)
		same(t, "crashes of a claim", c.Crashes, task.Crashes)
		same(t, "payload of a claim", string(c.Payload), string(task.Payload))
		same(t, "key of a claim", c.Key, task.Key)
		m.refs = append(m.refs, c.Ref)
	}
	same(t, "tasks that only the model has claimed", len(want), 0)
}

// drawRef chooses a claim that boot has, or any that ever was.
func (m *machine) drawRef(t *rapid.T, boot durable.Boot) (durable.Ref, bool) {
	if chance(t, "a claim of its own", 80) {
		current := slices.DeleteFunc(slices.Clone(m.refs), func(r durable.Ref) bool { return m.owned(boot, r) == nil })
		return pick(t, "claim", current)
	}
	return pick(t, "any claim", m.refs)
}

func drawFinish(t *rapid.T, ref durable.Ref) durable.Finish {
	f := durable.Finish{Ref: ref, Move: rapid.SampledFrom([]durable.Move{
		durable.MoveSucceed, durable.MoveFail, durable.MoveExhaust, durable.MoveSnooze, durable.MoveRelease, durable.MoveCancel,
	}).Draw(t, "move")}
	switch f.Move {
	case durable.MoveSucceed:
		f.Result = []byte(rapid.SampledFrom([]string{"", "1", "2"}).Draw(t, "result"))
	case durable.MoveFail, durable.MoveExhaust:
		f.Error = &durable.AttemptError{Attempt: 1, Cause: "error", Message: "no"}
	}
	if f.Move == durable.MoveFail || f.Move == durable.MoveSnooze {
		f.Delay = drawDelay(t)
	}
	return f
}

func drawDelay(t *rapid.T) time.Duration {
	return rapid.SampledFrom([]time.Duration{0, 90 * time.Second, 150 * time.Second, 630 * time.Second}).Draw(t, "delay")
}

// drawInsert makes a new task, or repeats an insert.
func (m *machine) drawInsert(t *rapid.T, again bool) durable.Insert {
	if again && chance(t, "repeated", 50) {
		known := slices.DeleteFunc(slices.Clone(m.known), func(id durable.ID) bool { return m.find(id) == nil })
		if id, ok := pick(t, "insert", known); ok {
			in := m.find(id).Insert
			in.ID = id
			return in
		}
	}
	id := m.ids.next()
	return durable.Insert{
		ID:          id,
		Kind:        rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "kind"),
		Queue:       rapid.SampledFrom([]string{"default", "slow"}).Draw(t, "queue"),
		Priority:    rapid.IntRange(-1, 1).Draw(t, "priority"),
		Delay:       drawDelay(t),
		Key:         rapid.SampledFrom([]string{"", "", "k", "l"}).Draw(t, "key"),
		MaxAttempts: 3,
		Payload:     []byte(id.String()),
	}
}
