package sqlite_test

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/wake-go/wake/durable/sqlite"
)

// locked reports whether somebody has the database open, as another open file
// sees it: SQLite holds a lock on a range of the file as long as it does.
func locked(t *testing.T, path string) bool {
	t.Helper()
	const sharedFirst, sharedSize = 0x40000000 + 2, 510
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	l := unix.Flock_t{Type: unix.F_WRLCK, Start: sharedFirst, Len: sharedSize}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &l); err != nil {
		t.Skipf("the system does not tell of such locks: %v", err)
	}
	return l.Type != unix.F_UNLCK
}

// Somebody else in the process who opens the database's file and closes it
// takes no lock of SQLite's away, which the usual kind of lock would let happen.
func TestLocksSurviveAnotherOpening(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.db")
	s := open(t, sqlite.Config{Path: path})
	for range 3 { // to look is to open and to close
		if !locked(t, path) {
			t.Fatal("the lock of an open database is gone")
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if locked(t, path) {
		t.Error("a lock is held after the store was closed")
	}
}
