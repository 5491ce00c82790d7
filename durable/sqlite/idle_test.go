package sqlite_test

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/wake-go/wake/durable/sqlite"
)

// Processes that share a file and have nothing to do leave it alone: what one
// writes to say that it lives does not make the others write.
func TestIdleProcessesAreQuiet(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.db")
	s := open(t, sqlite.Config{Path: path})
	for range 2 {
		start(t, "work", path)
	}
	var before, after int64
	if err := s.DB().QueryRow(`PRAGMA data_version`).Scan(&before); err != nil {
		t.Fatal(err)
	}
	conn, err := s.DB().Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	changes := 0
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); {
		if err := conn.QueryRowContext(t.Context(), `PRAGMA data_version`).Scan(&after); err != nil {
			t.Fatal(err)
		}
		if after != before {
			changes++
			before = after
		}
		time.Sleep(time.Millisecond)
	}
	t.Logf("%d changes in two seconds", changes)
	if changes > 20 {
		t.Errorf("two idle processes changed the file %d times in two seconds", changes)
	}
}
