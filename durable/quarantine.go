package durable

import "errors"

// A quarantine runs one at a time the tasks that one more crash would park as
// dead. All tasks in flight when a process dies are charged with the crash,
// the one that killed it and those that were beside it; alone, only the one
// that kills again is charged. The engine's lock guards it.
type quarantine struct {
	held    *run              // runs, or will when the others have been put back
	aside   map[*run]struct{} // put back, whose outcomes are not committed yet
	started bool
}

var errAside = errors.New("the task was running in crashes before: it waits until it can run without others like it")

// admit chooses from what has been claimed: what runs now, and what is put
// back. Once one is held, claims leave others out.
func (q *quarantine) admit(begun []*run) (now, aside []*run) {
	now = begun[:0]
	for _, r := range begun {
		switch {
		case !Suspect(r.claimed.Crashes):
			now = append(now, r)
		case q.held == nil:
			q.held, q.started = r, false
		default:
			aside = append(aside, r)
		}
	}
	for _, r := range aside {
		if q.aside == nil {
			q.aside = map[*run]struct{}{}
		}
		q.aside[r] = struct{}{}
	}
	return now, aside
}

// next returns the task to begin with, once nothing else is in danger.
func (q *quarantine) next() *run {
	if q.held == nil || q.started || len(q.aside) > 0 {
		return nil
	}
	q.started = true
	return q.held
}

// forget is told of every run that is over. It reports whether others may be
// claimed now.
func (q *quarantine) forget(r *run) (free bool) {
	delete(q.aside, r)
	if q.held != r {
		return false
	}
	q.held = nil
	return true
}

// putBack returns tasks to the queue, at no cost.
func putBack(aside []*run) {
	for _, r := range aside {
		r.abandon(Finish{Ref: r.claimed.Ref, Move: MoveRelease}, errAside)
	}
}
