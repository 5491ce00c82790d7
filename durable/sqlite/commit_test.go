package sqlite_test

import (
	"context"
	"database/sql"
	"errors"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wake-go/wake/durable"
	"github.com/wake-go/wake/durable/sqlite"
)

// open opens a store on a new file.
func open(t testing.TB, cfg sqlite.Config) *sqlite.Store {
	t.Helper()
	if cfg.Path == "" {
		cfg.Path = filepath.Join(t.TempDir(), "test.db")
	}
	s, err := sqlite.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func newInsert(kind string) durable.Insert {
	return durable.Insert{ID: durable.NewID(), Kind: kind, Queue: durable.DefaultQueue, MaxAttempts: 3, Payload: []byte(`{"user":"ada","mail":"ada@example.test","lang":"en"}`)}
}

func commit(t testing.TB, s durable.Store, b *durable.Batch) *durable.BatchResult {
	t.Helper()
	res, err := s.Commit(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func mustExec(t testing.TB, db *sql.DB, query string, args ...any) {
	t.Helper()
	if _, err := db.ExecContext(t.Context(), query, args...); err != nil {
		t.Fatal(err)
	}
}

func count(t testing.TB, db *sql.DB, table string) (n int) {
	t.Helper()
	if err := db.QueryRowContext(t.Context(), `SELECT count(*) FROM `+table).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// A function that ends its transaction, panics, ends its goroutine, takes too
// long, or leaves rows and statements open harms nobody else's rows.
func TestFunctionsShareATransactionUnharmed(t *testing.T) {
	s := open(t, sqlite.Config{FuncBudget: 200 * time.Millisecond})
	mustExec(t, s.DB(), `CREATE TABLE users (name TEXT PRIMARY KEY)`)
	insert := func(name string) func(*durable.SQLTx) error {
		return func(tx *durable.SQLTx) error {
			_, err := tx.ExecContext(context.Background(), `INSERT INTO users VALUES (?)`, name)
			return err
		}
	}
	released := make(chan struct{})
	var slowRuns int
	bad := map[string]func(*durable.SQLTx) error{
		"commits": func(tx *durable.SQLTx) error { _, err := tx.ExecContext(context.Background(), `COMMIT`); return err },
		"ends and begins": func(tx *durable.SQLTx) error {
			_, err := tx.ExecContext(context.Background(), `INSERT INTO users VALUES ('x'); ROLLBACK; BEGIN`)
			return err
		},
		"savepoint": func(tx *durable.SQLTx) error {
			_, err := tx.ExecContext(context.Background(), `RELEASE wake_func`)
			return err
		},
		"attaches": func(tx *durable.SQLTx) error {
			_, err := tx.ExecContext(context.Background(), `ATTACH ':memory:' AS x`)
			return err
		},
		"pragma": func(tx *durable.SQLTx) error {
			_, err := tx.ExecContext(context.Background(), `PRAGMA synchronous = OFF`)
			return err
		},
		"panics": func(tx *durable.SQLTx) error { _ = insert("panics")(tx); panic("oh") },
		"goexit": func(tx *durable.SQLTx) error { _ = insert("goexit")(tx); runtime.Goexit(); return nil },
		"fails":  func(tx *durable.SQLTx) error { _ = insert("fails")(tx); return errors.New("no") },
		"cancelled": func(tx *durable.SQLTx) error {
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			_, err := tx.ExecContext(ctx, `INSERT INTO users VALUES ('cancelled')`)
			return err
		},
		"ends the transaction by a conflict": func(tx *durable.SQLTx) error {
			_, err := tx.ExecContext(context.Background(), `INSERT OR ROLLBACK INTO users VALUES ('first')`)
			return err
		},
	}
	var funcs []*durable.Func
	add := func(f func(*durable.SQLTx) error) *durable.Func {
		fn := &durable.Func{Run: f}
		funcs = append(funcs, fn)
		return fn
	}
	first := add(insert("first"))
	failing := map[string]*durable.Func{}
	for name, f := range bad {
		failing[name] = add(f)
		add(insert("beside " + name))
	}
	slow := add(func(tx *durable.SQLTx) error {
		slowRuns++
		if err := insert("slow")(tx); err != nil {
			return err
		}
		if slowRuns == 1 {
			<-released
		}
		return nil
	})
	var leftRows *sql.Rows
	var leftStmt *sql.Stmt
	left := add(func(tx *durable.SQLTx) error {
		var err error
		if leftRows, err = tx.QueryContext(context.Background(), `SELECT name FROM users`); err != nil {
			return err
		}
		leftRows.Next()
		_ = tx.QueryRowContext(context.Background(), `SELECT name FROM users`)
		leftStmt, err = tx.PrepareContext(context.Background(), `INSERT INTO users VALUES ('left')`)
		return err
	})
	last := add(insert("last"))

	res := commit(t, s, &durable.Batch{Funcs: funcs, Inserts: []durable.Insert{newInsert("k"), newInsert("k")}})
	for name, f := range failing {
		if f.Err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if first.Err != nil || last.Err != nil || left.Err != nil || len(res.Inserted) != 2 {
		t.Errorf("errors of good functions: %v, %v, %v; %d inserted", first.Err, last.Err, left.Err, len(res.Inserted))
	}
	if !errors.Is(slow.Err, durable.ErrApart) {
		t.Errorf("slow function: %v", slow.Err)
	}
	if _, err := leftStmt.Exec(); err == nil {
		t.Error("a statement of a function that has ended was run")
	}
	for leftRows.Next() {
		t.Error("rows of a function that has ended have a next one")
	}
	close(released)
	if err := s.InTx(t.Context(), slow); err != nil || slowRuns != 2 {
		t.Errorf("slow function on its own, run %d times: %v", slowRuns, err)
	}
	if n := count(t, s.DB(), "users"); n != len(bad)+3 {
		t.Errorf("%d users, want %d", n, len(bad)+3)
	}
	if n := count(t, s.DB(), "wake_task"); n != 2 {
		t.Errorf("%d tasks, want 2", n)
	}
}

func TestTransactionOnAnotherConnectionIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	s := open(t, sqlite.Config{Path: path})
	other := open(t, sqlite.Config{Path: path})
	foreign, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer foreign.Close()
	for name, db := range map[string]*sql.DB{"the library's own": foreign, "another store's": other.DB()} {
		tx, err := db.Begin()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.InsertTx(t.Context(), durable.SQL(tx), []durable.Insert{newInsert("k")}); !errors.Is(err, durable.ErrForeignTx) {
			t.Errorf("%s: %v", name, err)
		}
		if err := tx.Rollback(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestInsertInAUsersTransaction(t *testing.T) {
	s := open(t, sqlite.Config{})
	mustExec(t, s.DB(), `CREATE TABLE users (name TEXT)`)
	watched, heard := make(chan struct{}), make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	var watching sync.WaitGroup
	var first, finished sync.Once
	watching.Go(func() {
		_ = s.Watch(ctx, func(sig durable.Signal) {
			first.Do(func() { close(watched) })
			if sig&durable.SignalFinished != 0 { // which the passing of time does not send
				finished.Do(func() { close(heard) })
			}
		})
	})
	defer watching.Wait()
	defer cancel()
	for begun := false; !begun; {
		s.Advance(0)
		select {
		case <-watched:
			begun = true
		case <-time.After(time.Millisecond):
		}
	}
	for _, commits := range []bool{false, true} {
		tx, err := s.DB().BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tx.Exec(`INSERT INTO users VALUES ('ada')`); err != nil {
			t.Fatal(err)
		}
		if _, err := s.InsertTx(t.Context(), durable.SQL(tx), []durable.Insert{newInsert("k")}); err != nil {
			t.Fatal(err)
		}
		end := tx.Rollback
		if commits {
			end = tx.Commit
		}
		if err := end(); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case <-heard:
	case <-time.After(patience):
		t.Error("nobody heard of the task that was committed")
	}
	if n, m := count(t, s.DB(), "users"), count(t, s.DB(), "wake_task"); n != 1 || m != 1 {
		t.Errorf("%d users and %d tasks, want one each", n, m)
	}
	res := commit(t, s, &durable.Batch{Boot: durable.Boot(durable.NewID()), Claims: []durable.Claim{{Queue: "default", Kinds: []string{"k"}, Limit: 10}}})
	if len(res.Claimed) != 1 {
		t.Errorf("claimed %v", res.Claimed)
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	newer := filepath.Join(dir, "newer.db")
	s := open(t, sqlite.Config{Path: newer})
	mustExec(t, s.DB(), `UPDATE wake_meta SET value = '99'`)
	for name, test := range map[string]struct{ path, want string }{
		"newer":     {newer, "run a newer one"},
		"directory": {dir, "directory"},
		"missing":   {filepath.Join(dir, "none", "a.db"), "no such file"},
		"memory":    {":memory:", "Config.Path"},
		"empty":     {"", "Config.Path"},
	} {
		_, err := sqlite.Open(t.Context(), sqlite.Config{Path: test.path})
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v; want %q in it", name, err, test.want)
		}
	}
}

// A function that is slow is run again on its own, once the first run is over,
// and those beside it have not waited for it.
func TestSlowFunctionOfAQueue(t *testing.T) {
	s := open(t, sqlite.Config{FuncBudget: 20 * time.Millisecond})
	q := durable.NewQueue(s)
	defer q.Close(t.Context())
	mustExec(t, s.DB(), `CREATE TABLE users (name TEXT)`)
	released, blocked := make(chan struct{}), make(chan struct{})
	runs, running := 0, 0
	slow := make(chan error, 1)
	go func() {
		slow <- q.InTx(t.Context(), func(ctx context.Context, tx *durable.SQLTx) error {
			runs++
			if running++; running > 1 {
				t.Error("the function runs twice at a time")
			}
			defer func() { running-- }()
			if runs == 1 { // before anything that fails when the time is over
				close(blocked)
			}
			tx.Add(job.With(1))
			if _, err := tx.ExecContext(ctx, `INSERT INTO users VALUES ('slow')`); err != nil {
				return err
			}
			if runs == 1 {
				<-released
			}
			return nil
		})
	}()
	<-blocked
	for range 3 {
		if _, err := q.Add(t.Context(), job.With(2)); err != nil {
			t.Fatal(err)
		}
	}
	close(released)
	if err := <-slow; err != nil || runs != 2 {
		t.Errorf("the slow function ran %d times: %v", runs, err)
	}
	if n, m := count(t, s.DB(), "users"), count(t, s.DB(), "wake_task"); n != 1 || m != 4 {
		t.Errorf("%d users and %d tasks, want 1 and 4", n, m)
	}
}

// What a function has broken is its own affair: a transaction that it has made
// SQLite roll back, and foreign keys that could only fail everybody's commit.
func TestFunctionsThatCannotBeCommitted(t *testing.T) {
	s := open(t, sqlite.Config{})
	mustExec(t, s.DB(), `CREATE TABLE users (name TEXT PRIMARY KEY)`)
	mustExec(t, s.DB(), `CREATE TABLE mails (user TEXT REFERENCES users DEFERRABLE INITIALLY DEFERRED)`)
	ignoring := func(queries ...string) func(*durable.SQLTx) error {
		return func(tx *durable.SQLTx) error {
			for _, query := range queries {
				_, _ = tx.ExecContext(context.Background(), query)
			}
			return nil
		}
	}
	for name, run := range map[string]func(*durable.SQLTx) error{
		"rolled back": ignoring(`INSERT INTO users VALUES ('a')`, `INSERT OR ROLLBACK INTO users VALUES ('a')`, `INSERT INTO users VALUES ('b')`),
		"foreign key": ignoring(`INSERT INTO mails VALUES ('nobody')`),
	} {
		f := &durable.Func{Run: run}
		res, err := s.Commit(t.Context(), &durable.Batch{Funcs: []*durable.Func{f}, Inserts: []durable.Insert{newInsert("k")}})
		if err != nil || f.Err == nil || res.Inserted[0].Err != nil {
			t.Errorf("%s, shared: %v for the function, %v for all", name, f.Err, err)
		}
		if err := s.InTx(t.Context(), f); err == nil || errors.Is(err, durable.ErrUnknown) {
			t.Errorf("%s, apart: %v", name, err)
		}
		if n := count(t, s.DB(), "users") + count(t, s.DB(), "mails"); n != 0 {
			t.Errorf("%s: %d rows of a function that failed", name, n)
		}
	}
	late := &durable.Func{Run: ignoring(`INSERT INTO mails VALUES ('ada')`, `INSERT INTO users VALUES ('ada')`)}
	if commit(t, s, &durable.Batch{Funcs: []*durable.Func{late}}); late.Err != nil {
		t.Errorf("a foreign key that is there in the end: %v", late.Err)
	}
}

// A statement that does not end is ended with its function's time.
func TestEndlessStatement(t *testing.T) {
	s := open(t, sqlite.Config{FuncBudget: 100 * time.Millisecond, MaxFunc: 100 * time.Millisecond})
	mustExec(t, s.DB(), `CREATE TABLE n (i INTEGER)`)
	for _, query := range []string{
		`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n`,
		`WITH RECURSIVE m(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM m) INSERT INTO n SELECT i FROM m`,
	} {
		f := &durable.Func{Run: func(tx *durable.SQLTx) error {
			_, err := tx.ExecContext(context.Background(), query)
			return err
		}}
		beside := &durable.Func{Run: func(tx *durable.SQLTx) error {
			_, err := tx.ExecContext(context.Background(), `INSERT INTO n VALUES (1)`)
			return err
		}}
		commit(t, s, &durable.Batch{Funcs: []*durable.Func{beside, f}, Inserts: []durable.Insert{newInsert("k")}})
		if !errors.Is(f.Err, durable.ErrApart) || beside.Err != nil {
			t.Errorf("shared: %v, and beside it %v", f.Err, beside.Err)
		}
		if err := s.InTx(t.Context(), f); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("apart: %v", err)
		}
	}
	if n, tasks := count(t, s.DB(), "n"), count(t, s.DB(), "wake_task"); n != 2 || tasks != 2 {
		t.Errorf("%d rows and %d tasks, want 2 and 2", n, tasks)
	}
}

// A function that goes on after it was given up can add nothing any more.
func TestAddAfterBeingGivenUp(t *testing.T) {
	s := open(t, sqlite.Config{FuncBudget: 10 * time.Millisecond})
	q := durable.NewQueue(s)
	defer q.Close(context.Background())
	runs := 0
	err := q.InTx(t.Context(), func(_ context.Context, tx *durable.SQLTx) error {
		if runs++; runs == 1 { // this returns when the transaction has gone on without the function
			if _, err := q.Add(context.Background(), job.With(0)); err != nil {
				t.Error(err)
			}
		}
		if id := tx.Add(job.With(runs)); id.IsZero() != (runs == 1) {
			t.Errorf("run %d added %v", runs, id)
		}
		return nil
	})
	if err != nil || runs != 2 {
		t.Errorf("after %d runs: %v", runs, err)
	}
}

// Many functions, none of which is slow, do not keep everybody else waiting for
// all of them.
func TestFunctionsShareTheTimeOfATransaction(t *testing.T) {
	const budget = 20 * time.Millisecond
	s := open(t, sqlite.Config{FuncBudget: budget})
	var funcs []*durable.Func
	for range 50 {
		funcs = append(funcs, &durable.Func{Run: func(*durable.SQLTx) error { time.Sleep(budget / 4); return nil }})
	}
	begun := time.Now()
	commit(t, s, &durable.Batch{Funcs: funcs, Inserts: []durable.Insert{newInsert("k")}})
	took, shared := time.Since(begun), 0
	for _, f := range funcs {
		if f.Err == nil {
			shared++
		} else if !errors.Is(f.Err, durable.ErrApart) {
			t.Error(f.Err)
		}
	}
	if shared == 0 || shared == len(funcs) {
		t.Errorf("%d of %d functions shared a transaction of %v", shared, len(funcs), took)
	}
	if err := s.InTx(t.Context(), funcs[len(funcs)-1]); err != nil {
		t.Errorf("on its own: %v", err)
	}
}
