package durable

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"sync"
)

// A Tx is a user's open transaction, in which a task can be added or finished.
// Make it with [SQL] or [Pgx].
type Tx struct {
	sql *sql.Tx
	pgx any
}

// SQL makes a Tx of database/sql's. It has to be on the database of the queue
// and, with SQLite, on a connection that the store has opened.
func SQL(tx *sql.Tx) Tx { return Tx{sql: tx} }

// Pgx makes a Tx of a pgx.Tx. The store's package knows what to do with it;
// this one does not import pgx.
func Pgx(tx any) Tx { return Tx{pgx: tx} }

// SQL returns what [SQL] was given, nil if this is another kind.
func (tx Tx) SQL() *sql.Tx { return tx.sql }

// Pgx returns what [Pgx] was given, nil if this is another kind.
func (tx Tx) Pgx() any { return tx.pgx }

// Conn is what an SQLTx runs its statements on: *sql.Tx, *sql.Conn.
type Conn interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
	PrepareContext(ctx context.Context, query string) (*sql.Stmt, error)
}

// An SQLTx is the transaction that [Queue.InTx] gives to a function. It has
// neither Commit nor Rollback: returning nil is one, an error the other. It is
// not safe for use by several goroutines, and ends with the function.
//
// With SQLite several functions share one transaction, each in a savepoint. A
// statement is not interrupted when its context ends, as that would take the
// others' rows with it; a context that has ended before is respected.
type SQLTx struct {
	conn Conn
	fn   *Func

	mu    sync.Mutex
	ended error
}

// NewSQLTx makes the transaction of one run of f. For stores.
func NewSQLTx(conn Conn, f *Func) *SQLTx {
	f.Inserts, f.Inserted, f.Err = nil, nil, nil
	return &SQLTx{conn: conn, fn: f}
}

// End ends the use of the transaction: what is called later fails with why. It
// waits for a statement in progress. For stores.
func (tx *SQLTx) End(why error) {
	tx.mu.Lock()
	defer tx.mu.Unlock()
	if tx.ended == nil {
		tx.ended = why
	}
}

func (tx *SQLTx) begin(ctx context.Context) (context.Context, error) {
	if tx.ended != nil {
		return nil, tx.ended
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return context.WithoutCancel(ctx), nil
}

// ExecContext is that of [sql.Tx].
func (tx *SQLTx) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	tx.mu.Lock()
	defer tx.mu.Unlock()
	ctx, err := tx.begin(ctx)
	if err != nil {
		return nil, err
	}
	return tx.conn.ExecContext(ctx, query, args...)
}

// QueryContext is that of [sql.Tx]. Rows left open are closed when the
// function returns.
func (tx *SQLTx) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	tx.mu.Lock()
	defer tx.mu.Unlock()
	ctx, err := tx.begin(ctx)
	if err != nil {
		return nil, err
	}
	return tx.conn.QueryContext(ctx, query, args...)
}

// QueryRowContext is that of [sql.Tx].
func (tx *SQLTx) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	tx.mu.Lock()
	defer tx.mu.Unlock()
	inner, err := tx.begin(ctx)
	if err != nil {
		// The one way to make a Row with an error is a context that has ended.
		ended, cancel := context.WithCancelCause(context.Background())
		cancel(err)
		return tx.conn.QueryRowContext(ended, query, args...)
	}
	return tx.conn.QueryRowContext(inner, query, args...)
}

// PrepareContext is that of [sql.Tx]. Close the statement before the function
// returns.
func (tx *SQLTx) PrepareContext(ctx context.Context, query string) (*sql.Stmt, error) {
	tx.mu.Lock()
	defer tx.mu.Unlock()
	ctx, err := tx.begin(ctx)
	if err != nil {
		return nil, err
	}
	return tx.conn.PrepareContext(ctx, query)
}

// Add adds a task to the transaction and returns its id. A task that cannot be
// added, whose argument cannot be encoded for one, fails the transaction.
func (tx *SQLTx) Add(job Queueable) ID {
	encode := tx.fn.encode
	if encode == nil {
		encode = func(job Queueable) (Insert, error) { return job.durableJob().insert() }
	}
	in, err := encode(job)
	tx.mu.Lock()
	defer tx.mu.Unlock()
	switch {
	case tx.ended != nil:
		return ID{} // the function is the store's no more, and has failed anyway
	case err == nil:
		tx.fn.Inserts = append(tx.fn.Inserts, in)
		return in.ID
	}
	if tx.fn.Err == nil {
		tx.fn.Err = fmt.Errorf("add a task in a transaction: %w", err)
	}
	return ID{}
}

// addInserts adds tasks that have been encoded.
func (tx *SQLTx) addInserts(in []Insert) error {
	tx.mu.Lock()
	defer tx.mu.Unlock()
	if tx.ended == nil {
		tx.fn.Inserts = append(tx.fn.Inserts, in...)
	}
	return tx.ended
}

// has reports whether a task has been added in the transaction.
func (tx *SQLTx) has(id ID) bool {
	tx.mu.Lock()
	defer tx.mu.Unlock()
	return slices.ContainsFunc(tx.fn.Inserts, func(in Insert) bool { return in.ID == id })
}
