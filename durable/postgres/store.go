package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/wake-go/wake/durable"
)

// A Store keeps tasks in a PostgreSQL database. Its methods may be called by
// several goroutines, and any number of processes may have the same schema
// open.
type Store struct {
	cfg           Config
	schema        string // quoted
	pool          *pgxpool.Pool
	db            *sql.DB // the user's, on the same pool
	pooled        bool    // a pooler is between: sessions are not this process's own
	identity      string  // of the database and the schema in it, see userTx
	identityQuery string
	offset        atomic.Int64
	texts         sync.Map // statements, with the schema's name in place

	turn    chan struct{} // of the commit that claims
	lanes   lanes
	cursors cursors
	deaths  deaths
	signals signals
	line    *line
	lookout lookout

	ended   context.Context
	end     context.CancelFunc
	mu      sync.Mutex // over helpers, so that none starts when all have ended
	helpers sync.WaitGroup
	closed  sync.Once
}

// Open connects to the database and creates or migrates the store's schema. A
// schema that a newer program has made, and a server that only reads, are
// errors.
func Open(ctx context.Context, cfg Config) (_ *Store, err error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	poolConfig, err := cfg.pool()
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("durable: open %q: %w", masked(cfg.URL), err)
		}
	}()
	s := &Store{cfg: cfg, schema: pgx.Identifier{cfg.Schema}.Sanitize(), turn: make(chan struct{}, 1)}
	if err := s.probe(ctx, poolConfig.ConnConfig); err != nil {
		return nil, explained(err)
	}
	if s.pooled {
		// A statement prepared in one transaction may not be there in the next.
		poolConfig.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe
	}
	if s.pool, err = pgxpool.NewWithConfig(ctx, poolConfig); err != nil {
		return nil, err
	}
	s.db = stdlib.OpenDBFromPool(s.pool)
	s.db.SetMaxOpenConns(cfg.MaxConns - reserved)
	s.ended, s.end = context.WithCancel(context.Background())
	s.line = newLine(s)
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if err := s.migrate(ctx); err != nil {
		return nil, explained(err)
	}
	if s.identity, err = s.identify(ctx); err != nil {
		return nil, explained(err)
	}
	s.help(s.line.run)
	return s, nil
}

// probe finds out what is at the other end.
func (s *Store) probe(ctx context.Context, cfg *pgx.ConnConfig) error {
	cfg = cfg.Copy()
	cfg.DefaultQueryExecMode = pgx.QueryExecModeExec
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	var pid int64
	var version int
	var standby bool
	var isolation, synchronous string
	if err := conn.QueryRow(ctx, `SELECT pg_backend_pid()::bigint, current_setting('server_version_num')::int, pg_is_in_recovery(),
			current_setting('default_transaction_isolation'), current_setting('synchronous_commit')`).Scan(&pid, &version, &standby, &isolation, &synchronous); err != nil {
		return err
	}
	// A pooler answers with a number of its own when a connection begins.
	s.pooled = pid != int64(conn.PgConn().PID())
	switch {
	case version < 14_00_00:
		return fmt.Errorf("the server has version %d; the store needs 14 or later", version/10_000)
	case standby:
		return fmt.Errorf("%w: the server is a standby, which only reads; name the primary in the URL", durable.ErrUnavailable)
	case isolation != "read committed":
		return fmt.Errorf("transactions of this role are %q unless they say otherwise; the store needs \"read committed\": "+
			"add default_transaction_isolation=read%%20committed to the URL, or ALTER ROLE … SET default_transaction_isolation", isolation)
	}
	if synchronous == "off" && cfg.RuntimeParams["synchronous_commit"] == "" {
		slog.Warn("durable: the server's synchronous_commit is off: its crash can lose tasks that were acknowledged", "schema", s.cfg.Schema)
	}
	return nil
}

// help runs something until the store is closed. It reports false if it is.
func (s *Store) help(f func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended.Err() != nil {
		return false
	}
	s.helpers.Go(f)
	return true
}

// sql is a statement that names tables in the schema wake, with the name that
// the schema has.
func (s *Store) sql(query string) string {
	if s.cfg.Schema == "wake" {
		return query
	}
	if text, ok := s.texts.Load(query); ok {
		return text.(string)
	}
	text := strings.ReplaceAll(query, "wake.", s.schema+".")
	s.texts.Store(query, text)
	return text
}

// Traits describes the store. Functions do not share transactions: the locks
// of one user's rows would be held for all others.
func (s *Store) Traits() durable.Traits {
	return durable.Traits{Name: "postgres", Committers: 2, MaxBatch: 1000}
}

// DB returns a database handle for the application's own tables, on the
// store's connections but for those that are kept for its own work. The store
// closes it.
func (s *Store) DB() *sql.DB { return s.db }

// Ping reports whether the store can commit.
func (s *Store) Ping(ctx context.Context) error {
	return s.write(ctx, func(tx pgx.Tx) error {
		var number, readOnly string // a number makes the commit one that is written
		err := tx.QueryRow(ctx, `SELECT pg_current_xact_id()::text, current_setting('transaction_read_only')`).Scan(&number, &readOnly)
		if err == nil && readOnly == "on" {
			err = fmt.Errorf("durable: postgres: %w: the server only reads, as a standby does", durable.ErrUnavailable)
		}
		return err
	})
}

// clock is the store's time in statements, whose first parameter is clockArg.
// Unlike now() it goes on while a transaction waits.
const clock = `(clock_timestamp() + $1::bigint * interval '1 microsecond')`

// clockArg is how far the time has been moved, in microseconds.
func (s *Store) clockArg() int64 { return s.offset.Load() }

// Now returns the store's time, which is the server's.
func (s *Store) Now(ctx context.Context) (now time.Time, err error) {
	if s.ended.Err() != nil {
		return now, durable.ErrClosed
	}
	err = s.pool.QueryRow(ctx, `SELECT `+clock, s.clockArg()).Scan(&now)
	return now.UTC(), explained(err)
}

// Advance moves the time as this handle sees it, for tests.
func (s *Store) Advance(d time.Duration) {
	s.offset.Add(d.Microseconds())
	s.signals.send(durable.SignalTasks | durable.SignalSchedules)
}

// closeTimeout is how long Close waits for connections that are in use.
const closeTimeout = 10 * time.Second

// Close ends what listens and closes all connections, the user's included. For
// those that are in use it waits ten seconds.
func (s *Store) Close() error {
	var err error
	s.closed.Do(func() {
		s.mu.Lock()
		s.end()
		s.mu.Unlock()
		s.helpers.Wait()
		s.signals.stop()
		err = s.db.Close()
		closed := make(chan struct{})
		go func() { defer close(closed); s.pool.Close() }() // ends when the last one is given back
		select {
		case <-closed:
		case <-time.After(closeTimeout):
			err = errors.Join(err, fmt.Errorf("durable: close %q: %d connections are still in use after %v: a transaction on Store.DB has not ended", masked(s.cfg.URL), s.pool.Stat().AcquiredConns(), closeTimeout))
		}
	})
	return err
}
