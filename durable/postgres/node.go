package postgres

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/wake-go/wake/durable"
)

// lockKey is the number of the advisory lock that a process holds for as long
// as its session lives. A boot's last bytes are random.
func lockKey(boot durable.Boot) int64 { return int64(binary.BigEndian.Uint64(boot[8:])) &^ 1 }

// A lease that has been lost, of a process whose tasks are being taken back.
const lost = `'-infinity'`

// nodeLock serializes the choice of a node's name.
const nodeLock = 0x77616b65_00000002

// Register makes a process known, and takes back what its predecessors held.
func (s *Store) Register(ctx context.Context, n durable.Node) (durable.Registration, error) {
	reg := durable.Registration{Name: n.Name}
	if n.Lease <= 0 {
		return reg, fmt.Errorf("durable: postgres: the lease of %v is %v; it must be positive", n.Boot, n.Lease)
	}
	var err error
	if reg.Swept, err = s.Sweep(ctx, n.Boot); err != nil {
		return reg, err
	}
	err = s.write(ctx, func(db pgx.Tx) error {
		r := tx{s, db}
		if err := r.run(ctx, nil, `SELECT pg_advisory_xact_lock($1)`, int64(nodeLock)); err != nil {
			return err
		}
		if reg.Name, err = freeName(ctx, r, n.Name); err != nil {
			return err
		}
		return r.run(ctx, nil, `INSERT INTO wake.node (boot, name, host, pid, version, worker, kinds, schedules, lease, lease_until, started_at)
			VALUES ($2, $3, $4, $5, $6, $7, coalesce($8::text[], '{}'), coalesce($9::text[], '{}'), $10::bigint * interval '1 microsecond',
				`+clock+` + $10::bigint * interval '1 microsecond', coalesce($11, `+clock+`))`,
			s.clockArg(), n.Boot[:], reg.Name, n.Host, n.PID, n.Version, n.Worker, n.Kinds, n.Schedules, n.Lease.Microseconds(), nullable(n.Started))
	})
	if err != nil {
		return reg, err
	}
	s.line.hold(n.Boot)
	s.tell(durable.SignalSchedules | durable.SignalTasks)
	return reg, nil
}

// freeName returns a name that no living process has.
func freeName(ctx context.Context, r runner, name string) (string, error) {
	taken := map[string]bool{}
	err := r.run(ctx, func(row row) error {
		var name string
		err := row.Scan(&name)
		taken[name] = true
		return err
	}, `SELECT name FROM wake.node WHERE lease_until IS NOT NULL`)
	form := name + "-%d"
	if name == "" {
		name, form = "node-1", "node-%d"
	}
	free := name
	for i := 2; taken[free]; i++ {
		free = fmt.Sprintf(form, i)
	}
	return free, err
}

const (
	renewLease = `UPDATE wake.node SET lease_until = ` + clock + ` + lease, lock_key = $3::bigint
		WHERE boot = $2::uuid AND lease_until > ` + lost + ` RETURNING 1`

	cancelledTasks = `SELECT id::text, fence FROM wake.task WHERE cancel_at IS NOT NULL AND state = 2 AND boot = $1::uuid`
)

// Beat renews a lease.
func (s *Store) Beat(ctx context.Context, boot durable.Boot) (durable.BeatResult, error) {
	var res durable.BeatResult
	var key *int64
	if s.line.holds(boot) {
		k := lockKey(boot)
		key = &k
	}
	renewed := false
	err := s.pipelined(ctx, func(p *pipeline) error {
		res, renewed = durable.BeatResult{}, false
		if err := p.run(ctx, func(row) error { renewed = true; return nil }, renewLease, s.clockArg(), boot[:], key); err != nil {
			return err
		}
		return p.run(ctx, func(row row) error {
			ref, err := scanRef(row)
			res.Cancelled = append(res.Cancelled, ref)
			return err
		}, cancelledTasks, boot[:])
	})
	if err == nil && !renewed {
		s.line.drop(boot)
		err = fmt.Errorf("durable: postgres: %v: %w", boot, durable.ErrLeaseLost)
	}
	return res, explained(err)
}

func scanRef(row row) (ref durable.Ref, err error) {
	var id string
	if err := row.Scan(&id, &ref.Fence); err != nil {
		return ref, err
	}
	ref.ID, err = durable.ParseID(id)
	return ref, err
}

// Reconcile returns what a process has claimed without knowing. A task that a
// user's open transaction is finishing is left to the next time.
func (s *Store) Reconcile(ctx context.Context, boot durable.Boot, known []durable.Ref) (released int, err error) {
	mine := make(map[durable.Ref]bool, len(known))
	for _, ref := range known {
		mine[durable.Ref{ID: ref.ID, Fence: ref.Fence}] = true
	}
	err = s.write(ctx, func(db pgx.Tx) error {
		released, err = s.release(ctx, tx{s, db}, boot, func(ref durable.Ref) bool { return mine[ref] })
		return err
	})
	if err == nil && released > 0 {
		s.cursors.forget()
		s.line.notify(durable.SignalTasks)
	}
	return released, err
}

// release returns a process's tasks, but for some, at no cost.
func (s *Store) release(ctx context.Context, r runner, boot durable.Boot, but func(durable.Ref) bool) (int, error) {
	var unknown []durable.Finish
	err := r.run(ctx, func(row row) error {
		ref, err := scanRef(row)
		if !but(ref) {
			unknown = append(unknown, durable.Finish{Ref: ref, Move: durable.MoveRelease})
		}
		return err
	}, `SELECT id::text, fence FROM wake.task WHERE state = 2 AND boot = $1::uuid`, boot[:])
	if err != nil || len(unknown) == 0 {
		return 0, err
	}
	ok := make([]bool, len(unknown))
	err = s.finish(ctx, r, boot, unknown, ok)
	released := 0
	for _, ok := range ok {
		if ok {
			released++
		}
	}
	return released, err
}

// Unregister ends the lease of a process. Tasks that it should still have are
// returned.
func (s *Store) Unregister(ctx context.Context, boot durable.Boot) error {
	err := s.write(ctx, func(db pgx.Tx) error {
		r := tx{s, db}
		if _, err := s.release(ctx, r, boot, func(durable.Ref) bool { return false }); err != nil {
			return err
		}
		return s.endNode(ctx, r, boot)
	})
	if err == nil {
		s.cursors.forget()
		s.line.drop(boot)
		s.tell(durable.SignalSchedules)
	}
	return err
}

// endNode ends a process's lease, unless it still has tasks, which others hold:
// then it waits for a sweep.
func (s *Store) endNode(ctx context.Context, r runner, boot durable.Boot) error {
	return r.run(ctx, nil, `UPDATE wake.node SET ended_at = `+clock+`, lock_key = NULL,
			lease_until = CASE WHEN EXISTS (SELECT 1 FROM wake.task WHERE state = 2 AND boot = $2::uuid) THEN timestamptz `+lost+` END
		WHERE boot = $2::uuid`, s.clockArg(), boot[:])
}

// Nodes returns the processes that have registered and are not known to be dead.
func (s *Store) Nodes(ctx context.Context) ([]durable.NodeInfo, error) {
	var all []durable.NodeInfo
	err := s.read(ctx, func(r runner) error {
		all = nil
		return r.run(ctx, func(row row) error {
			var n durable.NodeInfo
			var boot string
			var lease int64
			if err := row.Scan(&boot, &n.Name, &n.Host, &n.PID, &n.Version, &n.Worker, &n.Kinds, &n.Schedules, &lease, &n.LeaseUntil, &n.Started, &n.Running); err != nil {
				return err
			}
			id, err := durable.ParseID(boot)
			n.Boot, n.Lease = durable.Boot(id), time.Duration(lease)*time.Microsecond
			n.LeaseUntil, n.Started = n.LeaseUntil.UTC(), n.Started.UTC()
			all = append(all, n)
			return err
		}, `SELECT boot::text, name, host, pid, version, worker, kinds, schedules, (extract(epoch FROM lease) * 1000000)::bigint, lease_until, started_at,
				(SELECT count(*) FROM wake.task t WHERE t.state = 2 AND t.boot = n.boot)
			FROM wake.node n WHERE lease_until > `+lost)
	})
	slices.SortFunc(all, func(a, b durable.NodeInfo) int { return a.Started.Compare(b.Started) })
	return all, err
}
