package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/wake-go/wake/durable"
)

// errOverBudget is what the statements of a function get that takes too long
// for a transaction that it shares.
var errOverBudget = fmt.Errorf("durable: sqlite: the function took too long for a transaction that it shares with others: %w", durable.ErrApart)

var errNoTimeLeft = fmt.Errorf("durable: sqlite: the functions before this one took the time of the transaction that they share: %w", durable.ErrApart)

// A funcConn is the writer as a user's function sees it. Its context ends with
// the function, so that database/sql closes what was left open, and when the
// function takes too long. A user's own context must not interrupt a statement:
// that could roll back everybody's rows.
type funcConn struct {
	*sql.Conn
	ctx context.Context
}

func (c funcConn) context(ctx context.Context) context.Context {
	if ctx.Err() != nil {
		return ctx // for a Row that carries its error
	}
	return c.ctx
}

func (c funcConn) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	return c.Conn.ExecContext(c.context(ctx), query, args...)
}

func (c funcConn) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	return c.Conn.QueryContext(c.context(ctx), query, args...)
}

func (c funcConn) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	return c.Conn.QueryRowContext(c.context(ctx), query, args...)
}

func (c funcConn) PrepareContext(ctx context.Context, query string) (*sql.Stmt, error) {
	return c.Conn.PrepareContext(c.context(ctx), query)
}

// runFunc runs a function on the writer, for as long as the budget allows. The
// function may go on after that, but none of its statements will.
func (s *Store) runFunc(w *writer, f *durable.Func, budget time.Duration) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	w.conn.beginFunc()
	defer w.conn.endFunc()
	tx := durable.NewSQLTx(funcConn{w.sql, ctx}, f)
	done := make(chan struct{})
	f.Earlier = done
	var err error
	go func() {
		defer close(done)
		err = errors.New("durable: the function given to InTx called runtime.Goexit")
		defer func() {
			if v := recover(); v != nil {
				err = fmt.Errorf("durable: the function given to InTx panicked: %v\n%s", v, debug.Stack())
			}
		}()
		err = f.Run(tx)
	}()
	timer := time.NewTimer(budget)
	defer timer.Stop()
	select {
	case <-done:
		tx.End(durable.ErrTxDone)
		f.Earlier = nil
		if err == nil {
			err = f.Err // of a task that could not be added
		}
		if err == nil {
			err = w.conn.intact()
		}
		return err
	case <-timer.C:
		cancel()              // interrupts a statement that runs,
		tx.End(errOverBudget) // and this waits for its end
		return errOverBudget
	}
}

// InTx runs a function in a transaction of its own.
func (s *Store) InTx(ctx context.Context, f *durable.Func) error {
	if s.ended.Err() != nil {
		return durable.ErrClosed
	}
	if ctx.Err() != nil {
		return fmt.Errorf("durable: sqlite: run a function in a transaction: %w", context.Cause(ctx))
	}
	if s.ballast.missing() {
		return errDiskFull()
	}
	if f.Earlier != nil {
		select {
		case <-f.Earlier:
		case <-ctx.Done():
			return fmt.Errorf("durable: sqlite: the function given to InTx, which was given up, has not returned: %w", context.Cause(ctx))
		}
	}
	if err := s.enter(ctx, false); err != nil {
		f.Err = err
		return err
	}
	defer s.leave()
	w := s.writer
	f.Err = explained(w.transact(func() error {
		if err := s.runFunc(w, f, s.cfg.MaxFunc); err != nil {
			if errors.Is(err, durable.ErrApart) {
				return fmt.Errorf("durable: sqlite: the function given to InTx took longer than %v, during which nobody else could write; it is rolled back: %w", s.cfg.MaxFunc, context.DeadlineExceeded)
			}
			return err
		}
		var err error
		if f.Inserted, err = insertAll(w, f.Inserts, s.clock.now(), false, nil); err != nil {
			return err
		}
		return firstError(f.Inserted)
	}))
	if f.Err != nil {
		f.Inserted = nil
	} else if len(f.Inserts) > 0 {
		s.signals.send(durable.SignalTasks)
	}
	return f.Err
}
