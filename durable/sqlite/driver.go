package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"modernc.org/sqlite"

	"github.com/wake-go/wake/durable"
)

// innerConn is what a connection of the SQLite library can do.
type innerConn interface {
	driver.Conn
	driver.ConnBeginTx
	driver.ConnPrepareContext
	driver.Pinger
	driver.SessionResetter
	driver.Validator
	driver.ExecerContext
	sqlite.AuthorizerRegisterer
	sqlite.HookRegisterer
	sqlite.DBStatus
}

// A connector opens connections whose writes go through the store's gate.
type connector struct {
	store  *Store
	dsn    string
	direct bool // the writer: whoever uses it holds the gate already
}

func (c *connector) Connect(context.Context) (driver.Conn, error) { return c.open() }

func (c *connector) open() (*conn, error) {
	opened, err := c.store.driver.Open(c.dsn)
	if err != nil {
		return nil, err
	}
	inner, ok := opened.(innerConn)
	if !ok {
		return nil, errors.Join(fmt.Errorf("durable: sqlite: connections of type %T lack what is needed", opened), opened.Close())
	}
	conn := &conn{innerConn: inner, store: c.store, direct: c.direct, stmts: map[string]*cachedStmt{}, rows: map[*rows]struct{}{}}
	if c.direct {
		if err := inner.RegisterAuthorizer(conn.authorize); err != nil {
			return nil, errors.Join(err, inner.Close())
		}
	}
	inner.RegisterRollbackHook(func() { conn.rolledBack.Store(true) })
	c.store.conns.add(conn)
	return conn, nil
}

func (c *connector) Driver() driver.Driver { return c.store.driver }

// A conn is a connection of which the store knows what it does.
type conn struct {
	innerConn
	store  *Store
	direct bool

	mu      sync.Mutex // the store may end a read from outside
	stmts   map[string]*cachedStmt
	rows    map[*rows]struct{}
	reading time.Time // since when it has been; zero: it is not
	cut     error     // why the store has ended the transaction
	inTx    bool
	byHand  bool // in a transaction that the user has begun with BEGIN
	gated   bool // it holds the gate
	added   bool // the transaction has changed tasks

	// There has been a rollback, of SQLite's own accord if nobody asked for one.
	rolledBack atomic.Bool

	// Of the writer alone.
	inFunc   bool    // a user's function runs
	turn     int     // how many have
	prepared []*stmt // by that function
}

// addsQuery proves that a transaction is on a connection of this store: no
// other has the function. The store finds it in the statements that a
// connection is given, and wakes workers when that is committed.
const addsQuery = `SELECT wake_connection()`

func (c *conn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	if c.byHand {
		return nil, errors.New("durable: sqlite: the connection is in a transaction that was begun with BEGIN; end that first")
	}
	if !opts.ReadOnly {
		if err := c.enterGate(ctx); err != nil {
			return nil, err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	inner, err := c.innerConn.BeginTx(ctx, opts)
	if err != nil {
		if !opts.ReadOnly {
			c.store.leave()
		}
		return nil, explained(err)
	}
	c.inTx, c.gated, c.cut, c.added = true, !opts.ReadOnly, nil, false
	c.rolledBack.Store(false)
	if opts.ReadOnly {
		c.reading = time.Now()
	}
	return &tx{c, inner}, nil
}

// A tx is a user's transaction.
type tx struct {
	conn  *conn
	inner driver.Tx
}

func (t *tx) Commit() error   { return t.end(t.inner.Commit, errRolledBack) }
func (t *tx) Rollback() error { return t.end(t.inner.Rollback, nil) }

// end ends the transaction by f. If SQLite has rolled it back already, it
// returns gone.
func (t *tx) end(f func() error, gone error) error {
	c := t.conn
	c.mu.Lock()
	err := c.cut
	switch {
	case err != nil:
	case c.rolledBack.Load():
		_ = t.inner.Rollback() // of one begun by hand since, if there is any
		err = gone
	default:
		err = explained(f())
	}
	added := c.added && err == nil
	c.inTx, c.cut, c.added, c.reading = false, nil, false, time.Time{}
	gated := c.gated
	c.gated = false
	c.mu.Unlock()
	if gated {
		c.store.leave()
	}
	if added {
		c.store.userCommitted()
	}
	return err
}

// Close gives back the gate of a transaction that its connection's end ends.
func (c *conn) Close() error {
	c.store.conns.remove(c)
	c.mu.Lock()
	for r := range c.rows {
		r.close()
	}
	for _, s := range c.stmts {
		s.Close()
	}
	err := c.innerConn.Close()
	gated := c.gated
	c.gated = false
	c.mu.Unlock()
	if gated {
		c.store.leave()
	}
	return err
}

// Prepare is not called: there is PrepareContext.
func (c *conn) Prepare(query string) (driver.Stmt, error) {
	return c.PrepareContext(context.Background(), query)
}

func (c *conn) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.usable(ctx); err != nil {
		return nil, err
	}
	s, err := c.innerConn.PrepareContext(ctx, query)
	if err != nil {
		return nil, explained(err)
	}
	inner, ok := s.(innerStmt)
	if !ok {
		return nil, errors.Join(fmt.Errorf("durable: sqlite: statements of type %T lack what is needed", s), s.Close())
	}
	prepared := &stmt{innerStmt: inner, conn: c, verb: verbOf(query), turn: c.turn}
	if c.direct {
		c.prepared = append(c.prepared, prepared)
	}
	return prepared, nil
}

func (c *conn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	v := verbOf(query)
	leave, err := c.enter(ctx, v)
	if err != nil {
		return nil, err
	}
	defer leave()
	if c.byHand || v.controls() {
		defer c.lookAtHand()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.usable(ctx); err != nil {
		return nil, err
	}
	s, err := c.cached(ctx, query)
	if err != nil {
		return nil, explained(err)
	}
	res, err := s.ExecContext(ctx, args)
	c.putBack(s)
	return res, explained(err)
}

func (c *conn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	leave, err := c.enter(ctx, verbOf(query).ofQuery())
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.usable(ctx); err != nil {
		leave()
		return nil, err
	}
	if query == addsQuery && c.inTx {
		c.added = true
	}
	s, err := c.cached(ctx, query)
	if err != nil {
		leave()
		return nil, explained(err)
	}
	inner, err := s.QueryContext(ctx, args)
	if err != nil {
		c.putBack(s)
		leave()
		return nil, explained(err)
	}
	return c.open(inner, func() { c.putBack(s); leave() }), nil
}

// usable is called with mu held.
func (c *conn) usable(ctx context.Context) error {
	switch {
	case c.direct && !c.inFunc:
		return durable.ErrTxDone
	case c.cut != nil:
		return c.cut
	case (c.inTx || c.inFunc) && c.rolledBack.Load():
		return errRolledBack // what came now would be committed by itself
	case c.direct:
		return ctx.Err()
	}
	return nil
}

// open keeps track of rows. It is called with mu held.
func (c *conn) open(inner driver.Rows, done func()) *rows {
	r := &rows{innerRows: inner.(innerRows), conn: c, done: done}
	c.rows[r] = struct{}{}
	if c.reading.IsZero() {
		c.reading = time.Now()
	}
	return r
}

// innerStmt and innerRows are what the library's are.
type innerStmt interface {
	driver.Stmt
	driver.StmtExecContext
	driver.StmtQueryContext
}

type innerRows interface {
	driver.Rows
	driver.RowsColumnTypeDatabaseTypeName
	driver.RowsColumnTypeLength
	driver.RowsColumnTypeNullable
	driver.RowsColumnTypePrecisionScale
	driver.RowsColumnTypeScanType
}

// A stmt is a statement that a user has prepared.
type stmt struct {
	innerStmt
	conn *conn
	verb verb
	turn int // of the writer, in which it was prepared and may be used
}

// usable is called with the connection's mu held.
func (s *stmt) usable(ctx context.Context) error {
	if s.conn.direct && s.turn != s.conn.turn {
		return durable.ErrTxDone
	}
	return s.conn.usable(ctx)
}

func (s *stmt) Close() error {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	return s.innerStmt.Close()
}

func (s *stmt) ExecContext(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	leave, err := s.conn.enter(ctx, s.verb)
	if err != nil {
		return nil, err
	}
	defer leave()
	if s.conn.byHand || s.verb.controls() {
		defer s.conn.lookAtHand()
	}
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	if err := s.usable(ctx); err != nil {
		return nil, err
	}
	res, err := s.innerStmt.ExecContext(ctx, args)
	return res, explained(err)
}

func (s *stmt) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	leave, err := s.conn.enter(ctx, s.verb.ofQuery())
	if err != nil {
		return nil, err
	}
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	if err := s.usable(ctx); err != nil {
		leave()
		return nil, err
	}
	inner, err := s.innerStmt.QueryContext(ctx, args)
	if err != nil {
		leave()
		return nil, explained(err)
	}
	return s.conn.open(inner, leave), nil
}

// rows are a query's result.
type rows struct {
	innerRows
	conn   *conn
	done   func()
	closed bool
	cut    error // why the store has closed them
}

func (r *rows) Next(dest []driver.Value) error {
	r.conn.mu.Lock()
	defer r.conn.mu.Unlock()
	if r.closed {
		if r.cut != nil {
			return r.cut
		}
		return errors.New("durable: sqlite: the rows were closed when their function returned")
	}
	return explained(r.innerRows.Next(dest))
}

func (r *rows) Close() error {
	r.conn.mu.Lock()
	defer r.conn.mu.Unlock()
	return r.close()
}

// close is called with the connection's mu held.
func (r *rows) close() error {
	if r.closed {
		return nil
	}
	r.closed = true
	err := r.innerRows.Close()
	r.done()
	c := r.conn
	delete(c.rows, r)
	if len(c.rows) == 0 && !c.inTx {
		c.reading = time.Time{}
	}
	return explained(err)
}

// endRead ends what the connection has been reading since before a time, so
// that the write-ahead log can begin anew. It reports whether there was any.
func (c *conn) endRead(before time.Time, why error) bool {
	if !c.mu.TryLock() {
		return false // a statement runs: next time, perhaps
	}
	defer c.mu.Unlock()
	if c.direct || c.gated || c.reading.IsZero() || !c.reading.Before(before) {
		return false
	}
	for r := range c.rows {
		r.cut = why
		_ = r.close()
	}
	if c.inTx {
		c.cut = why
		_, _ = c.innerConn.ExecContext(context.Background(), `ROLLBACK`, nil)
	}
	c.reading = time.Time{}
	return true
}

// ResetSession is called before a connection of the pool is used again.
func (c *conn) ResetSession(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut = nil
	return c.innerConn.ResetSession(ctx)
}

// A cachedStmt is a statement that was prepared for one execution and is kept
// for the next one.
type cachedStmt struct {
	innerStmt
	query string
	busy  bool
}

// maxCached is how many statements a connection keeps.
const maxCached = 100

// cached is called with mu held.
func (c *conn) cached(ctx context.Context, query string) (*cachedStmt, error) {
	s := c.stmts[query]
	if s != nil && !s.busy {
		s.busy = true
		return s, nil
	}
	prepared, err := c.innerConn.PrepareContext(ctx, query)
	if err != nil {
		return nil, err
	}
	fresh := &cachedStmt{innerStmt: prepared.(innerStmt), query: query, busy: true}
	if s == nil {
		if len(c.stmts) >= maxCached {
			c.forget()
		}
		c.stmts[query] = fresh
	}
	return fresh, nil
}

// forget closes the statements that are not in use.
func (c *conn) forget() {
	for query, s := range c.stmts {
		if !s.busy {
			s.Close()
			delete(c.stmts, query)
		}
	}
}

// putBack is called with mu held.
func (c *conn) putBack(s *cachedStmt) {
	s.busy = false
	if c.stmts[s.query] != s {
		s.Close()
	}
}

// authorize refuses what would harm others when a user's function runs on the
// writer, where it shares a transaction with them.
func (c *conn) authorize(action sqlite.AuthorizerActionCode, arg1, _, _, _ string) sqlite.AuthorizerReturnCode {
	if !c.inFunc {
		return sqlite.AuthorizerOK
	}
	switch action {
	case sqlite.AuthTransaction, sqlite.AuthAttach, sqlite.AuthDetach, sqlite.AuthPragma:
		return sqlite.AuthorizerDeny
	case sqlite.AuthSavepoint:
		return sqlite.AuthorizerDeny
	}
	return sqlite.AuthorizerOK
}

// beginFunc and endFunc enclose a user's function on the writer.
func (c *conn) beginFunc() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.inFunc = true
	c.turn++
	c.rolledBack.Store(false)
}

// intact returns why what a function has written cannot be committed.
func (c *conn) intact() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.rolledBack.Load() {
		return errRolledBack
	}
	open, _, err := c.innerConn.Status(sqlite.DBStatusDeferredFKs, false)
	if err == nil && open != 0 {
		err = errors.New("durable: sqlite: the function leaves a deferred foreign key without the row that it refers to: FOREIGN KEY constraint failed")
	}
	return err
}

// endFunc closes what the function has left open.
func (c *conn) endFunc() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.inFunc = false
	for r := range c.rows {
		_ = r.close()
	}
	for _, s := range c.prepared {
		_ = s.innerStmt.Close()
	}
	c.prepared = nil
}

// conns are the open connections of a store.
type conns struct {
	mu  sync.Mutex
	all map[*conn]struct{}
}

func (s *conns) add(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all == nil {
		s.all = map[*conn]struct{}{}
	}
	s.all[c] = struct{}{}
}

func (s *conns) remove(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, c)
}

// endReads ends what has been read since before a time, and says how many.
func (s *conns) endReads(before time.Time, why error) (ended int) {
	s.mu.Lock()
	all := make([]*conn, 0, len(s.all))
	for c := range s.all {
		all = append(all, c)
	}
	s.mu.Unlock()
	for _, c := range all {
		if c.endRead(before, why) {
			ended++
		}
	}
	return ended
}
