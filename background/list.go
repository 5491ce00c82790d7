package background

import (
	"sync"
	"time"
)

// A list is the tasks of one request, or one task outside of requests. While
// its request is being handled it belongs to the scope. It is kept small: it
// is what a waiting task costs.
type list struct {
	prev, next *list // in the runner's ring of accepted work
	runner     *Runner
	id         string        // the request's
	accepted   time.Duration // when, see Runner.since

	mu         sync.Mutex
	ended      bool
	identified bool  // belongs to a request, and so has an id
	tied       bool  // to an outer request, which may yet fail
	parked     bool  // at its end, but pinned
	pins       int32 // see Runner.Withdraw
	members    int32 // of the running group, not yet ended
	at         int   // the entry that is next
	entries    []entry
	rare       *rare
	first      [1]entry // room for the only task of most lists
}

// rare is what few lists have.
type rare struct {
	nested []*list
	onEnd  []func()
}

func (r *rare) withEnd(f func()) *rare {
	if r == nil {
		r = &rare{}
	}
	r.onEnd = append(r.onEnd, f)
	return r
}

func (r *rare) takeNested() (nested []*list) {
	if r != nil {
		nested, r.nested = r.nested, nil
	}
	return nested
}

func (r *rare) callOnEnd() {
	if r != nil {
		for _, f := range r.onEnd {
			callHook("OnEnd", f)
		}
	}
}

func newList(r *Runner) *list {
	l := &list{runner: r}
	l.entries = l.first[:0]
	return l
}

func (l *list) info(t *entry) Info {
	return Info{Name: t.name, RequestID: l.requestID(), Lane: t.lane.name}
}

// requestID makes up the id of a request that had none when somebody first
// asks for it, which for most nobody does.
func (l *list) requestID() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.id == "" && l.identified {
		l.id = randomID()
	}
	return l.id
}

// append adds entries, for which places have been reserved, and reuses the
// room of those that have run: a task may add itself for ever.
func (l *list) append(entries []entry) {
	if l.at > 0 && l.at*2 >= len(l.entries) {
		n := copy(l.entries, l.entries[l.at:])
		clear(l.entries[n:])
		l.entries, l.at = l.entries[:n], 0
	}
	l.entries = append(l.entries, entries...)
}

// ending calls f when the list ends, or reports that it has.
func (l *list) ending(f func()) (ended bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return true
	}
	l.rare = l.rare.withEnd(f)
	return false
}

// keepAlways drops the entries of a failed operation but those that always run.
func (l *list) keepAlways(placed bool) (dropped []entry) {
	kept := l.entries[:0]
	for _, e := range l.entries {
		if e.always {
			kept = append(kept, e)
		} else {
			dropped = append(dropped, e)
		}
	}
	clear(l.entries[len(kept):])
	l.entries = kept
	if placed {
		giveBack(dropped)
	}
	return dropped
}

// takePlaces takes a place for each task, be the lane full or not.
func (l *list) takePlaces() {
	for _, t := range flat(l.entries) {
		t.lane.places.Add(1)
	}
}

// drop gives up a list that has not been released.
func (l *list) drop(why error) {
	l.mu.Lock()
	left := l.take()
	l.mu.Unlock()
	l.runner.reportDropped(left, l.requestID(), why)
	for _, n := range l.end() {
		n.drop(why)
	}
}

// take removes what has not started and gives its places back. It is called
// with mu held.
func (l *list) take() []entry {
	left := append([]entry(nil), l.entries[l.at:]...)
	clear(l.entries[l.at:])
	l.entries = l.entries[:l.at]
	giveBack(left)
	return left
}

// end ends the list, once, and returns lists that still waited for it.
func (l *list) end() (nested []*list) {
	l.mu.Lock()
	if l.ended {
		l.mu.Unlock()
		return nil
	}
	l.ended = true
	left := l.rare
	l.rare = nil
	l.mu.Unlock()
	left.callOnEnd()
	l.runner.remove(l)
	return left.takeNested()
}

// release starts the tasks: the response has been sent.
func (l *list) release() {
	l.mu.Lock()
	l.tied = false
	nested := l.rare.takeNested()
	l.mu.Unlock()
	for _, n := range nested {
		n.release()
	}
	l.advance()
}

// advance hands the list to the lane of its next task, or ends it.
func (l *list) advance() {
	l.mu.Lock()
	if l.at == len(l.entries) {
		l.parked = l.pins > 0
		parked := l.parked
		l.mu.Unlock()
		if !parked {
			l.end()
		}
		return
	}
	t := l.entries[l.at]
	if t.group == nil {
		l.mu.Unlock()
		t.lane.push(l)
		return
	}
	l.entries[l.at] = entry{}
	l.at++
	group := *t.group
	l.members = int32(len(group))
	l.mu.Unlock()
	for i := range group {
		group[i].lane.push(&member{l, &group[i]})
	}
}

// runIn runs the tasks that are next for as long as they belong to the
// worker's lane.
func (l *list) runIn(w *worker) {
	for {
		l.mu.Lock()
		if l.at == len(l.entries) || l.entries[l.at].lane != w.lane {
			l.mu.Unlock()
			l.advance()
			return
		}
		t := l.entries[l.at]
		l.entries[l.at] = entry{} // the task's argument is garbage once it has run
		l.at++
		l.mu.Unlock()
		w.run(l, &t, func(goexit bool) {
			if goexit {
				l.advance()
			}
		})
	}
}

// A member is a task of a group: it runs beside the others, and the list goes
// on when all have ended.
type member struct {
	list *list
	task *entry
}

func (m *member) runIn(w *worker) {
	w.run(m.list, m.task, func(bool) { m.end() })
}

func (m *member) end() {
	m.list.mu.Lock()
	m.list.members--
	last := m.list.members == 0
	m.list.mu.Unlock()
	if last {
		m.list.advance()
	}
}
