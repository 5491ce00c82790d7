package sqlite

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"sync"

	"github.com/gofrs/flock"

	"github.com/wake-go/wake/durable"
)

// A slot is a process's place beside the file: a lock on a file of its own,
// which the system gives back however the process ends. So a lock that can be
// taken proves that whoever held it is dead, which no process number does.
type slot struct {
	n    int
	path string // of the database
	lock *flock.Flock

	mu   sync.Mutex
	gate *flock.Flock // queues the writers of all processes; made when it is first needed
	held bool

	waiting  chan error // of the one wait for the gate, until it is over
	wanted   bool       // somebody waits for that
	released bool
}

// maxSlots is how many processes may have a file open.
const maxSlots = 64

// takeSlot takes the first free place.
func takeSlot(path string) (*slot, error) {
	for n := 1; n <= maxSlots; n++ {
		lock := newLock(slotPath(path, n))
		ok, err := lock.TryLock()
		if err != nil {
			return nil, fmt.Errorf("lock %s: %w", lock.Path(), err)
		}
		if ok {
			return &slot{n: n, path: path, lock: lock}, nil
		}
	}
	return nil, fmt.Errorf("%d processes have it open, which is as many as may", maxSlots)
}

func newLock(path string) *flock.Flock {
	return flock.New(path, flock.SetFlag(os.O_CREATE|os.O_RDWR), flock.SetPermissions(0o600))
}

func slotPath(path string, n int) string { return path + "-wake-" + strconv.Itoa(n) }

// dead reports whether nobody holds another place.
func (s *slot) dead(n int) bool {
	if n == s.n {
		return false
	}
	path := slotPath(s.path, n)
	if _, err := os.Stat(path); err != nil {
		return os.IsNotExist(err)
	}
	lock := newLock(path)
	ok, err := lock.TryLock()
	if ok {
		_ = lock.Unlock()
	}
	return ok && err == nil
}

// others reports whether another process has the file open.
func (s *slot) others() bool {
	for n := 1; n <= maxSlots; n++ {
		if n != s.n && !s.dead(n) {
			return true
		}
	}
	return false
}

// lockGate queues behind the writers of other processes.
func (s *slot) lockGate(ctx context.Context) error {
	s.mu.Lock()
	if s.gate == nil {
		s.gate = newLock(s.path + "-wake-lock")
	}
	gate, waiting := s.gate, s.waiting != nil
	s.mu.Unlock()
	ok, err := false, error(nil)
	if !waiting {
		ok, err = gate.TryLock()
	}
	if err == nil && !ok {
		err = s.waitForGate(ctx, gate)
	}
	if err != nil {
		return fmt.Errorf("durable: sqlite: %w: wait for the writers of other processes: %w", durable.ErrUnavailable, err)
	}
	s.mu.Lock()
	s.held = true
	s.mu.Unlock()
	return nil
}

// waitForGate waits in the system's queue, which is fair, and cannot be told
// to stop waiting. Whoever gives up leaves the wait to the next one; if there
// is none when the gate is got, it is given back.
func (s *slot) waitForGate(ctx context.Context, gate *flock.Flock) error {
	s.mu.Lock()
	s.wanted = true
	if s.waiting == nil {
		s.waiting = make(chan error, 1)
		go s.wait(gate, s.waiting)
	}
	got := s.waiting
	s.mu.Unlock()
	select {
	case err := <-got:
		return err
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case err := <-got: // in this very moment
		return err
	default:
	}
	s.wanted = false
	return context.Cause(ctx)
}

// wait waits for the gate until it is got, however long that takes.
func (s *slot) wait(gate *flock.Flock, got chan<- error) {
	err := gate.Lock()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting = nil
	switch {
	case s.wanted:
		s.wanted = false
		got <- err
	case s.released:
		_ = gate.Close()
	case err == nil:
		_ = gate.Unlock()
	}
}

func (s *slot) unlockGate() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held {
		s.held = false
		_ = s.gate.Unlock()
	}
}

// release gives the place to whoever wants it.
func (s *slot) release() {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.released = true
	if s.gate != nil && s.waiting == nil {
		_ = s.gate.Close()
	}
	_ = s.lock.Unlock() // the file stays: taking it away would let two lock it
}
