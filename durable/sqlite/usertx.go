package sqlite

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"

	"modernc.org/sqlite"

	"github.com/wake-go/wake/durable"
)

// A userTx runs the store's statements in a user's transaction.
type userTx struct {
	ctx context.Context
	tx  *sql.Tx
}

// connectionFunc is the SQL function by which a connection proves to be the
// store's.
func (s *Store) connectionFunc(*sqlite.FunctionContext, []driver.Value) (driver.Value, error) {
	return s.nonce, nil
}

// userTx checks that a transaction is on one of the store's connections. On
// any other, even on the same file, its rows could get lost, and nobody would
// hear of them.
func (s *Store) userTx(ctx context.Context, tx durable.Tx) (*userTx, error) {
	if tx.SQL() == nil {
		return nil, fmt.Errorf("durable: sqlite: %w: it takes a *sql.Tx, begun on the *sql.DB that the store returns", durable.ErrForeignTx)
	}
	var nonce string
	err := tx.SQL().QueryRowContext(ctx, addsQuery).Scan(&nonce)
	switch {
	case err == nil && nonce == s.nonce:
		return &userTx{ctx, tx.SQL()}, nil
	case errors.Is(err, sql.ErrTxDone):
		return nil, fmt.Errorf("durable: sqlite: %w: %w", durable.ErrTxDone, err)
	case errors.Is(err, durable.ErrTxDone), errors.Is(err, durable.ErrUnavailable), err != nil && ctx.Err() != nil:
		return nil, explained(err)
	}
	return nil, fmt.Errorf("durable: sqlite: %w: begin the transaction on the *sql.DB that the store returns", durable.ErrForeignTx)
}

func (u *userTx) args(args []any) []any {
	for i := range args {
		args[i] = value(args[i])
	}
	return args
}

func (u *userTx) exec(query string, args ...any) (int64, error) {
	res, err := u.tx.ExecContext(u.ctx, query, u.args(args)...)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

func (u *userTx) insert(query string, args ...any) (int64, error) {
	res, err := u.tx.ExecContext(u.ctx, query, u.args(args)...)
	if err != nil {
		return 0, err
	}
	return res.LastInsertId()
}

func (u *userTx) query(f func([]driver.Value) error, query string, args ...any) error {
	rows, err := u.tx.QueryContext(u.ctx, query, u.args(args)...)
	if err != nil {
		return err
	}
	defer rows.Close()
	names, err := rows.Columns()
	if err != nil {
		return err
	}
	for rows.Next() {
		row, into := make([]driver.Value, len(names)), make([]any, len(names))
		for i := range row {
			into[i] = (*any)(&row[i])
		}
		if err := rows.Scan(into...); err != nil {
			return err
		}
		if err := f(row); err != nil {
			return err
		}
	}
	return rows.Err()
}

func (u *userTx) one(query string, args ...any) (n int64, ok bool, err error) {
	err = u.query(func(row []driver.Value) error {
		n, ok = row[0].(int64)
		return nil
	}, query, args...)
	return n, ok, err
}

func (u *userTx) lane(queue, kind string) (int64, error) {
	id, ok, err := u.one(`SELECT id FROM wake_lane WHERE queue = ? AND kind = ?`, queue, kind)
	if err != nil || ok {
		return id, err
	}
	return u.insert(`INSERT INTO wake_lane (queue, kind) VALUES (?, ?)`, queue, kind)
}

func (u *userTx) inserted(int64, durable.State, int64) {} // the writer sees that the file has changed
