package durable

import (
	"maps"
	"slices"
	"sync/atomic"
)

// counters count since the engine was made.
type counters struct {
	claimed, lost, abandoned, recovered, leasesLost atomic.Uint64
	commits, commitErrors                           atomic.Uint64
	moves                                           [MoveRetry + 1]atomic.Uint64
}

// PoolStats say how busy a queue or a lane is.
type PoolStats struct {
	Name    string `json:"name"`
	Workers int    `json:"workers"` // 0: no bound of its own
	Running int    `json:"running"` // or about to, or waiting for their outcome's commit
}

// Stats say what an engine does, and has done since it was made.
type Stats struct {
	Queues []PoolStats `json:"queues"` // by name
	Lanes  []PoolStats `json:"lanes"`  // by name; that of handlers without a lane is ""

	Claimed   uint64 `json:"claimed"`
	Succeeded uint64 `json:"succeeded"`
	Failed    uint64 `json:"failed"` // and tried again
	Dead      uint64 `json:"dead"`   // failed for the last time
	Cancelled uint64 `json:"cancelled"`
	Snoozed   uint64 `json:"snoozed"`
	Released  uint64 `json:"released"`
	Lost      uint64 `json:"lost"`      // outcomes that did not count
	Abandoned uint64 `json:"abandoned"` // by a drain
	Recovered uint64 `json:"recovered"` // from processes that died

	Commits      uint64 `json:"commits"`
	CommitErrors uint64 `json:"commit_errors"`
	LeasesLost   uint64 `json:"leases_lost"`
}

// Stats returns what the engine does now.
func (e *Engine) Stats() Stats {
	c := &e.counters
	s := Stats{
		Claimed: c.claimed.Load(), Lost: c.lost.Load(), Abandoned: c.abandoned.Load(), Recovered: c.recovered.Load(),
		Succeeded: c.moves[MoveSucceed].Load(), Failed: c.moves[MoveFail].Load(), Dead: c.moves[MoveExhaust].Load(),
		Cancelled: c.moves[MoveCancel].Load(), Snoozed: c.moves[MoveSnooze].Load(), Released: c.moves[MoveRelease].Load(),
		Commits: c.commits.Load(), CommitErrors: c.commitErrors.Load(), LeasesLost: c.leasesLost.Load(),
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	s.Queues, s.Lanes = poolStats(e.slots.queues), poolStats(e.slots.lanes)
	return s
}

func poolStats(pools map[string]*pool) []PoolStats {
	stats := make([]PoolStats, 0, len(pools))
	for _, name := range slices.Sorted(maps.Keys(pools)) {
		p := PoolStats{Name: name, Running: pools[name].running}
		if !pools[name].unbounded() {
			p.Workers = pools[name].size
		}
		stats = append(stats, p)
	}
	return stats
}
