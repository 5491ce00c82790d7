package postgres_test

import (
	"database/sql"
	"net/url"
	"sync"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/wake-go/wake/durable"
	"github.com/wake-go/wake/durable/postgres"
	"github.com/wake-go/wake/durable/storetest"
)

// fixture is what the suite needs of a schema. The user's tables are in it as
// well, so that they are dropped with it, and commits do not wait for the disk:
// no test here can cut the power.
func fixture(t *testing.T) *storetest.Fixture { return newFixture(t, serverURL(t)) }

// pooled is a fixture behind a pooler.
func pooled(t *testing.T) *storetest.Fixture {
	network, url := newProxy(t, serverURL(t))
	network.pooler = true
	return newFixture(t, url)
}

func newFixture(t *testing.T, server string) *storetest.Fixture {
	t.Helper()
	var mu sync.Mutex
	var handles []*postgres.Store
	var advanced time.Duration
	schema := newSchema(t, server)
	u, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	q.Set("search_path", schema)
	q.Set("synchronous_commit", "off")
	u.RawQuery = q.Encode()
	cfg := postgres.Config{URL: u.String(), Schema: schema}
	open := func() *postgres.Store {
		s, err := postgres.Open(t.Context(), cfg)
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
	db, err := sql.Open("pgx", u.String())
	if err != nil {
		t.Fatal(err)
	}
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
		DB: db,
		BeginTx: func() *sql.Tx {
			tx, err := db.Begin()
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
			if err := db.Close(); err != nil {
				t.Error(err)
			}
		},
	}
	return f
}

func TestStore(t *testing.T) { storetest.Run(t, fixture) }

// It is the whole suite again, as everything is said to the server otherwise.
func TestStoreBehindAPooler(t *testing.T) { storetest.Run(t, pooled) }

func TestModel(t *testing.T) { storetest.Model(t, fixture) }
