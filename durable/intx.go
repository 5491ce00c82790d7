package durable

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
)

// A PanicError is the error of a function that panicked.
type PanicError struct {
	Value any
	Stack []byte // of the goroutine at the panic
}

func (e *PanicError) Error() string { return fmt.Sprintf("panic: %v", e.Value) }

// Unwrap returns the panic's value if it is an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

// ErrGoexit is the error of a function that ended its goroutine instead of
// returning.
var ErrGoexit = errors.New("it called runtime.Goexit")

// AddTx adds a task in a user's open transaction, which has to be on the
// queue's database: the task exists if and when that is committed. Another
// transaction is an error that matches [ErrForeignTx].
func (q *Queue) AddTx(ctx context.Context, tx *sql.Tx, job Queueable) (ID, error) {
	return q.AddIn(ctx, SQL(tx), job)
}

// AddIn is [Queue.AddTx] for any transaction that the store knows.
func (q *Queue) AddIn(ctx context.Context, tx Tx, job Queueable) (ID, error) {
	in, err := q.encode(ctx, job)
	if err != nil {
		return ID{}, err
	}
	inserted, err := q.store.InsertTx(ctx, tx, []Insert{in})
	if err != nil {
		return ID{}, fmt.Errorf("durable: add %q in a transaction: %w", in.Kind, err)
	}
	return addedID(in, inserted[0])
}

// InTx runs fn in a transaction on the queue's database and commits what it
// writes together with the tasks it adds, or nothing of it: fn's error, which
// InTx returns, rolls back, and so do a panic (a [*PanicError]) and
// [runtime.Goexit] ([ErrGoexit]). Like [Queue.Add], it returns when the commit is durable.
//
// Fn may run more than once, so it must have no effects but in the
// transaction, and it should be short: with SQLite it shares a transaction
// with other callers.
//
// With the context that fn gets, Add, AddAll, Commit and InTx of this queue
// join the open transaction. An InTx inside another one is part of it: its
// error is returned to the outer function, and undoes something only if that
// one returns an error as well. Waiting for a task that was added inside
// returns [ErrNotCommitted]. The context goes back to being an ordinary one
// when fn returns.
func (q *Queue) InTx(ctx context.Context, fn func(ctx context.Context, tx *SQLTx) error) error {
	if j := joinedIn(ctx, q); j != nil {
		return fn(ctx, j.tx)
	}
	outer, _ := ctx.Value(joinKey{}).(*joined)
	f := &Func{encode: func(job Queueable) (Insert, error) { return q.encode(ctx, job) }}
	f.Run = func(tx *SQLTx) error {
		j := &joined{q: q, tx: tx, outer: outer}
		defer j.end()
		return isolated(func() error { return fn(context.WithValue(ctx, joinKey{}, j), tx) })
	}
	if err := q.batcher.call(ctx, f); err != nil {
		return fmt.Errorf("durable: transaction: %w", err)
	}
	return nil
}

// isolated runs a user's function where a panic and a Goexit cannot harm the
// commit that it is part of.
func isolated(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		err := ErrGoexit
		defer func() {
			if v := recover(); v != nil {
				err = &PanicError{Value: v, Stack: debug.Stack()}
			}
			done <- err
		}()
		err = fn()
	}()
	return <-done
}

// joined is an open transaction that calls with its context become part of.
type joined struct {
	q     *Queue
	outer *joined // another queue's
	tx    *SQLTx

	mu   sync.Mutex
	over bool
}

func joinedIn(ctx context.Context, q *Queue) *joined {
	j, _ := ctx.Value(joinKey{}).(*joined)
	for ; j != nil; j = j.outer {
		if j.q == q && j.open() {
			return j
		}
	}
	return nil
}

// Joined reports whether ctx is that of a function given to [Queue.InTx] which
// runs in a transaction on s: another one on s would wait for that. For stores.
func Joined(ctx context.Context, s Store) bool {
	j, _ := ctx.Value(joinKey{}).(*joined)
	for ; j != nil; j = j.outer {
		if j.q.store == s && j.open() {
			return true
		}
	}
	return false
}

func (j *joined) open() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return !j.over
}

func (j *joined) end() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.over = true
}

func (j *joined) add(inserts []Insert) ([]Inserted, error) {
	if err := j.tx.addInserts(inserts); err != nil {
		return nil, fmt.Errorf("durable: add in a transaction: %w", err)
	}
	inserted := make([]Inserted, len(inserts))
	for i := range inserts {
		inserted[i].ID = inserts[i].ID
	}
	return inserted, nil
}
