package postgres_test

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/wake-go/wake/durable"
	"github.com/wake-go/wake/durable/postgres"
)

// serverURL is that of the tests' server. A test is skipped where there is
// none, and fails in continuous integration, which has one.
func serverURL(t testing.TB) string {
	t.Helper()
	url := os.Getenv("WAKE_TEST_POSTGRES")
	if url == "" {
		url = "postgres://postgres@127.0.0.1:5432/postgres?sslmode=disable"
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("no PostgreSQL server, which CI must have: %v", err)
		}
		t.Skipf("no PostgreSQL server; name one in WAKE_TEST_POSTGRES: %v", err)
	}
	if err := conn.Close(ctx); err != nil {
		t.Fatal(err)
	}
	return url
}

// newSchema makes a name, and drops the schema when the test is over.
func newSchema(t testing.TB, url string) string {
	t.Helper()
	schema := "wake_test_" + strings.ReplaceAll(durable.NewID().String(), "-", "")
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		conn, err := pgx.Connect(ctx, url)
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close(ctx)
		if _, err := conn.Exec(ctx, `DROP SCHEMA IF EXISTS `+schema+` CASCADE`, pgx.QueryExecModeSimpleProtocol); err != nil {
			t.Error(err)
		}
	})
	return schema
}

// open opens a store, in a schema of its own unless one is named.
func open(t testing.TB, cfg postgres.Config) *postgres.Store {
	t.Helper()
	if cfg.URL == "" {
		cfg.URL = serverURL(t)
	}
	if cfg.Schema == "" {
		cfg.Schema = newSchema(t, cfg.URL)
	}
	s, err := postgres.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func newInsert(kind string) durable.Insert {
	return durable.Insert{ID: durable.NewID(), Kind: kind, Queue: durable.DefaultQueue, MaxAttempts: 3, Payload: []byte(`{"user":"ada","mail":"ada@example.test","lang":"en"}`)}
}

func commit(t testing.TB, s durable.Store, b *durable.Batch) *durable.BatchResult {
	t.Helper()
	res, err := s.Commit(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// register makes a process known.
func register(t testing.TB, s durable.Store, n durable.Node) durable.Boot {
	t.Helper()
	n.Boot = durable.Boot(durable.NewID())
	if n.Lease == 0 {
		n.Lease = 30 * time.Second
	}
	if _, err := s.Register(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	return n.Boot
}

func claims(limit int, kinds ...string) []durable.Claim {
	return []durable.Claim{{Queue: durable.DefaultQueue, Kinds: kinds, Limit: limit}}
}

func mustExec(t testing.TB, db *sql.DB, query string, args ...any) {
	t.Helper()
	if _, err := db.ExecContext(t.Context(), query, args...); err != nil {
		t.Fatal(err)
	}
}

// value asks for a single value, as text.
func value(t testing.TB, db *sql.DB, query string, args ...any) (v string) {
	t.Helper()
	if err := db.QueryRowContext(t.Context(), query, args...).Scan(&v); err != nil {
		t.Fatal(err)
	}
	return v
}

// eventually waits until something is so.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !is() {
		if time.Now().After(deadline) {
			t.Fatalf("it did not come to that: %s", what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func table(schema, name string) string { return fmt.Sprintf("%s.%s", schema, name) }
