package sqlite_test

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	_ "modernc.org/sqlite" // the raw database's driver

	"github.com/wake-go/wake/durable"
	"github.com/wake-go/wake/durable/sqlite"
)

// A mail is the argument of a task: about 80 bytes of JSON.
type mail struct {
	To       string `json:"to"`
	Template string `json:"template"`
	Language string `json:"language"`
}

var (
	aMail    = mail{"ada.lovelace@example.test", "welcome-to-the-service", "en"}
	sendMail = durable.Declare[mail]("send_mail")
)

// A raw database is what can be had of SQLite: a table with the columns that a
// queue needs at least and one index, and one goroutine that commits for all.
type raw struct {
	db      *sql.DB
	in      chan chan error
	payload []byte
}

func openRaw(b *testing.B) *raw {
	b.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(b.TempDir(), "raw.db")+"?_txlock=immediate&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=cache_size(-16384)")
	if err != nil {
		b.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	b.Cleanup(func() { db.Close() })
	if _, err := db.Exec(`CREATE TABLE task (id INTEGER PRIMARY KEY, kind TEXT, state INTEGER, run_at INTEGER, created_at INTEGER, payload BLOB); CREATE INDEX ready ON task (state, id)`); err != nil {
		b.Fatal(err)
	}
	return &raw{db: db, in: make(chan chan error, 1024), payload: []byte(`{"to":"ada.lovelace@example.test","template":"welcome-to-the-service","language":"en"}`)}
}

// run commits, in one transaction, whatever waits.
func (r *raw) run(b *testing.B) {
	insert, err := r.db.Prepare(`INSERT INTO task (kind, state, run_at, created_at, payload) VALUES ('send_mail', 1, ?, ?, ?)`)
	if err != nil {
		b.Error(err)
		return
	}
	defer insert.Close()
	for first := range r.in {
		group := []chan error{first}
		for len(group) < 1000 && len(r.in) > 0 {
			group = append(group, <-r.in)
		}
		err := r.commit(insert, len(group))
		for _, done := range group {
			done <- err
		}
	}
}

func (r *raw) commit(insert *sql.Stmt, n int) error {
	tx, err := r.db.Begin()
	if err != nil {
		return err
	}
	in := tx.Stmt(insert)
	for range n {
		now := time.Now().UnixMicro()
		if _, err := in.Exec(now, now, r.payload); err != nil {
			return err
		}
	}
	return tx.Commit()
}

// callers calls f from many goroutines b.N times in all.
func callers(b *testing.B, n int, f func() error) {
	b.Helper()
	var left atomic.Int64
	left.Store(int64(b.N))
	var all sync.WaitGroup
	b.ResetTimer()
	for range n {
		all.Go(func() {
			for left.Add(-1) >= 0 {
				if err := f(); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tasks/s")
}

func BenchmarkEnqueue(b *testing.B) {
	for _, n := range []int{1, 64, 512} {
		b.Run(fmt.Sprintf("raw/callers=%d", n), func(b *testing.B) {
			r := openRaw(b)
			var writer sync.WaitGroup
			writer.Go(func() { r.run(b) })
			pool := sync.Pool{New: func() any { return make(chan error, 1) }}
			callers(b, n, func() error {
				done := pool.Get().(chan error)
				defer pool.Put(done)
				r.in <- done
				return <-done
			})
			close(r.in)
			writer.Wait()
		})
		b.Run(fmt.Sprintf("wake/callers=%d", n), func(b *testing.B) {
			q := durable.NewQueue(open(b, sqlite.Config{}))
			defer q.Close(context.Background())
			b.ReportAllocs()
			callers(b, n, func() error {
				_, err := q.Add(context.Background(), sendMail.With(aMail))
				return err
			})
		})
	}
}

// engine runs sendMail's tasks with a function until the test ends.
func engine(b *testing.B, q *durable.Queue, workers int, run func(context.Context, mail) error) {
	b.Helper()
	e, err := durable.EngineConfig{Queues: map[string]int{durable.DefaultQueue: workers}}.NewEngine(q, sendMail.Run(run))
	if err != nil {
		b.Fatal(err)
	}
	if err := e.Start(context.Background()); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := e.Drain(context.Background()); err != nil {
			b.Error(err)
		}
	})
}

// Work measures tasks that do nothing, their outcomes committed.
func BenchmarkWork(b *testing.B) {
	for _, workers := range []int{100, 1000} {
		b.Run(fmt.Sprintf("workers=%d", workers), func(b *testing.B) {
			q := durable.NewQueue(open(b, sqlite.Config{}))
			defer q.Close(context.Background())
			for left := b.N; left > 0; left -= 1000 {
				jobs := make([]durable.Queueable, min(left, 1000))
				for i := range jobs {
					jobs[i] = sendMail.With(aMail)
				}
				if _, err := q.AddAll(context.Background(), jobs...); err != nil {
					b.Fatal(err)
				}
			}
			var done atomic.Int64
			all := make(chan struct{})
			b.ReportAllocs()
			b.ResetTimer()
			engine(b, q, workers, func(context.Context, mail) error {
				if done.Add(1) == int64(b.N) {
					close(all)
				}
				return nil
			})
			<-all
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tasks/s")
		})
	}
}

// Mixed measures 64 callers who add while workers run.
func BenchmarkMixed(b *testing.B) {
	for _, users := range []int{0, 8} {
		b.Run(fmt.Sprintf("users=%d", users), func(b *testing.B) {
			s := open(b, sqlite.Config{})
			q := durable.NewQueue(s)
			defer q.Close(context.Background())
			mustExec(b, s.DB(), `CREATE TABLE counters (n INTEGER)`)
			var done, written atomic.Int64
			engine(b, q, 100, func(context.Context, mail) error { done.Add(1); return nil })
			stop := make(chan struct{})
			var writers sync.WaitGroup
			for range users {
				writers.Go(func() {
					for {
						select {
						case <-stop:
							return
						default:
							if _, err := s.DB().Exec(`INSERT INTO counters VALUES (1)`); err != nil {
								b.Error(err)
								return
							}
							written.Add(1)
						}
					}
				})
			}
			var times latencies
			callers(b, 64, func() error {
				defer times.since(time.Now())
				_, err := q.Add(context.Background(), sendMail.With(aMail))
				return err
			})
			b.ReportMetric(float64(done.Load())/b.Elapsed().Seconds(), "worked/s")
			b.ReportMetric(float64(written.Load())/b.Elapsed().Seconds(), "user-tx/s")
			times.report(b)
			close(stop)
			writers.Wait()
		})
	}
}

// latencies are how long calls took.
type latencies struct {
	mu  sync.Mutex
	all []time.Duration
}

func (l *latencies) since(start time.Time) {
	d := time.Since(start)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, d)
}

func (l *latencies) report(b *testing.B) {
	slices.Sort(l.all)
	at := func(q float64) float64 {
		return float64(l.all[int(q*float64(len(l.all)-1))]) / float64(time.Millisecond)
	}
	b.ReportMetric(at(0.5), "p50-ms")
	b.ReportMetric(at(0.99), "p99-ms")
}

// Idle measures from add to start of a task in a process that does nothing
// else, beside one insert that is synced.
func BenchmarkIdleLatency(b *testing.B) {
	b.Run("raw insert", func(b *testing.B) {
		r := openRaw(b)
		insert, err := r.db.Prepare(`INSERT INTO task (kind, state, run_at, created_at, payload) VALUES ('send_mail', 1, ?, ?, ?)`)
		if err != nil {
			b.Fatal(err)
		}
		defer insert.Close()
		var times latencies
		for b.Loop() {
			start := time.Now()
			if err := r.commit(insert, 1); err != nil {
				b.Fatal(err)
			}
			times.since(start)
		}
		times.report(b)
	})
	b.Run("add to start", func(b *testing.B) {
		q := durable.NewQueue(open(b, sqlite.Config{}))
		defer q.Close(context.Background())
		started := make(chan time.Time)
		engine(b, q, 10, func(context.Context, mail) error { started <- time.Now(); return nil })
		var times latencies
		for b.Loop() {
			start := time.Now()
			go q.Add(context.Background(), sendMail.With(aMail)) //nolint:errcheck // it starts, or the benchmark hangs
			at := <-started
			times.all = append(times.all, at.Sub(start))
		}
		times.report(b)
	})
}

// InTx measures a user's row and a task in one transaction: shared with
// others, or one each.
func BenchmarkInTx(b *testing.B) {
	for _, shared := range []bool{true, false} {
		b.Run(fmt.Sprintf("shared=%t/callers=64", shared), func(b *testing.B) {
			s := open(b, sqlite.Config{})
			q := durable.NewQueue(s)
			defer q.Close(context.Background())
			mustExec(b, s.DB(), `CREATE TABLE users (name TEXT, at INTEGER)`)
			const insert = `INSERT INTO users VALUES (?, ?)`
			ctx := context.Background()
			var times latencies
			callers(b, 64, func() error {
				defer times.since(time.Now())
				if shared {
					return q.InTx(ctx, func(ctx context.Context, tx *durable.SQLTx) error {
						tx.Add(sendMail.With(aMail))
						_, err := tx.ExecContext(ctx, insert, "ada", 1)
						return err
					})
				}
				tx, err := s.DB().BeginTx(ctx, nil)
				if err != nil {
					return err
				}
				if _, err := tx.ExecContext(ctx, insert, "ada", 1); err != nil {
					return err
				}
				if _, err := q.AddTx(ctx, tx, sendMail.With(aMail)); err != nil {
					return err
				}
				return tx.Commit()
			})
			times.report(b)
		})
	}
}

// rows fills the store directly, many at a time.
func fill(b *testing.B, s *sqlite.Store, n int, change func(*durable.Insert)) {
	b.Helper()
	for left := n; left > 0; left -= 1000 {
		ins := make([]durable.Insert, min(left, 1000))
		for i := range ins {
			ins[i] = newInsert("filler")
			change(&ins[i])
		}
		commit(b, s, &durable.Batch{Inserts: ins})
	}
}

// Claim measures adding ten tasks, claiming them and ending them behind what
// else there is: in turns in a file with ten such rows and in one with many,
// a hundred thousand or what the environment's WAKE_BENCH_ROWS says.
func BenchmarkClaim(b *testing.B) {
	boot := durable.Boot(durable.NewID())
	claim := []durable.Claim{{Queue: "default", Kinds: []string{"k"}, Limit: 10}}
	for _, behind := range []struct {
		name   string
		change func(*durable.Insert)
		then   func(*sqlite.Store)
	}{
		{"ready", func(in *durable.Insert) { in.Kind = "k" }, nil},
		{"scheduled", func(in *durable.Insert) { in.Kind, in.Delay, in.Priority = "k", time.Hour, 10 }, nil},
		{"unknown kind", func(in *durable.Insert) { in.Priority = 10 }, nil},
		{"paused", func(in *durable.Insert) { in.Kind, in.Queue, in.Priority = "k", "paused", 10 }, func(s *sqlite.Store) {
			if err := s.SetPaused(b.Context(), "paused", true); err != nil {
				b.Fatal(err)
			}
		}},
		{"finished", func(in *durable.Insert) { in.Kind = "k" }, func(s *sqlite.Store) {
			for {
				res := commit(b, s, &durable.Batch{Boot: boot, Claims: []durable.Claim{{Queue: "default", Kinds: []string{"k"}, Limit: 1000}}})
				if len(res.Claimed) == 0 {
					return
				}
				commit(b, s, &durable.Batch{Boot: boot, Finishes: finishes(res.Claimed)})
			}
		}},
	} {
		b.Run(fmt.Sprintf("%s/rows=%d", behind.name, benchRows(b)), func(b *testing.B) {
			var files [2]*claimer
			for i, n := range []int{10, benchRows(b)} {
				s := open(b, sqlite.Config{Relaxed: true}) // the disk's time would hide the claim's
				fill(b, s, n, behind.change)
				if behind.then != nil {
					behind.then(s)
				}
				files[i] = &claimer{store: s, boot: boot, claim: claim}
			}
			for b.Loop() {
				for _, f := range files {
					f.round(b)
				}
			}
			few, many := files[0].median(), files[1].median()
			b.ReportMetric(few.Seconds()*1e6, "few-µs")
			b.ReportMetric(many.Seconds()*1e6, "many-µs")
			b.ReportMetric(float64(many)/float64(few), "ratio")
		})
	}
}

// A claimer measures rounds in one file.
type claimer struct {
	store *sqlite.Store
	boot  durable.Boot
	claim []durable.Claim
	done  []durable.Finish
	times []time.Duration
}

func (c *claimer) round(b *testing.B) {
	ins := make([]durable.Insert, 10)
	for i := range ins {
		ins[i] = newInsert("k")
	}
	start := time.Now()
	res := commit(b, c.store, &durable.Batch{Boot: c.boot, Finishes: c.done, Inserts: ins, Claims: c.claim})
	c.times = append(c.times, time.Since(start))
	if len(res.Claimed) != 10 {
		b.Fatalf("%d were claimed", len(res.Claimed))
	}
	c.done = finishes(res.Claimed)
}

func (c *claimer) median() time.Duration {
	slices.Sort(c.times)
	return c.times[len(c.times)/2]
}

func finishes(claimed []durable.Claimed) []durable.Finish {
	done := make([]durable.Finish, len(claimed))
	for i, c := range claimed {
		done[i] = durable.Finish{Ref: c.Ref, Move: durable.MoveSucceed}
	}
	return done
}

func benchRows(b *testing.B) int {
	b.Helper()
	text := os.Getenv("WAKE_BENCH_ROWS")
	if text == "" {
		return 100_000
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		b.Fatalf("WAKE_BENCH_ROWS: %v", err)
	}
	return n
}
