package postgres_test

import (
	"context"
	"strconv"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/wake-go/wake/durable"
	"github.com/wake-go/wake/durable/postgres"
)

// fill inserts n tasks of a lane in a state, as many as would take long to
// look through.
func fill(t testing.TB, s *postgres.Store, schema, kind string, state durable.State, n int) {
	t.Helper()
	commit(t, s, &durable.Batch{Inserts: []durable.Insert{newInsert(kind)}}) // makes the lane
	mustExec(t, s.DB(), `INSERT INTO `+table(schema, "task")+` (id, lane, state, rank, max_attempts, run_at, created_at, payload)
		SELECT gen_random_uuid(), (SELECT id FROM `+table(schema, "lane")+` WHERE kind = $1), $2, -5, 3, now() + $3 * interval '1 hour', now(), '{}' FROM generate_series(1, $4::integer)`,
		kind, int16(state), map[bool]int{true: 1}[state == durable.Scheduled], n)
	mustExec(t, s.DB(), `ANALYZE `+table(schema, "task"))
}

// scans returns how often the tables of tasks were read as a whole, by
// anything else than ANALYZE and the filling of indexes.
func scans(t testing.TB, s *postgres.Store, schema string) int {
	t.Helper()
	// A session's counts are known when it has ended.
	eventually(t, "the sessions have ended", func() bool {
		return value(t, s.DB(), `SELECT count(*) FROM pg_stat_activity WHERE application_name = $1`, schema) == "0"
	})
	n, err := strconv.Atoi(value(t, s.DB(), `SELECT sum(seq_scan) FROM pg_stat_user_tables WHERE schemaname = $1 AND relname IN ('task', 'done', 'blob', 'attempt_error', 'alias', 'tag')`, schema))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// No statement that runs often reads a whole table, whatever else there is in
// it, also when its plan has been made for all parameters.
func TestNothingScansTasks(t *testing.T) {
	server := serverURL(t)
	schema := newSchema(t, server)
	s := open(t, postgres.Config{URL: server, Schema: schema})
	fill(t, s, schema, "unknown", durable.Ready, 20_000)
	fill(t, s, schema, "later", durable.Scheduled, 20_000)
	before := scans(t, s, schema)
	worker, err := postgres.Open(t.Context(), postgres.Config{URL: server + "&application_name=" + schema, Schema: schema})
	if err != nil {
		t.Fatal(err)
	}
	boot := register(t, worker, durable.Node{})
	for i := range 20 {
		b := &durable.Batch{Boot: boot, Claims: claims(10, "k", "none")}
		for range 10 {
			in := newInsert("k")
			in.Tags = []string{"t"}
			if i%3 == 0 {
				in.Key, in.Payload = in.ID.String(), make([]byte, 2000)
			}
			b.Inserts = append(b.Inserts, in)
		}
		claimed := commit(t, worker, b).Claimed
		if len(claimed) != 10 {
			t.Fatalf("%d claimed", len(claimed))
		}
		done := &durable.Batch{Boot: boot}
		for j, c := range claimed {
			f := durable.Finish{Ref: c.Ref, Move: []durable.Move{durable.MoveSucceed, durable.MoveExhaust, durable.MoveFail}[j%3], Delay: time.Hour}
			if f.Move != durable.MoveSucceed {
				f.Error = &durable.AttemptError{Attempt: 1, Cause: "error"}
			}
			done.Finishes = append(done.Finishes, f)
			done.Progress = append(done.Progress, durable.ProgressUpdate{Ref: c.Ref})
		}
		commit(t, worker, done)
		if _, err := worker.Get(t.Context(), claimed[0].Ref.ID); err != nil {
			t.Fatal(err)
		}
		if _, err := worker.Beat(t.Context(), boot); err != nil {
			t.Fatal(err)
		}
		if _, err := worker.Reconcile(t.Context(), boot, nil); err != nil {
			t.Fatal(err)
		}
		if _, err := worker.Sweep(t.Context(), boot); err != nil {
			t.Fatal(err)
		}
	}
	if err := worker.Close(); err != nil {
		t.Fatal(err)
	}
	if after := scans(t, s, schema); after != before {
		t.Errorf("whole tables were read %d times", after-before)
	}
}

// Behind a transaction that has been open for long, what has been finished
// since stays in the indexes. Claims do not walk through it.
func TestClaimsBehindALongTransaction(t *testing.T) {
	server := serverURL(t)
	schema := newSchema(t, server)
	s := open(t, postgres.Config{URL: server + "&synchronous_commit=off", Schema: schema})
	boot := register(t, s, durable.Node{})
	conn, err := pgx.Connect(t.Context(), server)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(t.Context(), `BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM `+table(schema, "task"), pgx.QueryExecModeSimpleProtocol); err != nil {
		t.Fatal(err)
	}
	cycle := func(n int) time.Duration {
		t.Helper()
		b := &durable.Batch{Boot: boot, Claims: claims(n, "k")}
		for range n {
			b.Inserts = append(b.Inserts, newInsert("k"))
		}
		start := time.Now()
		claimed := commit(t, s, b).Claimed
		took := time.Since(start)
		if len(claimed) != n {
			t.Fatalf("%d claimed, want %d", len(claimed), n)
		}
		done := &durable.Batch{Boot: boot}
		for _, c := range claimed {
			done.Finishes = append(done.Finishes, durable.Finish{Ref: c.Ref, Move: durable.MoveSucceed})
		}
		commit(t, s, done)
		return took
	}
	measure := func() time.Duration {
		var took []time.Duration
		for range 41 {
			took = append(took, cycle(5))
		}
		return median(took)
	}
	commit(t, s, &durable.Batch{Inserts: []durable.Insert{newInsert("k"), newInsert("k")}}) // always one more than is claimed
	early := measure()
	const dead = 30_000
	for range dead / 1000 {
		cycle(1000)
	}
	late := measure()
	t.Logf("a commit that claims took %v early and %v late", early, late)
	if late > 2*early+time.Millisecond {
		t.Errorf("a commit that claims took %v, and %v behind %d tasks that have finished and cannot be cleared away", early, late, dead)
	}
}
