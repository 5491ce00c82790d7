package background

import (
	"context"
	"slices"
)

// A Withdrawn is a task that was taken back before it had started.
type Withdrawn struct {
	Info
	Handoff any             // as given when it was added
	Values  context.Context // the context it was added with

	// Stay is set by who takes the tasks, for one that must go on here.
	Stay bool
}

// Withdraw takes back the tasks with a Handoff that have been accepted and have
// not started, and gives them to take, which runs them elsewhere: in a process
// that lives longer than this one. They come in the order in which their
// requests ended, and a request's in the order they were added. It includes
// tasks that wait for their response to be sent, and those of groups.
//
// When take returns nil the tasks have ended here, and count as Withdrawn, but
// for those that it has told to Stay. When it returns an error all of them stay,
// and Withdraw returns the error. What stays runs before what is left of its
// request's. Meanwhile a drain, and
// [Tasks.OnEnd], wait for take. It is not called when there is nothing to take.
//
// Not taken are tasks without a Handoff, those of a request that is being
// handled, and those that an outer request may yet give up.
func (r *Runner) Withdraw(take func([]Withdrawn) error) error {
	members := r.takeMembers() // first: their lists are in the ring for as long as they are missing
	lists := r.accepted()
	var tasks []Withdrawn
	taken := make([][]entry, len(lists))
	for i, l := range lists {
		if taken[i] = l.withdraw(members[l]); len(taken[i]) == 0 {
			continue
		}
		for j := range taken[i] {
			t := &taken[i][j]
			tasks = append(tasks, Withdrawn{Info: l.info(t), Handoff: t.handoff, Values: t.values})
		}
	}
	if len(tasks) == 0 {
		return nil
	}
	err := ErrGoexit // stands if take neither returns nor panics
	defer func() {
		next := 0
		for i, l := range lists {
			n := len(taken[i])
			if n > 0 {
				l.settleWithdrawal(taken[i], tasks[next:next+n], err == nil)
			}
			next += n
		}
	}()
	err = call(r.base, func(context.Context) error { return take(tasks) })
	return err
}

// accepted returns the lists in the ring.
func (r *Runner) accepted() (lists []*list) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for l := r.ring.next; l != &r.ring; l = l.next {
		lists = append(lists, l)
	}
	return lists
}

// takeMembers takes the members of groups that wait in a lane. Their lists
// stay in the ring until the members have ended.
func (r *Runner) takeMembers() map[*list][]*member {
	taken := map[*list][]*member{}
	for _, l := range r.lanes {
		for _, m := range l.takeMembers() {
			taken[m.list] = append(taken[m.list], m)
		}
	}
	return taken
}

func (l *lane) takeMembers() (taken []*member) {
	l.mu.Lock()
	defer l.mu.Unlock()
	kept := l.queue.items[:l.queue.head]
	for _, u := range l.queue.items[l.queue.head:] {
		if m, ok := u.(*member); ok && m.task.handoff != nil {
			taken = append(taken, m)
		} else {
			kept = append(kept, u)
		}
	}
	clear(l.queue.items[len(kept):])
	l.queue.items = kept
	return taken
}

// withdraw takes what can be handed off, gives its places back and pins the
// list, which then does not end.
func (l *list) withdraw(members []*member) (taken []entry) {
	l.mu.Lock()
	if !l.tied && !l.ended {
		for _, m := range members {
			taken = append(taken, *m.task)
		}
		taken = append(taken, l.takeHandoffs()...)
	}
	if len(taken) > 0 {
		l.pins++
	}
	l.mu.Unlock()
	giveBack(taken)
	for _, m := range members {
		m.end()
	}
	return taken
}

// takeHandoffs is called with mu held.
func (l *list) takeHandoffs() (taken []entry) {
	canBe := func(e entry) bool { return e.handoff != nil }
	kept := l.entries[:l.at]
	for _, e := range l.entries[l.at:] {
		if e.group != nil {
			group := slices.Clone(*e.group)
			for _, t := range group {
				if canBe(t) {
					taken = append(taken, t)
				}
			}
			if group = slices.DeleteFunc(group, canBe); len(group) > 0 {
				kept = append(kept, entry{group: &group, always: e.always})
			}
			continue
		}
		if canBe(e) {
			taken = append(taken, e)
		} else {
			kept = append(kept, e)
		}
	}
	clear(l.entries[len(kept):])
	l.entries = kept
	return taken
}

// settleWithdrawal forgets tasks that run elsewhere now, or puts them back.
func (l *list) settleWithdrawal(taken []entry, said []Withdrawn, ok bool) {
	var left []entry
	for i := range taken {
		if !ok || said[i].Stay {
			left = append(left, taken[i])
		}
	}
	l.runner.withdrawn.Add(uint64(len(taken) - len(left)))
	l.mu.Lock()
	var late []entry // a drain has given everything up meanwhile
	if l.runner.closed.Load() {
		late = left
	} else {
		for i := range left {
			left[i].lane.places.Add(1)
		}
		l.entries = slices.Insert(l.entries, l.at, left...)
	}
	l.pins--
	resume := l.parked && l.pins == 0
	l.parked = l.parked && !resume
	l.mu.Unlock()
	for i := range late {
		l.runner.abandon(l.abandoned(&late[i]))
	}
	if resume {
		l.advance()
	}
}
