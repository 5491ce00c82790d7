package storetest

import (
	"bytes"
	"context"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/wake-go/wake/durable"
)

func commitTests() []test {
	return []test{
		{"an inserted task is as it was inserted", insertedAsGiven},
		{"what is acknowledged is there for another process", acknowledged},
		{"payloads and results of every size come back byte for byte", payloads},
		{"names with quotes, newlines and markup come back as they were", oddNames},
		{"a bad insert fails by itself", badInsert},
		{"an empty batch commits", emptyBatch},
		{"the parts of a batch are done in order, in one commit", wholeBatch},
		{"a commit whose context has ended does nothing", endedContext},
		{"the time of a commit is the store's", commitTime},
		{"a store that has been closed says so", closedStore},
	}
}

func insertedAsGiven(k *kit) {
	in := k.in("mail", key("k"), queue("slow"), priority(7), tags("a", "b"), func(in *durable.Insert) {
		in.Timeout, in.MaxAttempts = 3*time.Second, 9
		in.Meta = durable.Meta{RequestID: "r", TraceParent: "00-1-2-01", Owner: "ann", Schedule: "nightly", Tick: 99}
	})
	k.insert(in)
	check := func(kind, queue, key string, prio, attempts int, timeout time.Duration, tags []string, payload []byte, meta durable.Meta) {
		k.Helper()
		equal(k, "kind", kind, in.Kind)
		equal(k, "queue", queue, in.Queue)
		equal(k, "key", key, in.Key)
		equal(k, "priority", prio, in.Priority)
		equal(k, "attempts", attempts, in.MaxAttempts)
		equal(k, "timeout", timeout, in.Timeout)
		equal(k, "meta", meta, in.Meta)
		if !slices.Equal(tags, in.Tags) || !bytes.Equal(payload, in.Payload) {
			k.Fatalf("tags %q and payload %q; want %q and %q", tags, payload, in.Tags, in.Payload)
		}
	}
	t := k.get(in.ID)
	check(t.Kind, t.Queue, t.Key, t.Priority, t.MaxAttempts, t.Timeout, t.Tags, t.Payload, t.Meta)
	equal(k, "state", t.State, durable.Ready)
	equal(k, "id", t.ID, in.ID)
	if now := k.now(); !near(t.CreatedAt, now) || !near(t.RunAt, now) {
		k.Fatalf("created at %v, to be run at %v; want %v", t.CreatedAt, t.RunAt, now)
	}
	if !t.StartedAt.IsZero() || !t.FinishedAt.IsZero() || !t.CancelledAt.IsZero() || t.Progress != nil || len(t.Errors) > 0 {
		k.Fatalf("a task that has not begun has a past: %+v", t)
	}

	res := k.commit(durable.Batch{Claims: []durable.Claim{{Queue: "slow", Kinds: []string{"mail"}, Limit: 1}}})
	equal(k, "claimed tasks", len(res.Claimed), 1)
	c := res.Claimed[0]
	check(c.Kind, c.Queue, c.Key, c.Priority, c.MaxAttempts, c.Timeout, c.Tags, c.Payload, c.Meta)
	equal(k, "claimed id", c.Ref.ID, in.ID)
	equal(k, "attempt", c.Attempt, 1)
	equal(k, "crashes", c.Crashes, 0)
	if !near(c.CreatedAt, t.CreatedAt) || !near(c.RunAt, t.RunAt) {
		k.Fatalf("claimed: created at %v, run at %v; want %v, %v", c.CreatedAt, c.RunAt, t.CreatedAt, t.RunAt)
	}
}

func acknowledged(k *kit) {
	o := k.other()
	id := k.add("a")
	equal(k, "state seen by another process", o.get(id).State, durable.Ready)
	c := o.claimOne("a")
	equal(k, "claim seen by the first process", k.get(id).State, durable.Running)
	o.finish(c.Ref, durable.MoveSucceed, 0)
	equal(k, "outcome seen by the first process", k.get(id).State, durable.Succeeded)
}

func payloads(k *kit) {
	random := rand.NewChaCha8([32]byte{1})
	for _, size := range []int{0, 1, 1000, 1023, 1024, 1025, 4096, 64 << 10, 1 << 20} {
		b, result := make([]byte, size), make([]byte, size)
		random.Read(b)
		random.Read(result)
		id := k.add("big", payload(b))
		if got := k.get(id).Payload; !bytes.Equal(got, b) {
			k.Fatalf("a payload of %d bytes came back as %d others", size, len(got))
		}
		c := k.claimOne("big")
		if !bytes.Equal(c.Payload, b) {
			k.Fatalf("a payload of %d bytes was claimed as %d others", size, len(c.Payload))
		}
		if !k.tryFinish(durable.Finish{Ref: c.Ref, Move: durable.MoveSucceed, Result: result}) {
			k.Fatal("the outcome was refused")
		}
		t := k.get(id)
		if !bytes.Equal(t.Payload, b) || !bytes.Equal(t.Result, result) {
			k.Fatalf("when finished, a payload and a result of %d bytes are %d and %d others", size, len(t.Payload), len(t.Result))
		}
	}
}

// odd are names that a careless store, page or log gets wrong.
func odd() []string {
	return []string{
		`it's "quoted" \ and %s`, "two\nlines\tand a tab", "emoji 🌊 and ünïcode", "<script>alert(1)</script>",
		"'; DROP TABLE task; --", " spaces around ", "null", "ｆｕｌｌ", "e\u0301", strings.Repeat("long", 32),
	}
}

func oddNames(k *kit) {
	for _, name := range odd() {
		id := k.add(name, queue(name), key(name), tags(name), func(in *durable.Insert) { in.Meta.Owner = name })
		t := k.get(id)
		equal(k, "kind", t.Kind, name)
		equal(k, "queue", t.Queue, name)
		equal(k, "key", t.Key, name)
		equal(k, "owner", t.Meta.Owner, name)
		equal(k, "tag", t.Tags[0], name)
		k.sameIDs("by kind", k.list(durable.Filter{Kind: name}, 100), []durable.ID{id})
		k.sameIDs("by queue", k.list(durable.Filter{Queue: name}, 100), []durable.ID{id})
		k.sameIDs("by tag", k.list(durable.Filter{Tag: name}, 100), []durable.ID{id})
		k.sameIDs("by key", k.list(durable.Filter{Kind: name, Key: name}, 100), []durable.ID{id})
		res := k.commit(durable.Batch{Claims: []durable.Claim{{Queue: name, Kinds: []string{name}, Limit: 1}}})
		k.sameIDs("claimed", refIDs(res.Claimed), []durable.ID{id})
		if !k.tryFinish(durable.Finish{Ref: res.Claimed[0].Ref, Move: durable.MoveExhaust, Error: &durable.AttemptError{Attempt: 1, Cause: "error", Message: name, Stack: name}}) {
			k.Fatal("the outcome was refused")
		}
		equal(k, "error", k.get(id).Errors[0].Message, name)
	}
}

// badInsert has what a queue refuses before it comes to a store. A store that
// can keep it may, and one that cannot fails it alone.
func badInsert(k *kit) {
	bad := []durable.Insert{
		k.in("nul\x00kind"), k.in("b", key("nul\x00key")), k.in("b", tags("nul\x00tag")),
		k.in("invalid\xff\xfekind"), k.in("b", key("invalid\xff")), k.in("b", queue("invalid\xc3\x28")),
		k.in("b", func(in *durable.Insert) { in.Meta.Owner = "invalid\xff" }),
		k.in(""), k.in("b", queue("")), k.in("b", payload(nil)), k.in("b", func(in *durable.Insert) { in.ID = durable.ID{} }),
		k.in("b", key(strings.Repeat("k", 1<<20))), k.in("b", payload([]byte("{\"a\":\x00\xff"))),
	}
	var batch []durable.Insert
	var good []durable.ID
	for _, in := range bad {
		g := k.in("good")
		good = append(good, g.ID)
		batch = append(batch, g, in)
	}
	res := k.commit(durable.Batch{Inserts: batch})
	for i, in := range res.Inserted {
		if i%2 == 0 {
			k.must(in.Err)
			continue
		}
		if _, err := k.s.Get(k.ctx, batch[i].ID); (err == nil) != (in.Err == nil) {
			k.Fatalf("insert %+v answered %v, and Get %v", batch[i], in.Err, err)
		}
	}
	k.sameIDs("claimed", refIDs(k.claim(100, "good")), good)
}

func emptyBatch(k *kit) {
	res := k.commit(durable.Batch{})
	if !near(res.Now, k.now()) || !res.NextDue.IsZero() || len(res.Claimed) > 0 {
		k.Fatalf("an empty store answered %+v to an empty batch", res)
	}
}

func wholeBatch(k *kit) {
	a, b, c := k.start("a", key("k")), k.start("b"), k.start("c")
	in := k.in("a", key("k")) // free only when a has been finished before
	res := k.commit(durable.Batch{
		Finishes: []durable.Finish{{Ref: a.Ref, Move: durable.MoveSucceed}, {Ref: c.Ref, Move: durable.MoveFail}},
		Progress: []durable.ProgressUpdate{
			{Ref: b.Ref, Report: durable.ProgressReport{Done: 1, Total: 2}}, {Ref: a.Ref, Report: durable.ProgressReport{Done: 9}},
		},
		Inserts: []durable.Insert{in},
		Claims:  []durable.Claim{{Queue: durable.DefaultQueue, Kinds: []string{"a", "c"}, Limit: 5}},
	})
	if !slices.Equal(res.Finished, []bool{true, true}) || !slices.Equal(res.Progressed, []bool{true, false}) {
		k.Fatalf("finished %v, want both; progressed %v, want the one that still runs", res.Finished, res.Progressed)
	}
	k.must(res.Inserted[0].Err)
	if res.Inserted[0].Duplicate {
		k.Fatal("a key that the same batch freed was a duplicate")
	}
	k.sameIDs("claimed", refIDs(res.Claimed), []durable.ID{in.ID, c.Ref.ID})
	equal(k, "state", k.get(in.ID).State, durable.Running)
	equal(k, "progress", k.get(b.Ref.ID).Progress.Done, 1)
}

func endedContext(k *kit) {
	ctx, cancel := context.WithCancel(k.ctx)
	cancel()
	in := k.in("a")
	if _, err := k.s.Commit(ctx, &durable.Batch{Boot: k.boot, Inserts: []durable.Insert{in}}); err == nil {
		k.Fatal("a commit succeeded though its context had ended")
	}
	_, err := k.s.Get(k.ctx, in.ID)
	k.refused(err, durable.ErrNotFound)
}

func commitTime(k *kit) {
	before := k.now()
	k.advance(time.Hour)
	res := k.commit(durable.Batch{})
	if !near(res.Now, before.Add(time.Hour)) {
		k.Fatalf("a commit was at %v; an hour before it was %v", res.Now, before)
	}
	if id := k.add("a"); !near(k.get(id).CreatedAt, res.Now) {
		k.Fatalf("a task was created at %v; it is %v", k.get(id).CreatedAt, res.Now)
	}
}

func closedStore(k *kit) {
	k.must(k.s.Ping(k.ctx))
	k.must(k.s.Unregister(k.ctx, k.boot))
	k.must(k.s.Close())
	if err := k.s.Ping(k.ctx); err == nil {
		k.Error("Ping of a closed store succeeded")
	}
	if _, err := k.s.Commit(k.ctx, &durable.Batch{Boot: k.boot}); err == nil {
		k.Error("Commit to a closed store succeeded")
	}
	if _, err := k.s.Get(k.ctx, durable.NewID()); err == nil {
		k.Error("Get from a closed store succeeded")
	}
}
