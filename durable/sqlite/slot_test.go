package sqlite_test

import (
	"context"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/gofrs/flock"

	"github.com/wake-go/wake/durable/sqlite"
)

// Those who give up waiting for another process's writer leave nothing behind:
// it may be stopped for hours. When it goes on, so do they.
func TestWaitsForAnotherProcessAreGivenUp(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.db")
	other, turn := flock.New(path+"-wake-2"), flock.New(path+"-wake-lock")
	for _, lock := range []*flock.Flock{other, turn} {
		if err := lock.Lock(); err != nil {
			t.Fatal(err)
		}
		defer lock.Close()
	}
	s := open(t, sqlite.Config{Path: path})
	giveUp := func() {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Millisecond)
		defer cancel()
		if _, err := add(ctx, s); err == nil {
			t.Fatal("a task was added out of turn")
		}
	}
	giveUp()
	before := runtime.NumGoroutine()
	for range 50 {
		giveUp()
	}
	if n := runtime.NumGoroutine() - before; n > 10 {
		t.Errorf("%d goroutines more for 50 waits that were given up", n)
	}
	if err := turn.Unlock(); err != nil {
		t.Fatal(err)
	}
	if _, err := add(t.Context(), s); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if ok, err := turn.TryLockContext(ctx, time.Millisecond); !ok { // nobody keeps the turn
		t.Error(err)
	}
	if err := turn.Unlock(); err != nil {
		t.Fatal(err)
	}
}
