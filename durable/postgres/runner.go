package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/wake-go/wake/durable"
)

// A row is one of an answer.
type row interface{ Scan(into ...any) error }

// A runner runs the store's statements: at once in a transaction, or together
// with others in a pipeline.
type runner interface {
	// run calls f, unless it is nil, with each row of the answer.
	run(ctx context.Context, f func(row) error, query string, args ...any) error
}

// A tx runs statements in an open transaction, or each in one of its own.
type tx struct {
	s  *Store
	db interface {
		Query(ctx context.Context, query string, args ...any) (pgx.Rows, error)
	}
}

func (t tx) run(ctx context.Context, f func(row) error, query string, args ...any) error {
	rows, err := t.db.Query(ctx, t.s.sql(query), args...)
	if err != nil {
		return err
	}
	return each(rows, f)
}

func each(rows pgx.Rows, f func(row) error) error {
	defer rows.Close()
	for rows.Next() {
		if f != nil {
			if err := f(rows); err != nil {
				return err
			}
		}
	}
	rows.Close()
	return rows.Err()
}

// An sqlTx is a transaction of database/sql.
type sqlTx struct {
	s  *Store
	tx *sql.Tx
}

func (t sqlTx) run(ctx context.Context, f func(row) error, query string, args ...any) error {
	rows, err := t.tx.QueryContext(ctx, t.s.sql(query), args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if f != nil {
			if err := f(rows); err != nil {
				return err
			}
		}
	}
	return rows.Err()
}

// one scans the only row of an answer; ok is false if there is none.
func one(ctx context.Context, r runner, into []any, query string, args ...any) (ok bool, err error) {
	err = r.run(ctx, func(row row) error {
		ok = true
		return row.Scan(into...)
	}, query, args...)
	return ok, err
}

// A pipeline is a transaction in one round trip: all of its statements are
// sent at once, and the server commits at their end.
type pipeline struct {
	s     *Store
	batch pgx.Batch
	rows  []func(row) error
}

// run queues a statement, of which f hears when the pipeline is sent.
func (p *pipeline) run(_ context.Context, f func(row) error, query string, args ...any) error {
	p.batch.Queue(p.s.sql(query), args...)
	p.rows = append(p.rows, f)
	return nil
}

// send runs the pipeline. An error matches durable.ErrUnknown if the server
// may have committed.
func (p *pipeline) send(ctx context.Context) error {
	conn, err := p.s.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	results := conn.SendBatch(ctx, &p.batch)
	answered := 0
	for _, f := range p.rows {
		rows, err := results.Query()
		if err == nil {
			err = each(rows, f)
		}
		if err != nil {
			break // Close has it, too
		}
		answered++
	}
	err = results.Close()
	if err != nil && mayBeCommitted(err, answered == len(p.rows)) {
		return fmt.Errorf("%w: %w", durable.ErrUnknown, err)
	}
	return err
}

// mayBeCommitted reports whether a transaction of which everything has been
// sent, its commit included, can have been committed though it ended with err.
// An error that the server reports of a statement, or of the commit, says that
// it has not; a session that is ended during the commit says nothing.
func mayBeCommitted(err error, answered bool) bool {
	var server *pgconn.PgError
	if errors.As(err, &server) {
		return answered && isFatal(err)
	}
	return !pgconn.SafeToRetry(err)
}

// tuned makes plans in the transaction those that are right for all that a
// table can hold: each task by its index. The planner's own choice, made when a
// table was small, would be kept when it is not.
const tuned = `SELECT set_config('plan_cache_mode', 'force_generic_plan', true), set_config('enable_seqscan', 'off', true),
	set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true), set_config('jit', 'off', true)`

// tries is how often a transaction is tried that others are in the way of.
const tries = 5

// pipelined runs what build queues, again if it lost to another transaction or
// if the connection was found dead. Build begins anew each time.
func (s *Store) pipelined(ctx context.Context, build func(*pipeline) error) error {
	return s.retried(ctx, func() error {
		p := &pipeline{s: s}
		if err := p.run(ctx, nil, tuned); err != nil {
			return err
		}
		if err := build(p); err != nil {
			return err
		}
		if len(p.rows) == 1 {
			return nil
		}
		return p.send(ctx)
	})
}

// write runs f in a transaction of the store's own, which does not wait for
// anybody's locks for longer than LockTimeout. F may run more than once.
func (s *Store) write(ctx context.Context, f func(pgx.Tx) error) error {
	return s.writeWithin(ctx, s.cfg.LockTimeout, f)
}

func (s *Store) writeWithin(ctx context.Context, lockTimeout time.Duration, f func(pgx.Tx) error) error {
	return explained(s.retried(ctx, func() error {
		tx, err := s.pool.Begin(ctx)
		if err != nil {
			return err
		}
		defer tx.Rollback(context.WithoutCancel(ctx)) // does nothing after the commit
		if _, err := tx.Exec(ctx, tuned+`, set_config('lock_timeout', $1, true)`, fmt.Sprint(max(1, lockTimeout.Milliseconds()))); err != nil {
			return err
		}
		if err := f(tx); err != nil {
			return err
		}
		return committed(tx.Commit(ctx))
	}))
}

// committed says of the error of a commit whether it may have happened.
func committed(err error) error {
	if err == nil || errors.Is(err, pgx.ErrTxCommitRollback) || !mayBeCommitted(err, true) {
		return err
	}
	return fmt.Errorf("%w: %w", durable.ErrUnknown, err)
}

// read runs f in a transaction that sees one moment of the database.
func (s *Store) read(ctx context.Context, f func(runner) error) error {
	return explained(s.retried(ctx, func() error {
		return pgx.BeginTxFunc(ctx, s.pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(db pgx.Tx) error {
			return f(tx{s, db})
		})
	}))
}

// retried runs f until it is not in the way of another transaction, and not on
// a connection that had ended before.
func (s *Store) retried(ctx context.Context, f func() error) error {
	for i := 1; ; i++ {
		if s.ended.Err() != nil {
			return durable.ErrClosed
		}
		err := f()
		switch {
		case err == nil || i == tries || ctx.Err() != nil || errors.Is(err, durable.ErrUnknown):
			return err
		case isStale(err) && i < 3:
			s.pool.Reset() // the others are likely to be dead as well
		case isTransient(err):
			pause(ctx, time.Duration(i)*5*time.Millisecond)
		default:
			return err
		}
	}
}

// pause waits for up to d, so that those who met once do not meet again.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(rand.N(d) + d/4)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
