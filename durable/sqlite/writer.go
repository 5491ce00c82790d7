package sqlite

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/wake-go/wake/durable"
)

// A writer is the connection that everything of the store's own is written on.
// Whoever has entered the store uses it, nobody else.
type writer struct {
	dsn                string
	file               *file
	conn               *conn
	db                 *sql.DB   // with conn as its only connection,
	sql                *sql.Conn // for users' functions
	stmts              map[string]innerStmt
	args               []driver.NamedValue
	row                []driver.Value
	lanes              lanes
	claims, calmClaims map[int]string // statements by how many lanes they claim from
}

// A given connector hands out one connection, once.
type given struct {
	*connector
	conn *conn
}

func (g *given) Connect(context.Context) (driver.Conn, error) {
	if g.conn == nil {
		return nil, durable.ErrClosed
	}
	c := g.conn
	g.conn = nil
	return c, nil
}

func newWriter(s *Store, c *connector) (*writer, error) {
	opened, err := c.open()
	if err != nil {
		return nil, err
	}
	w := &writer{dsn: c.dsn, file: s.file, conn: opened, stmts: map[string]innerStmt{}, claims: map[int]string{}, calmClaims: map[int]string{}, db: sql.OpenDB(&given{c, opened})}
	if w.sql, err = w.db.Conn(context.Background()); err != nil {
		return nil, errors.Join(err, w.db.Close())
	}
	w.lanes.begin()
	return w, nil
}

// prepare returns a statement of the store's own, which stays prepared.
func (w *writer) prepare(query string) (innerStmt, error) {
	if s, ok := w.stmts[query]; ok {
		return s, nil
	}
	prepared, err := w.conn.innerConn.PrepareContext(context.Background(), query)
	if err != nil {
		return nil, fmt.Errorf("prepare %.60q: %w", query, err)
	}
	s := prepared.(innerStmt)
	w.stmts[query] = s
	return s, nil
}

func (w *writer) named(args []any) []driver.NamedValue {
	w.args = w.args[:0]
	for i, a := range args {
		w.args = append(w.args, driver.NamedValue{Ordinal: i + 1, Value: value(a)})
	}
	return w.args
}

// value makes what the library takes of a value.
func value(a any) driver.Value {
	switch v := a.(type) {
	case int:
		return int64(v)
	case durable.State:
		return int64(v)
	case bool:
		if v {
			return int64(1)
		}
		return int64(0)
	case durable.ID:
		return v[:]
	case durable.Boot:
		return v[:]
	case []byte:
		if v == nil {
			return nil
		}
	}
	return a
}

// exec runs a statement and returns how many rows it has changed.
func (w *writer) exec(query string, args ...any) (int64, error) {
	s, err := w.prepare(query)
	if err != nil {
		return 0, err
	}
	res, err := s.ExecContext(context.Background(), w.named(args))
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

// insert runs an INSERT of one row and returns its number.
func (w *writer) insert(query string, args ...any) (int64, error) {
	s, err := w.prepare(query)
	if err != nil {
		return 0, err
	}
	res, err := s.ExecContext(context.Background(), w.named(args))
	if err != nil {
		return 0, err
	}
	return res.LastInsertId()
}

// query calls f with each row. The values are f's to keep.
func (w *writer) query(f func(row []driver.Value) error, query string, args ...any) (err error) {
	s, err := w.prepare(query)
	if err != nil {
		return err
	}
	rows, err := s.QueryContext(context.Background(), w.named(args))
	if err != nil {
		return err
	}
	defer func() {
		if closed := rows.Close(); err == nil {
			err = closed
		}
	}()
	n := len(rows.Columns())
	if cap(w.row) < n {
		w.row = make([]driver.Value, n)
	}
	row := w.row[:n]
	for {
		switch err := rows.Next(row); {
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		}
		if err := f(row); err != nil {
			return err
		}
	}
}

// one scans a single integer; ok is false if there is no row or it is NULL.
func (w *writer) one(query string, args ...any) (n int64, ok bool, err error) {
	err = w.query(func(row []driver.Value) error {
		n, ok = row[0].(int64)
		return nil
	}, query, args...)
	return n, ok, err
}

// transact runs f in a transaction.
func (w *writer) transact(f func() error) error {
	if err := w.file.inPlace(); err != nil {
		return err
	}
	if _, err := w.exec(`BEGIN IMMEDIATE`); err != nil {
		return err
	}
	err := w.refresh()
	if err == nil {
		err = f()
	}
	if err != nil {
		w.rollback()
		return err
	}
	if _, err := w.exec(`COMMIT`); err != nil {
		w.rollback()
		// What was written and could not be synced may be found after a crash.
		return fmt.Errorf("%w: %w", durable.ErrUnknown, err)
	}
	return nil
}

// rollback ends the transaction, if it has not ended by itself, and forgets
// what was learnt in it.
func (w *writer) rollback() {
	_, _ = w.exec(`ROLLBACK`)
	w.lanes.begin()
}

// write runs f in a transaction of the store's own.
func (s *Store) write(ctx context.Context, f func(*writer) error) error {
	if s.ended.Err() != nil {
		return durable.ErrClosed
	}
	if err := s.enter(ctx, true); err != nil {
		return err
	}
	defer s.leave()
	work := func() error { return f(s.writer) }
	err := s.writer.transact(work)
	if isFull(explained(err)) && s.ballast.giveUp() {
		err = s.writer.transact(work) // with the room that the ballast had
	}
	return explained(err)
}

// restartLog lets the write-ahead log begin anew. It reports false if somebody
// reads the old one.
func (w *writer) restartLog(busyTimeout time.Duration) bool {
	ignore := func([]driver.Value) error { return nil }
	if err := w.query(ignore, `PRAGMA busy_timeout = 0`); err != nil {
		return false
	}
	busy, _, err := w.one(`PRAGMA wal_checkpoint(RESTART)`)
	_ = w.query(ignore, fmt.Sprintf(`PRAGMA busy_timeout = %d`, busyTimeout.Milliseconds()))
	return err == nil && busy == 0
}

func (w *writer) checkpointAndClose() error {
	_ = w.query(func([]driver.Value) error { return nil }, `PRAGMA wal_checkpoint(PASSIVE)`)
	for _, s := range w.stmts {
		_ = s.Close()
	}
	return errors.Join(w.sql.Close(), w.db.Close())
}

func integer(v driver.Value) int64 {
	n, _ := v.(int64)
	return n
}

func blob(v driver.Value) []byte {
	b, _ := v.([]byte)
	return b
}

func idOf(v driver.Value) (id durable.ID) {
	copy(id[:], blob(v))
	return id
}
