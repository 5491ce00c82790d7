package durable

import (
	"errors"
	"fmt"
	"time"
)

// Errors of queues and stores, to be compared with [errors.Is].
var (
	ErrNotFound  = errors.New("no such task or schedule")
	ErrState     = errors.New("its state does not allow it")
	ErrDuplicate = errors.New("another unfinished task has its key")
	ErrUnknown   = errors.New("it is not known whether this was committed")
	ErrFull      = errors.New("the disk is full")
	ErrClosed    = errors.New("the queue is closed")
	ErrTooLarge  = errors.New("it is too large")
	ErrTxDone    = errors.New("the transaction has ended")
	ErrForeignTx = errors.New("the transaction is not on the queue's database")
	ErrNoKind    = errors.New("no task of this program handles it")

	// ErrApart says that a function cannot share a transaction: it is to be
	// run by Store.InTx.
	ErrApart = errors.New("it needs a transaction of its own")

	// ErrUnavailable is matched by every error of a store that may be gone
	// when the same is tried again: a lock, a lost connection, a full disk.
	ErrUnavailable = errors.New("the task store is not available")

	// ErrNotCommitted is what waiting for a task returns in the operation that
	// adds it: it exists only when that has returned.
	ErrNotCommitted = errors.New("the task is committed when the operation that adds it returns; it cannot be waited for before")
)

// Causes with which a task's context ends, see [context.Cause].
var (
	ErrTimeout   = errors.New("the task's time limit is over")
	ErrCancelled = errors.New("somebody cancelled the task")
	ErrLeaseLost = errors.New("the process was not heard of for longer than its lease: others may run the task now")
	ErrDraining  = errors.New("the worker stops")
)

// snooze asks for a task to be run later.
type snooze struct{ delay time.Duration }

func (s *snooze) Error() string { return fmt.Sprintf("snoozed for %v", s.delay) }

// Snooze returns an error with which a handler asks to be run again after d,
// which costs no attempt. A negative d counts as none.
func Snooze(d time.Duration) error { return &snooze{max(0, d)} }

// permanent marks an error that no other attempt will change.
type permanent struct{ err error }

func (p *permanent) Error() string { return p.err.Error() }
func (p *permanent) Unwrap() error { return p.err }

// Cancel returns an error with which a handler says that there is no sense in
// another attempt: the task is dead, with err as its reason. A nil err panics.
func Cancel(err error) error {
	if err == nil {
		panic("durable: Cancel needs the error that is the reason")
	}
	return &permanent{err}
}
