package background

import (
	"context"
	"net/http"
	"sync"
)

// A scope is the context of one request and its part of the task list, up to
// the outermost handler's return. It is cancelled with its parent, and by a
// task that is refused.
type scope struct {
	lazyContext
	runner *Runner
	tasks  Tasks // for a context that nobody has derived from

	mu        sync.Mutex
	sealed    bool // the outermost handler has returned
	held      bool // runs only if committed
	committed bool
	discarded bool
	late      bool  // takes its places when it is sealed, as a stream's does
	refused   error // of a task added with Add
	list      *list // nil until there is a task
	rare      *rare // becomes the list's
	id        string
	req       *http.Request // where the id comes from
}

func (r *Runner) newScope(req *http.Request) *scope {
	s := &scope{runner: r, req: req}
	s.base = req.Context()
	s.tasks = Tasks{scope: s, values: s.base}
	return s
}

func (s *scope) Value(key any) any {
	if key == (scopeKey{}) {
		return s
	}
	return s.lazyContext.Value(key)
}

// requestID does not hold the lock while it calls the user's function.
func (s *scope) requestID() string {
	id, l := s.givenID()
	if l != nil {
		return l.requestID()
	}
	if id != "" {
		return id
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.id == "" {
		s.id = randomID()
	}
	return s.id
}

// givenID returns the id that the request came with or that was made up for
// it, if it has one yet, or the list that knows it.
func (s *scope) givenID() (string, *list) {
	s.mu.Lock()
	id, req, l := s.id, s.req, s.list
	if !s.sealed {
		l = nil // it has not been told
	}
	s.mu.Unlock()
	if l != nil || id != "" || req == nil {
		return id, l
	}
	id = s.runner.cfg.requestID(req)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.id == "" {
		s.id = id
	}
	return s.id, nil
}

// add appends entries to the request's list, all or none.
func (s *scope) add(entries []entry) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.sealed:
		return ErrSealed
	case s.runner.closed.Load():
		return ErrClosed
	}
	if !s.late {
		if err := reserve(entries); err != nil {
			return err
		}
	}
	if s.list == nil {
		s.list = newList(s.runner)
	}
	s.list.append(entries)
	return nil
}

// refuse makes the operation fail with the error of a task that it added.
func (s *scope) refuse(err error) {
	s.mu.Lock()
	if s.refused == nil {
		s.refused = err
	}
	s.mu.Unlock()
	s.lazyContext.end(err)
}

func (s *scope) commit() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.sealed:
		return ErrSealed
	case s.refused != nil:
		return s.refused
	case s.list != nil && s.runner.closed.Load():
		return ErrClosed
	}
	s.committed = true
	return nil
}

// ending calls f when the list ends, or reports that it has.
func (s *scope) ending(f func()) (ended bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case !s.sealed:
		s.rare = s.rare.withEnd(f)
		return false
	case s.list == nil:
		return true
	}
	return s.list.ending(f)
}

// seal ends the request's part: nothing can be added any more, and what is to
// run is settled. It returns nil if that is nothing.
func (s *scope) seal(failed bool) *list {
	s.mu.Lock()
	asked := s.list != nil || s.rare != nil
	s.mu.Unlock()
	if asked {
		s.givenID() // calls the user's function, so without the lock
	}
	s.mu.Lock()
	s.sealed = true
	var dropped []entry
	var lost []*list
	if failed || s.discarded || s.refused != nil || s.held && !s.committed {
		lost = s.rare.takeNested()
		if s.list != nil {
			dropped = s.list.keepAlways(!s.late)
		}
	}
	if s.list == nil && s.rare != nil && len(s.rare.nested) > 0 {
		s.list = newList(s.runner)
	}
	if s.list != nil && len(s.list.entries) == 0 && (s.rare == nil || len(s.rare.nested) == 0) {
		s.list = nil
	}
	l, left, why := s.list, s.rare, s.refused
	s.rare = nil
	if l != nil {
		if s.late {
			l.takePlaces() // the answer is out: too late to refuse
		}
		l.rare, left = left, nil
		l.id, l.identified = s.id, true
		s.req = nil // the list may keep the scope, but not the request
	}
	s.mu.Unlock()

	if len(dropped) > 0 {
		s.runner.reportDropped(dropped, s.requestID(), why)
	}
	for _, n := range lost {
		n.drop(why)
	}
	left.callOnEnd()
	return l
}

// end seals the request's list and arranges for its release.
func (s *scope) end(w http.ResponseWriter, req *http.Request, outer *scope, failed bool) {
	l := s.seal(failed)
	s.lazyContext.end(nil)
	if l == nil {
		return
	}
	l.tied = outer != nil
	if err := s.runner.accept(l); err != nil {
		l.drop(err)
		return
	}
	if outer != nil {
		outer.nest(l)
		return
	}
	s.runner.releaseAfter(w, req, l)
}

// nest makes inner wait for the response of the request it is part of.
func (s *scope) nest(inner *list) {
	s.mu.Lock()
	late := s.sealed
	if !late {
		if s.rare == nil {
			s.rare = &rare{}
		}
		s.rare.nested = append(s.rare.nested, inner)
	}
	s.mu.Unlock()
	if late { // http.TimeoutHandler has answered in its place
		inner.drop(ErrSealed)
	}
}

// outerScope returns the scope of the request that ctx belongs to already.
func outerScope(ctx context.Context) *scope {
	s, _ := ctx.Value(scopeKey{}).(*scope)
	return s
}
