package storetest

import (
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/wake-go/wake/durable"
)

const (
	lease    = 30 * time.Second
	patience = 20 * time.Second // for what happens in another goroutine
)

// kit is one process on a store, with a boot that is registered. Its methods
// fail the test when the store returns an error.
type kit struct {
	*testing.T
	f    *Fixture
	s    durable.Store
	ctx  context.Context
	ids  *ids
	boot durable.Boot
}

func newKit(t *testing.T, f *Fixture) *kit {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	k := &kit{T: t, f: f, s: f.Store, ctx: ctx, ids: &ids{}}
	k.syncTime()
	k.register(durable.Node{})
	return k
}

// other returns another process, on a handle of its own if there can be one.
func (k *kit) other() *kit {
	k.Helper()
	o := *k
	if k.f.Reopen != nil {
		o.s = k.f.Reopen()
	}
	o.register(durable.Node{})
	return &o
}

// register begins another run of the process.
func (k *kit) register(n durable.Node) durable.Registration {
	k.Helper()
	n.Boot, n.Worker = durable.Boot(durable.NewID()), true
	if n.Lease == 0 {
		n.Lease = lease
	}
	reg, err := k.s.Register(k.ctx, n)
	k.must(err)
	k.boot = n.Boot
	return reg
}

func (k *kit) must(err error) {
	k.Helper()
	if err != nil {
		k.Fatal(err)
	}
}

// refused checks that err matches target.
func (k *kit) refused(err, target error) {
	k.Helper()
	if !errors.Is(err, target) {
		k.Fatalf("the error is %v; want one that matches %q", err, target)
	}
}

func equal[T comparable](k *kit, what string, got, want T) {
	k.Helper()
	if got != want {
		k.Fatalf("%s: got %v, want %v", what, got, want)
	}
}

func (k *kit) now() time.Time {
	k.Helper()
	now, err := k.s.Now(k.ctx)
	k.must(err)
	return now
}

func (k *kit) syncTime() { k.ids.at(k.now()) }

func (k *kit) advance(d time.Duration) {
	k.Helper()
	k.f.Advance(d)
	k.syncTime()
}

// in makes an insert: ready, in the default queue, three attempts.
func (k *kit) in(kind string, change ...func(*durable.Insert)) durable.Insert {
	in := durable.Insert{ID: k.ids.next(), Kind: kind, Queue: durable.DefaultQueue, MaxAttempts: 3, Payload: []byte(`{"n":1}`)}
	for _, f := range change {
		f(&in)
	}
	return in
}

func key(key string) func(*durable.Insert)        { return func(in *durable.Insert) { in.Key = key } }
func queue(name string) func(*durable.Insert)     { return func(in *durable.Insert) { in.Queue = name } }
func priority(n int) func(*durable.Insert)        { return func(in *durable.Insert) { in.Priority = n } }
func delay(d time.Duration) func(*durable.Insert) { return func(in *durable.Insert) { in.Delay = d } }
func tags(tags ...string) func(*durable.Insert)   { return func(in *durable.Insert) { in.Tags = tags } }
func payload(b []byte) func(*durable.Insert)      { return func(in *durable.Insert) { in.Payload = b } }

func (k *kit) commit(b durable.Batch) *durable.BatchResult {
	k.Helper()
	b.Boot = k.boot
	res, err := k.s.Commit(k.ctx, &b)
	k.must(err)
	for what, n := range map[string][2]int{
		"finishes": {len(res.Finished), len(b.Finishes)}, "progress": {len(res.Progressed), len(b.Progress)},
		"fires": {len(res.Fired), len(b.Fires)}, "inserts": {len(res.Inserted), len(b.Inserts)},
	} {
		if n[0] != n[1] {
			k.Fatalf("%d answers to %d %s of a batch", n[0], n[1], what)
		}
	}
	return res
}

// insert inserts tasks, none of which fails.
func (k *kit) insert(ins ...durable.Insert) []durable.Inserted {
	k.Helper()
	res := k.commit(durable.Batch{Inserts: ins})
	for _, in := range res.Inserted {
		k.must(in.Err)
	}
	return res.Inserted
}

// add inserts one task and returns its id.
func (k *kit) add(kind string, change ...func(*durable.Insert)) durable.ID {
	k.Helper()
	return k.insert(k.in(kind, change...))[0].ID
}

// claim claims tasks of the default queue.
func (k *kit) claim(limit int, kinds ...string) []durable.Claimed {
	k.Helper()
	return k.commit(durable.Batch{Claims: []durable.Claim{{Queue: durable.DefaultQueue, Kinds: kinds, Limit: limit}}}).Claimed
}

// claimOne claims the only task of a kind that is ready.
func (k *kit) claimOne(kind string) durable.Claimed {
	k.Helper()
	claimed := k.claim(10, kind)
	if len(claimed) != 1 {
		k.Fatalf("%d tasks of kind %q were claimed, want 1", len(claimed), kind)
	}
	return claimed[0]
}

// start adds a task and claims it.
func (k *kit) start(kind string, change ...func(*durable.Insert)) durable.Claimed {
	k.Helper()
	id := k.add(kind, change...)
	c := k.claimOne(kind)
	equal(k, "claimed task", c.Ref.ID, id)
	return c
}

// tryFinish records an outcome and reports whether the claim was still good.
func (k *kit) tryFinish(f durable.Finish) bool {
	k.Helper()
	return k.commit(durable.Batch{Finishes: []durable.Finish{f}}).Finished[0]
}

func (k *kit) finish(ref durable.Ref, m durable.Move, delay time.Duration) {
	k.Helper()
	f := durable.Finish{Ref: ref, Move: m, Delay: delay}
	switch m {
	case durable.MoveFail, durable.MoveExhaust, durable.MoveCancel:
		f.Error = &durable.AttemptError{Attempt: 1, Cause: "error", Message: "it failed"}
	}
	if !k.tryFinish(f) {
		k.Fatalf("the claim %v was not its worker's any more", ref)
	}
}

func (k *kit) get(id durable.ID) *durable.Task {
	k.Helper()
	t, err := k.s.Get(k.ctx, id)
	k.must(err)
	return t
}

// status checks where a task is.
func (k *kit) status(id durable.ID, state durable.State, attempt, crashes int) {
	k.Helper()
	t := k.get(id)
	if t.State != state || t.Attempt != attempt || t.Crashes != crashes {
		k.Fatalf("task is %v, attempt %d, crashes %d; want %v, attempt %d, crashes %d", t.State, t.Attempt, t.Crashes, state, attempt, crashes)
	}
}

// inState brings a task of a kind of its own into a state and returns its id.
func (k *kit) inState(s durable.State, kind string, change ...func(*durable.Insert)) durable.ID {
	k.Helper()
	switch s {
	case durable.Ready:
		return k.add(kind, change...)
	case durable.Scheduled:
		return k.add(kind, append(change, delay(time.Hour))...)
	}
	c := k.start(kind, change...)
	switch s {
	case durable.Succeeded:
		k.finish(c.Ref, durable.MoveSucceed, 0)
	case durable.Dead:
		k.finish(c.Ref, durable.MoveExhaust, 0)
	case durable.Cancelled:
		k.finish(c.Ref, durable.MoveCancel, 0)
	}
	equal(k, "state", k.get(c.Ref.ID).State, s)
	return c.Ref.ID
}

// states are those that a task can be brought into.
func states() []durable.State {
	return []durable.State{durable.Ready, durable.Running, durable.Scheduled, durable.Succeeded, durable.Dead, durable.Cancelled}
}

// near reports whether two times are the same but for the precision of a
// store and the time that a test takes.
func near(a, b time.Time) bool { return a.Sub(b).Abs() < 10*time.Second }

// list walks all pages of a filter.
func (k *kit) list(f durable.Filter, size int) []durable.ID {
	k.Helper()
	var found []durable.ID
	for p := (durable.Page{Limit: size}); ; p.After = found[len(found)-1] {
		tasks, err := k.s.List(k.ctx, f, p)
		k.must(err)
		for i := range tasks {
			found = append(found, tasks[i].ID)
		}
		if len(tasks) < size {
			return found
		}
	}
}

// sameIDs checks two sets of ids.
func (k *kit) sameIDs(what string, got, want []durable.ID) {
	k.Helper()
	got, want = slices.Clone(got), slices.Clone(want)
	for _, s := range [][]durable.ID{got, want} {
		slices.SortFunc(s, func(a, b durable.ID) int { return slices.Compare(a[:], b[:]) })
	}
	if !slices.Equal(got, want) {
		k.Fatalf("%s: got %v, want %v", what, got, want)
	}
}

func refIDs(claimed []durable.Claimed) []durable.ID {
	var found []durable.ID
	for i := range claimed {
		found = append(found, claimed[i].Ref.ID)
	}
	return found
}

// ids makes ids of the store's time that ascend strictly, so that the order of
// ids is that of insertion.
type ids struct {
	mu   sync.Mutex
	base durable.ID
	n    uint32
}

func (g *ids) at(t time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if id := durable.IDAt(t); slices.Compare(id[:], g.base[:]) > 0 {
		g.base, g.n = id, 0
	}
}

func (g *ids) next() durable.ID {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.n++
	id := durable.NewID()
	copy(id[:6], g.base[:6])
	id[6], id[7] = 0x70, 0
	binary.BigEndian.PutUint32(id[8:], 1<<31|g.n)
	return id
}
