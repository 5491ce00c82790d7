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
	s := open(t, sqlite.Config{FuncBudget: 50 * time.Millisecond})
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
	heard := make(chan durable.Signal, 10)
	ctx, cancel := context.WithCancel(t.Context())
	var watching sync.WaitGroup
	watching.Go(func() { _ = s.Watch(ctx, func(s durable.Signal) { heard <- s }) })
	defer watching.Wait()
	defer cancel()
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
	if sig := <-heard; sig&durable.SignalTasks == 0 {
		t.Errorf("heard %b", sig)
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
			tx.Add(job.With(1))
			if _, err := tx.ExecContext(ctx, `INSERT INTO users VALUES ('slow')`); err != nil {
				return err
			}
			if runs == 1 {
				close(blocked)
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
