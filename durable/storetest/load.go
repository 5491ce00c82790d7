package storetest

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/wake-go/wake/durable"
)

func loadTests() []test {
	return []test{
		{"of 10,000 tasks none is lost and none is run twice", tenThousand},
		{"many workers on two handles claim each task once", manyWorkers},
	}
}

// tenThousand takes its time on a store that syncs: some 150 commits.
func tenThousand(k *kit) {
	const n = 10_000
	var want []durable.ID
	for i := 0; i < n; {
		var ins []durable.Insert
		for range min(500, k.s.Traits().MaxBatch) {
			ins = append(ins, k.in([]string{"a", "b", "c"}[i%3], priority(i%4)))
			want = append(want, ins[len(ins)-1].ID)
			i++
		}
		k.insert(ins...)
	}
	runs := map[durable.ID]int{}
	var finishes []durable.Finish
	for {
		res := k.commit(durable.Batch{
			Finishes: finishes,
			Claims:   []durable.Claim{{Queue: durable.DefaultQueue, Kinds: []string{"a", "b", "c"}, Limit: 100}},
		})
		if slices.Contains(res.Finished, false) {
			k.Fatal("an outcome was refused")
		}
		finishes = finishes[:0]
		for _, c := range res.Claimed {
			runs[c.Ref.ID]++
			finishes = append(finishes, durable.Finish{Ref: c.Ref, Move: durable.MoveSucceed})
		}
		if len(res.Claimed) == 0 {
			break
		}
	}
	for _, id := range want {
		if runs[id] != 1 {
			k.Fatalf("task %v was claimed %d times", id, runs[id])
		}
	}
	equal(k, "tasks that were claimed", len(runs), len(want))
	done := 0
	counts, err := k.s.Counts(k.ctx)
	k.must(err)
	for _, c := range counts {
		equal(k, "state", c.State, durable.Succeeded)
		done += c.N
	}
	equal(k, "tasks that have succeeded", done, len(want))
}

// manyWorkers adds, claims and finishes from several goroutines at once. Every
// third task fails once, and so has to be claimed again.
func manyWorkers(k *kit) {
	const workers, each = 3, 150
	var (
		mu     sync.Mutex
		claims = map[durable.Ref]int{}
		done   = map[durable.ID]int{}
		left   atomic.Int64
		wg     sync.WaitGroup
		errs   = make(chan error, 2*workers)
	)
	left.Store(2 * workers * each)
	for _, p := range []*kit{k, k.other()} {
		for range workers {
			wg.Go(func() {
				added := 0
				var finishes []durable.Finish
				for left.Load() > 0 {
					b := &durable.Batch{
						Boot: p.boot, Finishes: finishes,
						Claims: []durable.Claim{{Queue: durable.DefaultQueue, Kinds: []string{"a"}, Limit: 7}},
					}
					for range min(10, each-added) {
						b.Inserts = append(b.Inserts, p.in("a"))
						added++
					}
					res, err := p.s.Commit(p.ctx, b)
					if err == nil && slices.Contains(res.Finished, false) {
						err = fmt.Errorf("an outcome of %v was refused: %v", finishes, res.Finished)
					}
					if err != nil {
						errs <- err
						left.Store(0)
						return
					}
					mu.Lock()
					for _, f := range finishes {
						if f.Move == durable.MoveSucceed {
							done[f.Ref.ID]++
							left.Add(-1)
						}
					}
					finishes = nil
					for _, c := range res.Claimed {
						claims[c.Ref]++
						f := durable.Finish{Ref: c.Ref, Move: durable.MoveSucceed}
						if c.Attempt == 1 && c.Ref.ID[15]%3 == 0 {
							f.Move = durable.MoveFail
						}
						finishes = append(finishes, f)
					}
					mu.Unlock()
				}
			})
		}
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		k.must(err)
	}
	equal(k, "tasks that were finished", len(done), 2*workers*each)
	for ref, n := range claims {
		equal(k, fmt.Sprintf("times that the claim %v was given", ref), n, 1)
	}
	for id, n := range done {
		equal(k, fmt.Sprintf("times that the task %v was finished", id), n, 1)
	}
}
