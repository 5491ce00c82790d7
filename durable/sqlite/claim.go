package sqlite

import (
	"cmp"
	"database/sql/driver"
	"fmt"
	"slices"
	"strings"

	"github.com/wake-go/wake/durable"
)

// maxLanes is how many lanes one statement claims from.
const maxLanes = 64

// claimAll claims tasks, each of the claims from its own lanes.
func (w *writer) claimAll(boot durable.Boot, claims []durable.Claim, now int64) ([]durable.Claimed, error) {
	var all []durable.Claimed
	for _, c := range claims {
		if w.lanes.paused[c.Queue] {
			continue
		}
		var from []int64
		for _, kind := range c.Kinds {
			if id, ok := w.lanes.byName[lane{c.Queue, kind}]; ok && !w.lanes.empty[id] {
				from = append(from, id)
			}
		}
		if len(from) > maxLanes && c.Limit > 0 {
			var err error
			if from, err = w.mostUrgent(from); err != nil {
				return nil, err
			}
		}
		for left := c.Limit; left > 0 && len(from) > 0; {
			some := from[:min(len(from), maxLanes)]
			from = from[len(some):]
			n := len(all)
			var err error
			if all, err = w.claim(boot, some, c.Calm, left, now, all); err != nil {
				return nil, err
			}
			if left -= len(all) - n; left > 0 && !c.Calm {
				for _, id := range some {
					w.lanes.empty[id] = true
				}
			}
		}
	}
	return all, nil
}

// mostUrgent sorts lanes by their first tasks, where there are too many for one
// statement, and leaves out those that have none.
func (w *writer) mostUrgent(lanes []int64) ([]int64, error) {
	type head struct{ lane, priority, seq int64 }
	heads := make([]head, 0, len(lanes))
	for _, id := range lanes {
		n := len(heads)
		err := w.query(func(row []driver.Value) error {
			heads = append(heads, head{id, integer(row[0]), integer(row[1])})
			return nil
		}, `SELECT priority, seq FROM wake_task WHERE lane = ? AND state = 1 ORDER BY priority DESC, seq LIMIT 1`, id)
		if err != nil {
			return nil, err
		}
		if len(heads) == n {
			w.lanes.empty[id] = true
		}
	}
	slices.SortFunc(heads, func(a, b head) int { return cmp.Or(cmp.Compare(b.priority, a.priority), cmp.Compare(a.seq, b.seq)) })
	lanes = lanes[:0]
	for _, h := range heads {
		lanes = append(lanes, h.lane)
	}
	return lanes, nil
}

// claim claims up to limit tasks of the lanes, the most urgent ones first.
// Each lane is read from its own place in the index, so what waits in others,
// and what waits behind, costs nothing.
func (w *writer) claim(boot durable.Boot, lanes []int64, calm bool, limit int, now int64, all []durable.Claimed) ([]durable.Claimed, error) {
	args := []any{boot, now, limit}
	for _, id := range lanes {
		args = append(args, id)
	}
	first := len(all)
	err := w.query(func(row []driver.Value) error {
		all = append(all, w.claimed(row))
		return nil
	}, w.claimStatement(len(lanes), calm), args...)
	if err != nil {
		return all, err
	}
	mine := all[first:]
	// RETURNING has no order.
	slices.SortFunc(mine, func(a, b durable.Claimed) int {
		if a.Priority != b.Priority {
			return b.Priority - a.Priority
		}
		return int(min(max(a.Ref.Seq-b.Ref.Seq, -1), 1))
	})
	for i := range mine {
		if mine[i].Payload != nil {
			continue
		}
		err := w.query(func(row []driver.Value) error { mine[i].Payload = blob(row[0]); return nil },
			`SELECT payload FROM wake_blob WHERE seq = ?`, mine[i].Ref.Seq)
		if err != nil {
			return all, err
		}
	}
	return all, nil
}

// claimStatement makes the statement for a number of lanes.
func (w *writer) claimStatement(lanes int, calm bool) string {
	made, also := w.claims, ``
	if calm { // which few claims are: this is not in the index
		made, also = w.calmClaims, fmt.Sprintf(` AND crashes < %d`, durable.MaxCrashes-1)
	}
	if made[lanes] == "" {
		var from []string
		for i := range lanes {
			from = append(from, fmt.Sprintf(`SELECT * FROM (SELECT priority, seq FROM wake_task WHERE lane = ?%d AND state = 1%s ORDER BY priority DESC, seq LIMIT ?3)`, i+4, also))
		}
		made[lanes] = `UPDATE wake_task SET state = 2, boot = ?1, started_at = ?2, fence = fence + 1, attempt = attempt + 1
			WHERE seq IN (SELECT seq FROM (` + strings.Join(from, ` UNION ALL `) + `) ORDER BY priority DESC, seq LIMIT ?3)
			RETURNING seq, id, lane, priority, run_at, fence, attempt, crashes, max_attempts, created_at, opts, payload, extras`
	}
	return made[lanes]
}

func (w *writer) claimed(row []driver.Value) durable.Claimed {
	lane := w.lanes.byID[integer(row[2])]
	c := durable.Claimed{
		Ref:  durable.Ref{Seq: integer(row[0]), ID: idOf(row[1]), Fence: integer(row[5])},
		Kind: lane.kind, Queue: lane.queue,
		Priority: int(integer(row[3])), RunAt: timeOf(integer(row[4])),
		Attempt: int(integer(row[6])), Crashes: int(integer(row[7])), MaxAttempts: int(integer(row[8])),
		CreatedAt: timeOf(integer(row[9])),
	}
	if integer(row[12])&hasBlob == 0 {
		c.Payload = blob(row[11])
		if c.Payload == nil {
			c.Payload = []byte{}
		}
	}
	c.Tags, c.Timeout, c.Key, c.Meta = durable.DecodeOptions(blob(row[10]))
	return c
}
