package sqlite_test

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/wake-go/wake/durable"
	"github.com/wake-go/wake/durable/sqlite"
)

// pinned returns a connection of the user's.
func pinned(t *testing.T, s *sqlite.Store) *sql.Conn {
	t.Helper()
	c, err := s.DB().Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// mustRun runs statements on one connection.
func mustRun(t *testing.T, c *sql.Conn, queries ...string) {
	t.Helper()
	for _, query := range queries {
		if _, err := c.ExecContext(t.Context(), query); err != nil {
			t.Fatalf("%s: %v", query, err)
		}
	}
}

// mustWait checks that the store's writers queue behind a user's.
func mustWait(t *testing.T, s *sqlite.Store) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := add(ctx, s); err == nil || !strings.Contains(err.Error(), "held the write lock") {
		t.Errorf("add beside a user's transaction: %v", err)
	}
}

func mustAdd(t *testing.T, s *sqlite.Store) {
	t.Helper()
	if _, err := add(t.Context(), s); err != nil {
		t.Errorf("add when the transaction has ended: %v", err)
	}
}

// A transaction that is begun by hand takes its turn like others, instead of
// waiting for a writer that waits for it.
func TestTransactionByHand(t *testing.T) {
	s := open(t, sqlite.Config{BusyTimeout: 50 * time.Millisecond})
	c := pinned(t, s)
	mustRun(t, c, `CREATE TABLE users (name TEXT PRIMARY KEY)`)
	for _, begin := range []string{"BEGIN IMMEDIATE", "begin", "SAVEPOINT x"} {
		mustRun(t, c, begin, `DELETE FROM users`, `INSERT INTO users VALUES ('ada')`)
		mustWait(t, s)
		if _, err := c.BeginTx(t.Context(), nil); err == nil {
			t.Error("a transaction was begun in another one")
		}
		end := "COMMIT"
		if begin == "SAVEPOINT x" {
			end = "RELEASE x"
		}
		mustRun(t, c, end)
		mustAdd(t, s)
	}
	mustRun(t, c, `BEGIN IMMEDIATE`)
	if _, err := c.ExecContext(t.Context(), `INSERT OR ROLLBACK INTO users VALUES ('ada')`); err == nil {
		t.Error("no conflict")
	}
	mustAdd(t, s) // the conflict has ended the transaction
	mustRun(t, c, `BEGIN IMMEDIATE; INSERT INTO users VALUES ('eve'); COMMIT`)
	mustAdd(t, s)
	mustRun(t, c, `BEGIN`)
	if n := count(t, s.DB(), "users"); n != 2 {
		t.Errorf("%d users", n)
	}
	mustAdd(t, s) // nothing has been written yet
	mustRun(t, c, `ROLLBACK`)
}

// A connection that goes back to its pool in a transaction does not keep the
// write lock for ever.
func TestConnectionGoesBackInATransaction(t *testing.T) {
	s := open(t, sqlite.Config{BusyTimeout: 50 * time.Millisecond})
	mustExec(t, s.DB(), `CREATE TABLE users (name TEXT)`)
	c := pinned(t, s)
	mustRun(t, c, `BEGIN IMMEDIATE`, `INSERT INTO users VALUES ('ada')`)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	mustAdd(t, s)
	if n := count(t, s.DB(), "users"); n != 0 {
		t.Errorf("%d users of a transaction that was not committed", n)
	}
}

// What comes in a transaction after SQLite has rolled it back is refused:
// otherwise it would be committed by itself, at once.
func TestTransactionRolledBackByAnError(t *testing.T) {
	for name, fail := range map[string]func(*sql.Tx) error{
		"a conflict": func(tx *sql.Tx) error {
			_, err := tx.Exec(`INSERT OR ROLLBACK INTO users VALUES ('ada')`)
			return err
		},
		"an interrupt": func(tx *sql.Tx) error {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			defer cancel()
			_, err := tx.ExecContext(ctx, `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) INSERT INTO users SELECT i FROM n`)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, sqlite.Config{})
			mustExec(t, s.DB(), `CREATE TABLE users (name TEXT PRIMARY KEY)`)
			for _, commits := range []bool{false, true} {
				tx, err := s.DB().Begin()
				if err != nil {
					t.Fatal(err)
				}
				if _, err := tx.Exec(`INSERT INTO users VALUES ('ada')`); err != nil {
					t.Fatal(err)
				}
				if err := fail(tx); err == nil {
					t.Fatal("no error")
				}
				if _, err := tx.Exec(`INSERT INTO users VALUES ('eve')`); !errors.Is(err, durable.ErrTxDone) {
					t.Errorf("a statement after the rollback: %v", err)
				}
				if _, err := s.InsertTx(t.Context(), durable.SQL(tx), []durable.Insert{newInsert("k")}); !errors.Is(err, durable.ErrTxDone) {
					t.Errorf("a task after the rollback: %v", err)
				}
				if commits {
					if err := tx.Commit(); !errors.Is(err, durable.ErrTxDone) {
						t.Errorf("commit: %v", err)
					}
				} else if err := tx.Rollback(); err != nil {
					t.Errorf("rollback: %v", err)
				}
				if n := count(t, s.DB(), "users") + count(t, s.DB(), "wake_task"); n != 0 {
					t.Errorf("%d rows of a transaction that was rolled back", n)
				}
			}
			mustAdd(t, s)
		})
	}
}

// A function that writes past its transaction, on the database handle, is told
// so at once, instead of waiting for itself while nobody else can write.
func TestFunctionWritesPastItsTransaction(t *testing.T) {
	s := open(t, sqlite.Config{})
	mustExec(t, s.DB(), `CREATE TABLE users (name TEXT)`)
	q := durable.NewQueue(s)
	defer q.Close(context.Background())
	begun := time.Now()
	runs := 0
	err := q.InTx(t.Context(), func(ctx context.Context, tx *durable.SQLTx) error {
		runs++
		if n := 0; s.DB().QueryRowContext(ctx, `SELECT count(*) FROM users`).Scan(&n) != nil {
			t.Error("it cannot read")
		}
		if _, err := s.DB().BeginTx(ctx, nil); err == nil {
			t.Error("it has begun another transaction")
		}
		_, err := s.DB().ExecContext(ctx, `INSERT INTO users VALUES ('ada')`)
		return err
	})
	if err == nil || !strings.Contains(err.Error(), "use the transaction that the function has got") || runs != 1 {
		t.Errorf("after %d runs and %v: %v", runs, time.Since(begun), err)
	}
	if n := count(t, s.DB(), "users"); n != 0 {
		t.Errorf("%d users", n)
	}
}

// An error that undoes its own statement, and what a savepoint undoes, leave
// the transaction as it was.
func TestTransactionGoesOnAfterAnError(t *testing.T) {
	s := open(t, sqlite.Config{})
	mustExec(t, s.DB(), `CREATE TABLE users (name TEXT PRIMARY KEY)`)
	tx, err := s.DB().Begin()
	if err != nil {
		t.Fatal(err)
	}
	for _, query := range []string{
		`INSERT INTO users VALUES ('ada')`, `INSERT INTO users VALUES ('ada')`, `no statement`,
		`SAVEPOINT x`, `INSERT INTO users VALUES ('eve')`, `ROLLBACK TO x`, `RELEASE x`,
	} {
		_, _ = tx.Exec(query)
	}
	if _, err := s.InsertTx(t.Context(), durable.SQL(tx), []durable.Insert{newInsert("k")}); err != nil {
		t.Error(err)
	}
	if err := tx.Commit(); err != nil {
		t.Error(err)
	}
	if n, tasks := count(t, s.DB(), "users"), count(t, s.DB(), "wake_task"); n != 1 || tasks != 1 {
		t.Errorf("%d users and %d tasks, want 1 and 1", n, tasks)
	}
	f := &durable.Func{Run: func(tx *durable.SQLTx) error {
		_, _ = tx.ExecContext(context.Background(), `INSERT INTO users VALUES ('ada')`)
		_, err := tx.ExecContext(context.Background(), `INSERT INTO users VALUES ('eve')`)
		return err
	}}
	if commit(t, s, &durable.Batch{Funcs: []*durable.Func{f}}); f.Err != nil {
		t.Errorf("a function that goes on after an error: %v", f.Err)
	}
}
