package sqlite_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/wake-go/wake/durable"
	"github.com/wake-go/wake/durable/sqlite"
)

func newNode() durable.Node {
	return durable.Node{Boot: durable.Boot(durable.NewID()), Worker: true, Kinds: []string{"k"}, Lease: time.Minute}
}

// Processes that know the file by different names see each other: one that
// lives is not taken for a dead predecessor.
func TestProcessesByDifferentNames(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.db")
	link := filepath.Join(t.TempDir(), "link.db")
	first := open(t, sqlite.Config{Path: path})
	if err := os.Symlink(path, link); err != nil {
		t.Skip(err)
	}
	n := newNode()
	if _, err := first.Register(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	commit(t, first, &durable.Batch{Boot: n.Boot, Inserts: []durable.Insert{newInsert("k")}, Claims: []durable.Claim{{Queue: durable.DefaultQueue, Kinds: []string{"k"}, Limit: 1}}})
	second := open(t, sqlite.Config{Path: link})
	if reg, err := second.Register(t.Context(), newNode()); err != nil || reg.Swept != (durable.Swept{}) {
		t.Errorf("the second process took back %+v of the first one, which lives: %v", reg.Swept, err)
	}
	if _, err := first.Beat(t.Context(), n.Boot); err != nil {
		t.Errorf("the first process: %v", err)
	}
}

// A program may change its directory.
func TestDirectoryChanges(t *testing.T) {
	t.Chdir(t.TempDir())
	s := open(t, sqlite.Config{Path: "test.db"})
	elsewhere := t.TempDir()
	t.Chdir(elsewhere)
	if _, err := add(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	if s.WALSize() == 0 {
		t.Error("the write-ahead log is not found any more")
	}
	if entries, err := os.ReadDir(elsewhere); err != nil || len(entries) > 0 {
		t.Errorf("files in the new directory: %v %v", entries, err)
	}
}

// Nothing is acknowledged that is written to a file which nobody will find.
func TestFileIsGone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.db")
	s := open(t, sqlite.Config{Path: path})
	if _, err := add(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path, path+".moved"); err != nil {
		t.Skip(err) // the system does not let that happen
	}
	mustRefuse := func(why string) {
		t.Helper()
		if _, err := add(t.Context(), s); !errors.Is(err, durable.ErrUnavailable) {
			t.Errorf("the file was %s, and add returns %v", why, err)
		}
		if err := s.Ping(t.Context()); !errors.Is(err, durable.ErrUnavailable) {
			t.Errorf("the file was %s, and Ping returns %v", why, err)
		}
	}
	mustRefuse("moved")
	if err := os.Rename(path+".moved", path); err != nil {
		t.Fatal(err)
	}
	if _, err := add(t.Context(), s); err != nil {
		t.Errorf("the file is back, and add returns %v", err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	mustRefuse("replaced")
}
