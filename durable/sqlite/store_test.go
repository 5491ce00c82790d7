package sqlite_test

import (
	"database/sql"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/wake-go/wake/durable"
	"github.com/wake-go/wake/durable/sqlite"
	"github.com/wake-go/wake/durable/storetest"
)

// fixture is what the suite needs of a file. It is not synced, which would
// only make the suite slower: no test here can cut the power.
func fixture(t *testing.T) *storetest.Fixture {
	t.Helper()
	var mu sync.Mutex
	var handles []*sqlite.Store
	var advanced time.Duration
	cfg := sqlite.Config{Path: filepath.Join(t.TempDir(), "test.db"), Relaxed: true, Ballast: -1}
	open := func() *sqlite.Store {
		s, err := sqlite.Open(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		mu.Lock()
		defer mu.Unlock()
		s.Advance(advanced)
		handles = append(handles, s)
		return s
	}
	first := open()
	f := &storetest.Fixture{}
	*f = storetest.Fixture{
		Store: first,
		Advance: func(d time.Duration) {
			mu.Lock()
			defer mu.Unlock()
			advanced += d
			for _, s := range handles {
				s.Advance(d)
			}
		},
		Reopen: func() durable.Store { return open() },
		Crash: func() { // a process that is killed unregisters nothing
			if err := f.Store.Close(); err != nil {
				t.Error(err)
			}
		},
		DB: first.DB(),
		BeginTx: func() *sql.Tx {
			tx, err := first.DB().Begin()
			if err != nil {
				t.Fatal(err)
			}
			return tx
		},
		Close: func() {
			for _, s := range handles {
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			}
		},
	}
	return f
}

func TestStore(t *testing.T) { storetest.Run(t, fixture) }

func TestModel(t *testing.T) { storetest.Model(t, fixture) }
