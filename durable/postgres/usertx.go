package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/wake-go/wake/durable"
)

// identityQuery tells one database, and the schema in it, from every other. A
// role that may not know the server's own number does without.
const (
	identityQuery = `SELECT concat_ws('/', current_database(), (SELECT oid FROM pg_database WHERE datname = current_database()),
		coalesce(to_regclass($1)::oid, 0), %s)`
	identityNumber = `(SELECT system_identifier FROM pg_control_system())`
)

// identify returns what userTx compares.
func (s *Store) identify(ctx context.Context) (identity string, err error) {
	var may bool
	if err := s.pool.QueryRow(ctx, `SELECT has_function_privilege('pg_control_system()', 'execute')`).Scan(&may); err != nil {
		return "", err
	}
	number := `''`
	if may {
		number = identityNumber
	}
	s.identityQuery = fmt.Sprintf(identityQuery, number)
	err = s.pool.QueryRow(ctx, s.identityQuery, s.schema+".task").Scan(&identity)
	return identity, err
}

// userTx checks that a transaction is on the store's database.
func (s *Store) userTx(ctx context.Context, user durable.Tx) (r runner, err error) {
	if s.ended.Err() != nil {
		return nil, durable.ErrClosed
	}
	if db := user.SQL(); db != nil {
		r = sqlTx{s, db}
	} else if db, ok := user.Pgx().(pgx.Tx); ok {
		r = tx{s, db}
	} else {
		return nil, fmt.Errorf("durable: postgres: %w: it takes a *sql.Tx of the pgx driver, or a pgx.Tx", durable.ErrForeignTx)
	}
	var identity string
	_, err = one(ctx, r, []any{&identity}, s.identityQuery, s.schema+".task")
	switch {
	case errors.Is(err, sql.ErrTxDone) || errors.Is(err, pgx.ErrTxClosed):
		return nil, fmt.Errorf("durable: postgres: %w: %w", durable.ErrTxDone, err)
	case err != nil && (ctx.Err() != nil || hasAnyCode(err) || isConnection(err)):
		return nil, explained(err)
	case err != nil || identity != s.identity:
		return nil, fmt.Errorf("durable: postgres: %w: begin the transaction on the database of the URL, for one on Store.DB", durable.ErrForeignTx)
	}
	return r, nil
}

// InsertTx inserts tasks in a user's transaction. A key that another open
// transaction has is waited for.
func (s *Store) InsertTx(ctx context.Context, user durable.Tx, ins []durable.Insert) ([]durable.Inserted, error) {
	r, err := s.userTx(ctx, user)
	if err != nil {
		return nil, err
	}
	out, err := s.insertAll(ctx, r, ins, false)
	if err != nil {
		return nil, explained(err)
	}
	for i := range out {
		if out[i].Err == nil && !out[i].Duplicate {
			s.lookout.expect(s, out[i].ID, false)
			break // they come together
		}
	}
	return out, nil
}
