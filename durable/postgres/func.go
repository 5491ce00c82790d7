package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"runtime/debug"

	"github.com/wake-go/wake/durable"
)

// A funcConn is a transaction as a user's function sees it. Its statements end
// with the context of InTx: nobody shares the transaction.
type funcConn struct {
	*sql.Tx
	ctx context.Context
}

func (c funcConn) context(ctx context.Context) context.Context {
	if ctx.Err() != nil {
		return ctx // for a Row that carries its error
	}
	return c.ctx
}

func (c funcConn) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	return c.Tx.ExecContext(c.context(ctx), query, args...)
}

func (c funcConn) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	return c.Tx.QueryContext(c.context(ctx), query, args...)
}

func (c funcConn) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	return c.Tx.QueryRowContext(c.context(ctx), query, args...)
}

func (c funcConn) PrepareContext(ctx context.Context, query string) (*sql.Stmt, error) {
	return c.Tx.PrepareContext(c.context(ctx), query)
}

// InTx runs a function in a transaction of its own. One that lost to another
// transaction is run again.
func (s *Store) InTx(ctx context.Context, f *durable.Func) error {
	if ctx.Err() != nil {
		return fmt.Errorf("durable: postgres: run a function in a transaction: %w", context.Cause(ctx))
	}
	f.Err = explained(s.retried(ctx, func() error { return s.runFunc(ctx, f) }))
	if f.Err != nil {
		f.Inserted = nil
	} else if len(f.Inserts) > 0 {
		s.cursors.forget()
		s.tell(durable.SignalTasks)
	}
	return f.Err
}

func (s *Store) runFunc(ctx context.Context, f *durable.Func) error {
	db, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer db.Rollback() // does nothing after the commit
	tx := durable.NewSQLTx(funcConn{db, ctx}, f)
	err = called(f, tx)
	tx.End(durable.ErrTxDone)
	if err == nil {
		err = f.Err // of a task that could not be added
	}
	if err != nil {
		return err
	}
	if f.Inserted, err = s.insertAll(ctx, sqlTx{s, db}, f.Inserts, false); err != nil {
		return err
	}
	for _, in := range f.Inserted {
		if in.Err != nil {
			return in.Err
		}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return committed(db.Commit())
}

// called calls a function and returns whichever way it ends.
func called(f *durable.Func, tx *durable.SQLTx) (err error) {
	done := make(chan struct{})
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
	<-done
	return err
}
