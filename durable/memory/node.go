package memory

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/wake-go/wake/durable"
)

// defaultLease is that of a node which asks for none.
const defaultLease = 30 * time.Second

// node is a process that has registered.
type node struct {
	durable.Node
	until time.Time // when its lease ends
}

// Register implements [durable.Store]. No death is ever proved in memory: what
// ends is leases. A Lease of zero counts as 30 seconds.
func (s *Store) Register(ctx context.Context, n durable.Node) (durable.Registration, error) {
	if err := s.begin(ctx); err != nil {
		return durable.Registration{}, err
	}
	defer s.end()
	swept := s.sweep(n.Boot)
	if n.Name == "" {
		n.Name = "memory"
	}
	if n.Lease <= 0 {
		n.Lease = defaultLease
	}
	n.Name = s.freeName(n.Name, n.Boot)
	n.Kinds, n.Schedules = slices.Clone(n.Kinds), slices.Clone(n.Schedules)
	s.nodes[n.Boot] = &node{Node: n, until: s.at.Add(n.Lease)}
	s.raised |= durable.SignalSchedules // some may be declared now
	return durable.Registration{Name: n.Name, Swept: swept}, nil
}

// freeName appends a number to a name that another node has.
func (s *Store) freeName(want string, boot durable.Boot) string {
	taken := map[string]bool{}
	for _, n := range s.nodes {
		if n.Boot != boot {
			taken[n.Name] = true
		}
	}
	name := want
	for i := 2; taken[name]; i++ {
		name = fmt.Sprintf("%s-%d", want, i)
	}
	return name
}

// Beat implements [durable.Store].
func (s *Store) Beat(ctx context.Context, boot durable.Boot) (durable.BeatResult, error) {
	if err := s.begin(ctx); err != nil {
		return durable.BeatResult{}, err
	}
	defer s.end()
	n := s.nodes[boot]
	if n == nil {
		return durable.BeatResult{}, fmt.Errorf("durable: boot %v is not registered any more: %w", boot, durable.ErrLeaseLost)
	}
	n.until = s.at.Add(n.Lease)
	var res durable.BeatResult
	for r := range s.running[boot] {
		if !r.CancelledAt.IsZero() {
			res.Cancelled = append(res.Cancelled, r.ref())
		}
	}
	return res, nil
}

// Reconcile implements [durable.Store].
func (s *Store) Reconcile(ctx context.Context, boot durable.Boot, known []durable.Ref) (int, error) {
	if err := s.begin(ctx); err != nil {
		return 0, err
	}
	defer s.end()
	fences := make(map[durable.ID]int64, len(known))
	for _, ref := range known {
		fences[ref.ID] = ref.Fence
	}
	released := 0
	for r := range s.running[boot] {
		if fence, ok := fences[r.ID]; ok && fence == r.Fence {
			continue
		}
		if err := s.move(r, durable.MoveRelease, 0); err != nil {
			return released, err
		}
		released++
	}
	return released, nil
}

// Sweep implements [durable.Store].
func (s *Store) Sweep(ctx context.Context, boot durable.Boot) (durable.Swept, error) {
	if err := s.begin(ctx); err != nil {
		return durable.Swept{}, err
	}
	defer s.end()
	return s.sweep(boot), nil
}

func (s *Store) sweep(boot durable.Boot) durable.Swept {
	var swept durable.Swept
	for _, n := range s.nodes {
		if n.Boot == boot || s.at.Before(n.until) {
			continue
		}
		for r := range s.running[n.Boot] {
			attempt := r.Attempt
			if s.move(r, durable.MoveCrash, 0) != nil {
				continue
			}
			r.addError(durable.AttemptError{
				Attempt: attempt, Cause: "crash", Node: n.Name,
				Message: fmt.Sprintf("the process that ran it, %s, was not heard of for longer than its lease", n.Name),
			}, s.at)
			switch r.State {
			case durable.Ready:
				swept.Recovered++
			case durable.Dead:
				swept.Dead++
			}
		}
		swept.Nodes++
		s.forget(n.Boot)
	}
	return swept
}

// Unregister implements [durable.Store]. Tasks that boot holds in spite of
// what it should are released.
func (s *Store) Unregister(ctx context.Context, boot durable.Boot) error {
	if err := s.begin(ctx); err != nil {
		return err
	}
	defer s.end()
	for r := range s.running[boot] {
		if err := s.move(r, durable.MoveRelease, 0); err != nil {
			return err
		}
	}
	s.forget(boot)
	return nil
}

func (s *Store) forget(boot durable.Boot) {
	delete(s.nodes, boot)
	s.raised |= durable.SignalSchedules // some may not be declared any more
}

// Nodes implements [durable.Store].
func (s *Store) Nodes(ctx context.Context) ([]durable.NodeInfo, error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	defer s.end()
	var infos []durable.NodeInfo
	for _, n := range s.nodes {
		info := durable.NodeInfo{Node: n.Node, LeaseUntil: n.until, Running: len(s.running[n.Boot])}
		info.Kinds, info.Schedules = slices.Clone(n.Kinds), slices.Clone(n.Schedules)
		infos = append(infos, info)
	}
	slices.SortFunc(infos, func(a, b durable.NodeInfo) int { return cmp.Compare(a.Name, b.Name) })
	return infos, nil
}
