package sqlite_test

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wake-go/wake/durable"
	"github.com/wake-go/wake/durable/sqlite"
)

// add adds one task in a batch of its own.
func add(ctx context.Context, s durable.Store) (durable.ID, error) {
	in := newInsert("k")
	res, err := s.Commit(ctx, &durable.Batch{Inserts: []durable.Insert{in}})
	if err != nil {
		return in.ID, err
	}
	return in.ID, res.Inserted[0].Err
}

// Users who write without a pause, one or eight, and the engine take turns.
func TestNeitherSideStarves(t *testing.T) {
	for name, users := range map[string]int{"one user": 1, "eight users": 8} {
		t.Run(name, func(t *testing.T) {
			s := open(t, sqlite.Config{Relaxed: true})
			mustExec(t, s.DB(), `CREATE TABLE counters (n INTEGER)`)
			var written, added atomic.Int64
			stop := make(chan struct{})
			var all sync.WaitGroup
			for range users {
				all.Go(func() {
					for {
						select {
						case <-stop:
							return
						default:
						}
						if _, err := s.DB().Exec(`INSERT INTO counters VALUES (1)`); err != nil {
							t.Error(err)
							return
						}
						written.Add(1)
					}
				})
			}
			for range 300 {
				if _, err := add(t.Context(), s); err != nil {
					t.Fatal(err)
				}
				added.Add(1)
			}
			close(stop)
			all.Wait()
			// Every other turn is the engine's, and it is not always there to take it.
			if w := written.Load(); w < 30 {
				t.Errorf("the users wrote %d times while the engine wrote 300 times", w)
			} else if users > 1 && w > 300*20 {
				t.Errorf("the users wrote %d times while the engine wrote 300 times", w)
			}
		})
	}
}

// A transaction that its user holds keeps others waiting no longer than they
// want, and an error says why.
func TestHeldTransaction(t *testing.T) {
	s := open(t, sqlite.Config{BusyTimeout: 20 * time.Millisecond})
	tx, err := s.DB().BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := add(ctx, s); !errors.Is(err, durable.ErrUnavailable) || !strings.Contains(err.Error(), "held the write lock") {
		t.Errorf("add beside a transaction: %v", err)
	}
	reading, err := s.DB().BeginTx(t.Context(), &sql.TxOptions{ReadOnly: true})
	if err != nil {
		t.Fatalf("a read waits for a write: %v", err)
	}
	if _, err := reading.Exec(`INSERT INTO wake_queue VALUES ('x', 1)`); err != nil && !strings.Contains(err.Error(), "locked") {
		t.Error(err)
	}
	if err := errors.Join(reading.Rollback(), tx.Rollback()); err != nil {
		t.Fatal(err)
	}
	if _, err := add(t.Context(), s); err != nil {
		t.Errorf("add when the transaction has ended: %v", err)
	}
}

// A user's transaction whose context ends gives its turn back.
func TestCancelledTransactionGivesItsTurnBack(t *testing.T) {
	s := open(t, sqlite.Config{})
	mustExec(t, s.DB(), `CREATE TABLE t (n INTEGER)`)
	for range 20 {
		ctx, cancel := context.WithCancel(t.Context())
		tx, err := s.DB().BeginTx(ctx, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO t VALUES (1)`); err != nil {
			t.Fatal(err)
		}
		cancel()
		if _, err := add(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	if n := count(t, s.DB(), "t"); n != 0 {
		t.Errorf("%d rows of cancelled transactions", n)
	}
}

// Another process that holds the file's lock is an error that says so, and
// forgotten when it is gone.
func TestLockedByAnother(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.db")
	s := open(t, sqlite.Config{Path: path, BusyTimeout: 20 * time.Millisecond})
	foreign, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer foreign.Close()
	conn, err := foreign.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.ExecContext(t.Context(), `BEGIN IMMEDIATE`); err != nil {
		t.Fatal(err)
	}
	id, err := add(t.Context(), s)
	if !errors.Is(err, durable.ErrUnavailable) || !strings.Contains(err.Error(), "lock") {
		t.Errorf("add to a locked file: %v", err)
	}
	if _, err := conn.ExecContext(t.Context(), `ROLLBACK`); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(t.Context(), id); !errors.Is(err, durable.ErrNotFound) {
		t.Errorf("what was refused: %v", err)
	}
	if _, err := add(t.Context(), s); err != nil {
		t.Errorf("add when the lock is gone: %v", err)
	}
}

// A read that stays open does not let the log grow beyond its bound: it is
// ended, with an error that says why, and the log begins anew.
func TestLogStaysBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.db")
	s := open(t, sqlite.Config{Path: path, Relaxed: true, MaxWAL: 8 << 20, MaxRead: 10 * time.Millisecond})
	reading, err := s.DB().BeginTx(t.Context(), &sql.TxOptions{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	if n := 0; reading.QueryRow(`SELECT count(*) FROM wake_task`).Scan(&n) != nil {
		t.Fatal("the read does not begin")
	}
	conn := pinned(t, s)
	rows, err := conn.QueryContext(t.Context(), `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i, (SELECT count(*) FROM wake_task) FROM n`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	rows.Next()
	payload := []byte(`"` + strings.Repeat("x", 100<<10) + `"`)
	var largest int64
	ended := false
	for written := 0; written < 400<<20 && !ended; written += 50 * len(payload) {
		ins := make([]durable.Insert, 50)
		for i := range ins {
			ins[i] = newInsert("k")
			ins[i].Payload = payload
		}
		commit(t, s, &durable.Batch{Inserts: ins})
		largest = max(largest, s.WALSize())
		_, err := reading.Query(`SELECT 1`)
		ended = err != nil
	}
	if !ended {
		t.Fatalf("the read has not been ended; the log had %d bytes", largest)
	}
	if _, err := reading.Query(`SELECT 1`); !errors.Is(err, durable.ErrUnavailable) || !strings.Contains(err.Error(), "open for longer") {
		t.Errorf("the read was ended with: %v", err)
	}
	for rows.Next() {
	}
	if err := rows.Err(); !errors.Is(err, durable.ErrUnavailable) {
		t.Errorf("the rows were ended with: %v", err)
	}
	mustRun(t, conn, `SELECT 1`)
	if err := reading.Rollback(); err != nil && !errors.Is(err, durable.ErrUnavailable) {
		t.Error(err)
	}
	if n := count(t, s.DB(), "wake_task"); n == 0 {
		t.Error("the connection is of no use after that")
	}
}

func TestDamagedFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.db")
	if err := os.WriteFile(path, []byte(strings.Repeat("this is no database. ", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := sqlite.Open(t.Context(), sqlite.Config{Path: path}); err == nil || !strings.Contains(err.Error(), "damaged or no SQLite database") {
		t.Errorf("open: %v", err)
	}
	if b, err := os.ReadFile(path); err != nil || !strings.HasPrefix(string(b), "this is no database") {
		t.Errorf("the file was changed: %v", err)
	}
}

// Pages that are damaged while the store is open are errors to those who need
// them, and nobody is told that something was stored that was not.
func TestDamageWhileOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.db")
	s, err := sqlite.Open(t.Context(), sqlite.Config{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	for range 100 {
		if _, err := add(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil { // everything is in the file
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	for at := int64(3 * 4096); at < info.Size(); at += 4096 {
		if _, err := f.WriteAt([]byte(strings.Repeat("\xff", 200)), at); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	s, err = sqlite.Open(t.Context(), sqlite.Config{Path: path})
	if err == nil {
		_, err = add(t.Context(), s)
		defer s.Close()
	}
	if !errors.Is(err, durable.ErrUnavailable) || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("a damaged file: %v", err)
	}
}

// Lengths, names and bytes that nobody expects.
func TestStrangeRows(t *testing.T) {
	s := open(t, sqlite.Config{})
	names := []string{"a'b", `a"b`, "a\nb", "🚢", "<script>alert(1)</script>", strings.Repeat("n", 500)}
	for _, name := range names {
		in := newInsert(name)
		in.Queue, in.Key, in.Payload = name, name, []byte("\x00\xff"+name)
		commit(t, s, &durable.Batch{Inserts: []durable.Insert{in}})
		got, err := s.Get(t.Context(), in.ID)
		if err != nil || got.Kind != name || got.Queue != name || got.Key != name || string(got.Payload) != string(in.Payload) {
			t.Errorf("%q comes back as %+v, %v", name, got, err)
		}
	}
	bad := newInsert("k")
	bad.Kind = "nul\x00"
	worse := newInsert("k")
	worse.Queue = "\xff"
	good := newInsert("k")
	res := commit(t, s, &durable.Batch{Inserts: []durable.Insert{bad, good, worse}})
	if res.Inserted[0].Err == nil || res.Inserted[1].Err != nil || res.Inserted[2].Err == nil {
		t.Errorf("answers %+v", res.Inserted)
	}
}

// The file is for its owner alone, and so are those beside it.
func TestFilesArePrivate(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "test.db")
	s := open(t, sqlite.Config{Path: path})
	if _, err := add(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) < 5 {
		t.Fatalf("%d files: %v", len(files), err)
	}
	for _, f := range files {
		if info, err := f.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", f.Name(), info.Mode(), err)
		}
	}
}
