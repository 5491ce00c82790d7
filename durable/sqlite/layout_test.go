package sqlite_test

import (
	"bytes"
	"database/sql"
	"strings"
	"testing"

	"github.com/wake-go/wake/durable"
	"github.com/wake-go/wake/durable/sqlite"
)

// What is acknowledged is synced, unless a test wants it otherwise: with less
// than FULL a power cut loses commits.
func TestCommitsAreSynced(t *testing.T) {
	const off, full = 0, 2
	for relaxed, want := range map[bool]int{false: full, true: off} {
		s := open(t, sqlite.Config{Relaxed: relaxed})
		var synchronous int
		var mode string
		if err := s.DB().QueryRow(`PRAGMA synchronous`).Scan(&synchronous); err != nil {
			t.Fatal(err)
		}
		if err := s.DB().QueryRow(`PRAGMA journal_mode`).Scan(&mode); err != nil {
			t.Fatal(err)
		}
		if synchronous != want || mode != "wal" {
			t.Errorf("Relaxed %v: synchronous is %d, want %d; the journal is %q", relaxed, synchronous, want, mode)
		}
	}
}

// A large argument stays in the row that it was inserted into when its task
// moves, and goes when the task is deleted.
func TestLargeArgumentsDoNotMove(t *testing.T) {
	s := open(t, sqlite.Config{})
	boot := durable.Boot(durable.NewID())
	small, large := newInsert("k"), newInsert("k")
	large.Payload = []byte(`"` + strings.Repeat("x", 4<<10) + `"`)
	res := commit(t, s, &durable.Batch{
		Boot: boot, Inserts: []durable.Insert{small, large},
		Claims: []durable.Claim{{Queue: durable.DefaultQueue, Kinds: []string{"k"}, Limit: 2}},
	})
	check := func(table string) {
		t.Helper()
		for _, in := range []durable.Insert{small, large} {
			var payload []byte
			var kept sql.NullString
			row := s.DB().QueryRow(`SELECT t.payload, b.payload FROM `+table+` t LEFT JOIN wake_blob b USING (seq) WHERE id = ?`, in.ID[:])
			if err := row.Scan(&payload, &kept); err != nil {
				t.Fatal(err)
			}
			apart := len(in.Payload) > 1<<10
			if kept.Valid != apart || (payload == nil) != apart || apart && kept.String != string(in.Payload) {
				t.Errorf("%s: an argument of %d bytes: %d in the row, apart: %v", table, len(in.Payload), len(payload), kept.Valid)
			}
		}
	}
	check("wake_task")
	for _, c := range res.Claimed {
		commit(t, s, &durable.Batch{Boot: boot, Finishes: []durable.Finish{{Ref: c.Ref, Move: durable.MoveSucceed}}})
	}
	check("wake_done")
	if task, err := s.Get(t.Context(), large.ID); err != nil || !bytes.Equal(task.Payload, large.Payload) {
		t.Errorf("the argument of the finished task has changed: %v", err)
	}
	if err := s.Delete(t.Context(), large.ID); err != nil {
		t.Fatal(err)
	}
	if n := count(t, s.DB(), "wake_blob"); n != 0 {
		t.Errorf("%d arguments are left of a task that was deleted", n)
	}
}
