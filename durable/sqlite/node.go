package sqlite

import (
	"context"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/wake-go/wake/durable"
)

// keptNodes is how long it is known what processes there were.
const keptNodes = 31 * 24 * time.Hour

func (s *Store) leaseMicros(plus time.Duration) int64 {
	return int64((s.clock.lease() + plus) / time.Microsecond)
}

// Register makes a process known, and takes back what its predecessors held.
func (s *Store) Register(ctx context.Context, n durable.Node) (durable.Registration, error) {
	kinds, err := json.Marshal(n.Kinds)
	if err != nil {
		return durable.Registration{}, err
	}
	schedules, err := json.Marshal(n.Schedules)
	if err != nil {
		return durable.Registration{}, err
	}
	if n.Lease <= 0 {
		return durable.Registration{}, fmt.Errorf("durable: sqlite: the lease of %v is %v; it must be positive", n.Boot, n.Lease)
	}
	started := n.Started
	if started.IsZero() {
		started = s.clock.now()
	}
	reg := durable.Registration{Name: n.Name}
	s.boots.add(n.Boot)
	err = s.write(ctx, func(w *writer) error {
		if reg.Swept, err = s.sweep(w, n.Boot); err != nil {
			return err
		}
		if reg.Name, err = w.nodeName(n.Name, s.slot.n); err != nil {
			return err
		}
		_, err = w.exec(`INSERT INTO wake_node (boot, name, slot, machine, host, pid, version, worker, kinds, schedules, lease, lease_until, started_at)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			n.Boot, reg.Name, s.slot.n, s.machine, n.Host, n.PID, n.Version, n.Worker, string(kinds), string(schedules),
			int64(n.Lease/time.Microsecond), s.leaseMicros(n.Lease), micros(started))
		return err
	})
	if err != nil {
		s.boots.remove(n.Boot)
		return reg, err
	}
	s.signals.send(durable.SignalSchedules | durable.SignalTasks)
	return reg, nil
}

// nodeName returns a name that no living process has.
func (w *writer) nodeName(name string, slot int) (string, error) {
	if name == "" {
		name = fmt.Sprintf("node-%d", slot)
	}
	for i, free := 2, name; ; i++ {
		_, taken, err := w.one(`SELECT 1 FROM wake_node WHERE name = ? AND lease_until IS NOT NULL`, free)
		if err != nil || !taken {
			return free, err
		}
		free = fmt.Sprintf("%s-%d", name, i)
	}
}

// Beat renews a lease.
func (s *Store) Beat(ctx context.Context, boot durable.Boot) (durable.BeatResult, error) {
	var res durable.BeatResult
	err := s.write(ctx, func(w *writer) error {
		n, err := w.exec(`UPDATE wake_node SET lease_until = ? + lease WHERE boot = ? AND lease_until IS NOT NULL`, s.leaseMicros(0), boot)
		if err != nil {
			return err
		}
		if n == 0 {
			return fmt.Errorf("durable: sqlite: %v: %w", boot, durable.ErrLeaseLost)
		}
		return w.query(func(row []driver.Value) error {
			res.Cancelled = append(res.Cancelled, durable.Ref{Seq: integer(row[0]), ID: idOf(row[1]), Fence: integer(row[2])})
			return nil
		}, `SELECT seq, id, fence FROM wake_task WHERE cancel_at IS NOT NULL AND state = 2 AND boot = ?`, boot)
	})
	if errors.Is(err, durable.ErrLeaseLost) {
		s.boots.remove(boot)
	}
	return res, err
}

// Reconcile returns what a process has claimed without knowing.
func (s *Store) Reconcile(ctx context.Context, boot durable.Boot, known []durable.Ref) (released int, err error) {
	mine := make(map[int64]int64, len(known))
	for _, ref := range known {
		mine[ref.Seq] = ref.Fence
	}
	err = s.write(ctx, func(w *writer) error {
		var lost []durable.Ref
		err := w.query(func(row []driver.Value) error {
			if ref := (durable.Ref{Seq: integer(row[0]), ID: idOf(row[1]), Fence: integer(row[2])}); mine[ref.Seq] != ref.Fence {
				lost = append(lost, ref)
			}
			return nil
		}, `SELECT seq, id, fence FROM wake_task WHERE state = 2 AND boot = ?`, boot)
		for _, ref := range lost {
			if err == nil {
				_, err = finishOne(w, boot, &durable.Finish{Ref: ref, Move: durable.MoveRelease}, s.clock.now(), false)
			}
		}
		released = len(lost)
		return err
	})
	return released, err
}

// Sweep takes the tasks of dead processes back.
func (s *Store) Sweep(ctx context.Context, boot durable.Boot) (durable.Swept, error) {
	dead := false
	err := s.read(ctx, func(r *reader) error { // most find nothing, and need not write
		nodes, err := s.deadNodes(r, boot)
		dead = len(nodes) > 0
		return err
	})
	if err != nil || !dead {
		return durable.Swept{}, err
	}
	var swept durable.Swept
	err = s.write(ctx, func(w *writer) error {
		swept, err = s.sweep(w, boot)
		return err
	})
	if err == nil && swept.Recovered > 0 {
		s.signals.send(durable.SignalTasks)
	}
	return swept, err
}

// endLeases ends the leases of those who had this process's place before: that
// it could be taken proves that they are dead, to whoever sweeps next.
func (s *Store) endLeases(ctx context.Context) error {
	return s.write(ctx, func(w *writer) error {
		_, err := w.exec(`UPDATE wake_node SET lease_until = -1 WHERE slot = ? AND lease_until IS NOT NULL`, s.slot.n)
		return err
	})
}

// A nodeRow is what a sweep looks at.
type nodeRow struct {
	boot       durable.Boot
	name       string
	slot       int
	machine    string
	leaseUntil int64
}

const nodeRows = `SELECT boot, name, slot, machine, lease_until FROM wake_node WHERE lease_until IS NOT NULL`

func nodeRowOf(row []driver.Value) nodeRow {
	return nodeRow{durable.Boot(idOf(row[0])), text(row[1]), int(integer(row[2])), text(row[3]), integer(row[4])}
}

// isDead reports whether a process is dead: its machine has been started
// anew, its place is free, or its lease has ended.
func (s *Store) isDead(n nodeRow, boot durable.Boot) bool {
	switch {
	case n.boot == boot:
		return false
	case n.machine != s.machine:
		return true
	case n.leaseUntil < s.leaseMicros(0):
		return true
	case n.slot == s.slot.n: // it was this process's, or a predecessor's
		return !s.boots.has(n.boot)
	}
	return s.slot.dead(n.slot)
}

// deadNodes finds those that are dead, and those of which nothing is known but
// that they hold tasks.
func (s *Store) deadNodes(x execer, boot durable.Boot) (dead []nodeRow, err error) {
	err = x.query(func(row []driver.Value) error {
		if n := nodeRowOf(row); s.isDead(n, boot) {
			dead = append(dead, n)
		}
		return nil
	}, nodeRows)
	if err != nil {
		return nil, err
	}
	err = x.query(func(row []driver.Value) error {
		if n := (nodeRow{boot: durable.Boot(idOf(row[0]))}); n.boot != boot {
			dead = append(dead, n)
		}
		return nil
	}, `SELECT DISTINCT boot FROM wake_task WHERE state = 2 AND boot NOT IN (SELECT boot FROM wake_node WHERE lease_until IS NOT NULL)`)
	return dead, err
}

func (s *Store) sweep(w *writer, boot durable.Boot) (durable.Swept, error) {
	var swept durable.Swept
	dead, err := s.deadNodes(w, boot)
	for _, n := range dead {
		if err == nil {
			err = s.bury(w, n, &swept)
		}
	}
	if err == nil {
		_, err = w.exec(`DELETE FROM wake_node WHERE ended_at < ?`, micros(s.clock.now().Add(-keptNodes)))
	}
	return swept, err
}

// bury takes the tasks of a dead process back.
func (s *Store) bury(w *writer, n nodeRow, swept *durable.Swept) error {
	var refs []durable.Ref
	var status []durable.Status
	var cancelled []bool
	err := w.query(func(row []driver.Value) error {
		cancelled = append(cancelled, row[6] != nil)
		refs = append(refs, durable.Ref{Seq: integer(row[0]), ID: idOf(row[1]), Fence: integer(row[2])})
		status = append(status, durable.Status{State: durable.Running, Fence: integer(row[2]), Attempt: int(integer(row[3])), Crashes: int(integer(row[4])), RunAt: timeOf(integer(row[5]))})
		return nil
	}, `SELECT seq, id, fence, attempt, crashes, run_at, cancel_at FROM wake_task WHERE state = 2 AND boot = ?`, n.boot)
	if err != nil {
		return err
	}
	now := s.clock.now()
	for i, ref := range refs {
		next, err := advance(status[i], durable.MoveCrash, now, 0, cancelled[i])
		if err != nil {
			return err
		}
		e := &durable.AttemptError{Attempt: status[i].Attempt, Cause: "crash", Message: "the process that ran it died, or was not heard of for longer than its lease", Node: n.name}
		if err := addError(w, ref.Seq, e, now); err != nil {
			return err
		}
		if _, err := w.exec(`UPDATE wake_task SET boot = NULL WHERE seq = ?`, ref.Seq); err != nil {
			return err
		}
		if next.State.Finished() {
			if next.State == durable.Dead {
				swept.Dead++
			}
			err = moveToDone(w, ref.Seq, next, now, nil)
		} else {
			swept.Recovered++
			err = putBack(w, ref.Seq, next)
		}
		if err != nil {
			return err
		}
	}
	swept.Nodes++
	return w.endNode(n.boot, now)
}

func (w *writer) endNode(boot durable.Boot, now time.Time) error {
	_, err := w.exec(`UPDATE wake_node SET lease_until = NULL, ended_at = ? WHERE boot = ?`, micros(now), boot)
	return err
}

// Unregister ends the lease of a process.
func (s *Store) Unregister(ctx context.Context, boot durable.Boot) error {
	err := s.write(ctx, func(w *writer) error { return w.endNode(boot, s.clock.now()) })
	if err == nil {
		s.boots.remove(boot)
		s.signals.send(durable.SignalSchedules)
	}
	return err
}

// Nodes returns the processes that have registered and are not known to be dead.
func (s *Store) Nodes(ctx context.Context) ([]durable.NodeInfo, error) {
	var all []durable.NodeInfo
	err := s.read(ctx, func(r *reader) error {
		return r.query(func(row []driver.Value) error {
			n := durable.NodeInfo{Node: durable.Node{
				Boot: durable.Boot(idOf(row[0])), Name: text(row[1]), Host: text(row[2]), PID: int(integer(row[3])), Version: text(row[4]),
				Worker: integer(row[5]) != 0, Lease: time.Duration(integer(row[8])) * time.Microsecond, Started: timeOf(integer(row[10])),
			}, Running: int(integer(row[11]))}
			n.LeaseUntil = s.clock.now().Add(time.Duration(integer(row[9])-s.leaseMicros(0)) * time.Microsecond)
			_ = json.Unmarshal([]byte(text(row[6])), &n.Kinds)
			_ = json.Unmarshal([]byte(text(row[7])), &n.Schedules)
			all = append(all, n)
			return nil
		}, `SELECT boot, name, host, pid, version, worker, kinds, schedules, lease, lease_until, started_at,
				(SELECT count(*) FROM wake_task t WHERE t.state = 2 AND t.boot = n.boot)
			FROM wake_node n WHERE lease_until IS NOT NULL`)
	})
	slices.SortFunc(all, func(a, b durable.NodeInfo) int { return a.Started.Compare(b.Started) })
	return all, err
}
