package wake_test

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/wake-go/wake/durable"
	"github.com/wake-go/wake/durable/sqlite"
)

// newSQLite opens a file of the test's, the same one each time.
func newSQLite(t *testing.T) func(context.Context) (durable.Store, error) {
	path := filepath.Join(t.TempDir(), "queue.db")
	return func(ctx context.Context) (durable.Store, error) {
		return sqlite.Open(ctx, sqlite.Config{Path: path, Relaxed: true, Ballast: -1})
	}
}
