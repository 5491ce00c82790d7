package wake_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/wake-go/wake"
	"github.com/wake-go/wake/background"
	"github.com/wake-go/wake/durable"
	"github.com/wake-go/wake/durable/memory"
	"github.com/wake-go/wake/waketest"
)

// A flakyStore can be told to fail, and counts.
type flakyStore struct {
	*memory.Store
	fails   atomic.Pointer[error]
	commits atomic.Int64 // with inserts
}

func newFlakyStore() *flakyStore { return &flakyStore{Store: memory.New(memory.Config{})} }

func (s *flakyStore) Commit(ctx context.Context, b *durable.Batch) (*durable.BatchResult, error) {
	if err := s.fails.Load(); err != nil {
		return nil, *err
	}
	if len(b.Inserts) > 0 {
		s.commits.Add(1)
	}
	return s.Store.Commit(ctx, b)
}

func (s *flakyStore) Ping(ctx context.Context) error {
	if err := s.fails.Load(); err != nil {
		return *err
	}
	return s.Store.Ping(ctx)
}

func (s *flakyStore) fail(err error) { s.fails.Store(&err) }
func (s *flakyStore) mend()          { s.fails.Store(nil) }

type idAnswer struct {
	ID durable.ID `json:"id"`
}

// stores are what tests of the queue run on.
func stores(t *testing.T, test func(t *testing.T, with waketest.Option)) {
	t.Run("memory", func(t *testing.T) { test(t, waketest.Store(memory.New(memory.Config{}))) })
	t.Run("sqlite", func(t *testing.T) { test(t, waketest.With(wake.OpenStore(newSQLite(t)))) })
}

func TestTheDeliveryLadder(t *testing.T) {
	stores(t, func(t *testing.T, with waketest.Option) {
		app, w := newWorld()
		app.Tasks(noted)
		wake.Post(app, "/", func(ctx context.Context, _ *none, c wake.Call[*world]) (idAnswer, error) {
			c.Tasks.Add(noted.With("memory"))
			return idAnswer{c.Queue.Add(noted.With("queue"))}, nil
		})
		client := waketest.Start(t, app, with)
		var answer idAnswer
		client.Post("/", nil, "X-Request-Id", "r-1").JSON(&answer)
		w.expect(t, "memory")
		task, err := client.Queue().Get(t.Context(), answer.ID)
		if err != nil || task.State != durable.Ready || task.Meta.RequestID != "r-1" {
			t.Fatalf("after the answer the task is %+v, %v", task, err)
		}
		if got := waketest.Queued(client, noted); !slices.Equal(got, []string{"queue"}) {
			t.Errorf("queued: %q", got)
		}
		client.RunQueue()
		w.expect(t, "memory", "queue")
		if task, err = client.Queue().Get(t.Context(), answer.ID); err != nil || task.State != durable.Succeeded {
			t.Errorf("after the run: %+v, %v", task, err)
		}
	})
}

func TestAnOperationThatFailsQueuesNothing(t *testing.T) {
	app, w := newWorld()
	app.Tasks(noted)
	add := func(c wake.Call[*world]) {
		c.Queue.Add(noted.With("never"))
		c.Tasks.Add(noted.With("never"))
	}
	wake.Post(app, "/error", func(_ context.Context, _ *none, c wake.Call[*world]) (none, error) {
		add(c)
		return none{}, wake.Errorf(http.StatusConflict, "no")
	})
	wake.Post(app, "/panic", func(_ context.Context, _ *none, c wake.Call[*world]) (none, error) {
		add(c)
		panic("no")
	})
	wake.Post(app, "/encode", func(_ context.Context, _ *none, c wake.Call[*world]) (map[string]any, error) {
		add(c)
		return map[string]any{"no": func() {}}, nil
	})
	client := waketest.Start(t, app, waketest.Store(memory.New(memory.Config{})))
	expectStatus(t, client.Post("/error", nil), http.StatusConflict)
	expectStatus(t, client.Post("/panic", nil), http.StatusInternalServerError)
	expectStatus(t, client.Post("/encode", nil), http.StatusInternalServerError)
	client.RunQueue()
	w.expect(t)
	if got := waketest.Queued(client, noted); len(got) != 0 {
		t.Errorf("queued: %q", got)
	}
}

func TestAllTasksOfAnOperationAreOneCommit(t *testing.T) {
	app, _ := newWorld()
	app.Tasks(noted)
	wake.Post(app, "/", func(_ context.Context, _ *none, c wake.Call[*world]) ([]durable.ID, error) {
		var wg sync.WaitGroup
		for i := range 4 {
			wg.Go(func() { c.Queue.Add(noted.With(fmt.Sprint(i))) })
		}
		wg.Wait()
		return c.Queue.AddAll(noted.With("4"), noted.With("5")), nil
	})
	store := newFlakyStore()
	client := waketest.Start(t, app, waketest.Store(store))
	expectStatus(t, client.Post("/", nil), http.StatusOK)
	if n := store.commits.Load(); n != 1 {
		t.Errorf("%d commits, want one", n)
	}
	got := waketest.Queued(client, noted)
	slices.Sort(got)
	if !slices.Equal(got, []string{"0", "1", "2", "3", "4", "5"}) {
		t.Errorf("queued: %q", got)
	}
}

func TestACommitThatFailsIsAnswered503AndNothingRuns(t *testing.T) {
	app, w := newWorld()
	app.Tasks(noted)
	wake.Post(app, "/", func(_ context.Context, _ *none, c wake.Call[*world]) (textAnswer, error) {
		c.Tasks.Add(noted.With("memory"))
		c.Queue.Add(noted.With("queue"))
		return textAnswer{"promise"}, nil
	})
	wake.Post(app, "/now", func(ctx context.Context, _ *none, c wake.Call[*world]) (none, error) {
		_, err := c.Queue.Now(ctx, noted.With("now"))
		return none{}, err
	})
	store, logs := newFlakyStore(), &logbook{}
	client := waketest.Start(t, app, waketest.Store(store), waketest.With(logs.option(),
		wake.QueueConfig(durable.QueueConfig{CommitTimeout: 200_000_000})))
	store.fail(fmt.Errorf("secret path: %w", durable.ErrUnavailable))
	res := client.Post("/", nil)
	p := problemOf(t, res, http.StatusServiceUnavailable)
	if res.Header.Get("Retry-After") == "" || strings.Contains(res.String(), "secret") || strings.Contains(res.String(), "promise") {
		t.Errorf("%v %v", res, res.Header)
	}
	if !strings.Contains(p.Detail, "could not keep the work") {
		t.Errorf("detail %q", p.Detail)
	}
	if got := fmt.Sprint(logs.line(t, "operation failed")["error"]); !strings.Contains(got, "secret path") {
		t.Errorf("logged %q", got)
	}
	w.expect(t)
	if now := client.Post("/now", nil); now.Header.Get("Retry-After") == "" || strings.Contains(now.String(), "secret") {
		t.Errorf("%v %v", now, now.Header)
	} else {
		problemOf(t, now, http.StatusServiceUnavailable)
	}
	store.mend()
	expectStatus(t, client.Post("/", nil), http.StatusOK)
	w.expect(t, "memory")
}

func TestReadinessFollowsTheStore(t *testing.T) {
	app, _ := newWorld()
	store := newFlakyStore()
	client := waketest.Start(t, app, waketest.Store(store), waketest.Workers())
	expectStatus(t, client.Get("/readyz"), http.StatusOK)
	store.fail(durable.ErrUnavailable)
	res := client.Get("/readyz")
	expectStatus(t, res, http.StatusServiceUnavailable)
	if !strings.Contains(res.String(), "queue") {
		t.Errorf("%v does not name the check", res)
	}
	expectStatus(t, client.Get("/livez"), http.StatusOK) // a restart would not help
	store.mend()
	expectStatus(t, client.Get("/readyz"), http.StatusOK)
}

// unlisted is not given to an application's Tasks.
var (
	unlisted  = wake.Define("unlisted", func(context.Context, *world, string) error { return nil })
	elsewhere = wake.Declare[string]("elsewhere")
	channels  = wake.Define("channels", func(context.Context, *world, chan int) error { return nil })
)

func TestWhatCannotBeQueuedFailsTheOperationAndTheLogSaysWhy(t *testing.T) {
	for name, c := range map[string]struct {
		job  durable.Queueable
		want string
	}{
		"not given to Tasks": {unlisted.With("a"), `"unlisted": this program could not run it from the queue: give the task to app.Tasks`},
		"with an option":     {unlisted.With("a").Key("k"), "give the task to app.Tasks"},
		"unstorable":         {channels.With(nil), "this program could not run it from the queue"},
		"bad option":         {noted.With("a").Priority(4711), "priority 4711"},
		"too large":          {noted.With(strings.Repeat("x", 2<<20)), "MaxPayload"},
		"empty":              {durable.Job{}, "empty Job"},
		"nil":                {nil, "nil job"},
	} {
		t.Run(name, func(t *testing.T) {
			app, w := newWorld()
			app.Tasks(noted, channels)
			wake.Post(app, "/", func(_ context.Context, _ *none, c2 wake.Call[*world]) (none, error) {
				c2.Tasks.Add(noted.With("never"))
				c2.Queue.Add(noted.With("neither"))
				c2.Queue.Add(c.job)
				return none{}, nil
			})
			wake.Post(app, "/now", func(ctx context.Context, _ *none, c2 wake.Call[*world]) (none, error) {
				_, err := c2.Queue.Now(ctx, c.job)
				return none{}, err
			})
			wake.Post(app, "/tx", func(ctx context.Context, _ *none, c2 wake.Call[*world]) (none, error) {
				return none{}, c2.Queue.InTx(ctx, func(_ context.Context, tx *durable.SQLTx) error {
					tx.Add(c.job)
					return nil
				})
			})
			wake.Post(app, "/from", func(ctx context.Context, _ *none, _ wake.Call[*world]) (none, error) {
				_, err := wake.QueueFrom(ctx).Add(ctx, c.job)
				return none{}, err
			})
			var logs logbook
			client := waketest.Start(t, app, waketest.Store(memory.New(memory.Config{})), waketest.With(logs.option()))
			problemOf(t, client.Post("/", nil), http.StatusInternalServerError)
			for _, path := range []string{"/now", "/tx", "/from"} {
				problemOf(t, client.Post(path, nil), http.StatusInternalServerError)
			}
			if got := fmt.Sprint(logs.line(t, "operation failed")["error"]); !strings.Contains(got, c.want) {
				t.Errorf("logged %q, want %q", got, c.want)
			}
			w.expect(t)
			if got := waketest.Queued(client, noted); len(got) > 0 {
				t.Errorf("queued: %q", got)
			}
		})
	}
}

func TestWithoutAQueueTheLogNamesTheMissingLine(t *testing.T) {
	app, w := newWorld()
	app.Tasks(noted)
	wake.Post(app, "/", func(_ context.Context, _ *none, c wake.Call[*world]) (none, error) {
		c.Queue.Add(noted.With("never"))
		return none{}, nil
	})
	wake.Post(app, "/tx", func(ctx context.Context, _ *none, c wake.Call[*world]) (none, error) {
		return none{}, c.Queue.InTx(ctx, func(context.Context, *durable.SQLTx) error { return nil })
	})
	wake.Get(app, "/has", func(ctx context.Context, _ *none, _ wake.Call[*world]) (bool, error) {
		return wake.QueueFrom(ctx) != nil || wake.DB(ctx) != nil, nil
	})
	var logs logbook
	client := waketest.Start(t, app, waketest.With(logs.option()))
	problemOf(t, client.Post("/", nil), http.StatusInternalServerError)
	if got := fmt.Sprint(logs.line(t, "operation failed")["error"]); !strings.Contains(got, `wake.Queue("sqlite:app.db")`) {
		t.Errorf("logged %q", got)
	}
	problemOf(t, client.Post("/tx", nil), http.StatusInternalServerError)
	if res := client.Get("/has"); !strings.Contains(res.String(), "false") {
		t.Errorf("there is a queue: %v", res)
	}
	if app.Queue() != nil {
		t.Error("App.Queue returns one")
	}
	w.expect(t)
}

func TestAKindThatIsOnlyDeclaredMayBeAnotherPrograms(t *testing.T) {
	app, _ := newWorld()
	wake.Post(app, "/", func(_ context.Context, _ *none, c wake.Call[*world]) (idAnswer, error) {
		return idAnswer{c.Queue.Add(elsewhere.With("a"))}, nil
	})
	client := waketest.Start(t, app, waketest.Store(memory.New(memory.Config{})))
	expectStatus(t, client.Post("/", nil), http.StatusOK)
	client.RunQueue() // does not wait for it
	if got := waketest.QueuedKind(client, elsewhere); !slices.Equal(got, []string{"a"}) {
		t.Errorf("queued: %q", got)
	}
}

func TestADuplicatesIDIsAnotherNameForTheTask(t *testing.T) {
	app, w := newWorld()
	app.Tasks(noted)
	wake.Post(app, "/", func(_ context.Context, _ *none, c wake.Call[*world]) (idAnswer, error) {
		return idAnswer{c.Queue.Add(noted.With("once").Key("k"))}, nil
	})
	client := waketest.Start(t, app, waketest.Store(memory.New(memory.Config{})))
	var first, second idAnswer
	client.Post("/", nil).JSON(&first)
	client.Post("/", nil).JSON(&second)
	if first == second {
		t.Fatal("both answers have one id")
	}
	task, err := client.Queue().Get(t.Context(), second.ID)
	if err != nil || task.ID != first.ID {
		t.Errorf("%+v, %v", task, err)
	}
	client.RunQueue()
	w.expect(t, "once")
}

func TestWaitingForATaskOfTheSameOperation(t *testing.T) {
	app, _ := newWorld()
	app.Tasks(doubled)
	wake.Post(app, "/", func(ctx context.Context, _ *none, c wake.Call[*world]) (string, error) {
		id := c.Queue.Add(doubled.With(2))
		_, first := doubled.Wait(ctx, c.Queue, id)
		_, second := doubled.Wait(ctx, wake.QueueFrom(ctx), id)
		return fmt.Sprint(errors.Is(first, durable.ErrNotCommitted), errors.Is(second, durable.ErrNotCommitted)), nil
	})
	wake.Post(app, "/now", func(ctx context.Context, _ *none, c wake.Call[*world]) (int, error) {
		id, err := c.Queue.Now(ctx, doubled.With(21))
		if err != nil {
			return 0, err
		}
		return doubled.Wait(ctx, c.Queue, id)
	})
	client := waketest.Start(t, app, waketest.Store(memory.New(memory.Config{})), waketest.Workers())
	if res := client.Post("/", nil); !strings.Contains(res.String(), "true true") {
		t.Errorf("%v", res)
	}
	if res := client.Post("/now", nil); !strings.Contains(res.String(), ": 42") {
		t.Errorf("%v", res)
	}
}

var doubled = wake.DefineResult("doubled", func(_ context.Context, _ *world, n int) (int, error) { return 2 * n, nil })

func TestAfterTheOperationHasEndedNothingIsQueued(t *testing.T) {
	app, w := newWorld()
	app.Tasks(noted)
	var kept wake.Call[*world]
	wake.Post(app, "/{how}", func(_ context.Context, in *struct {
		How string `path:"how"`
	}, c wake.Call[*world]) (none, error) {
		kept = c
		if in.How == "fails" {
			return none{}, wake.Errorf(http.StatusConflict, "no")
		}
		return none{}, nil
	})
	var logs logbook
	client := waketest.Start(t, app, waketest.Store(memory.New(memory.Config{})), waketest.With(logs.option()))
	for _, how := range []string{"ends", "fails"} {
		client.Post("/"+how, nil)
		if id := kept.Queue.Add(noted.With("late")); !id.IsZero() {
			t.Errorf("%s: Add returned an id: %v", how, id)
		}
		if _, err := kept.Queue.Now(t.Context(), noted.With("late")); !errors.Is(err, background.ErrSealed) {
			t.Errorf("%s: Now: %v", how, err)
		}
		err := kept.Queue.InTx(t.Context(), func(context.Context, *durable.SQLTx) error { return nil })
		if !errors.Is(err, background.ErrSealed) {
			t.Errorf("%s: InTx: %v", how, err)
		}
	}
	if record := logs.line(t, "task refused: it was added to the queue after its operation had ended"); record["task"] != "noted" {
		t.Errorf("logged %v", record)
	}
	client.RunQueue()
	w.expect(t)
}

func TestAZeroCallSaysWhatIsMissing(t *testing.T) {
	var c wake.Call[*world]
	expectPanic(t, func() { c.Queue.Add(noted.With("a")) }, "no queue", "waketest.Call")
	expectPanic(t, func() { (&wake.Outbox{}).InTx(t.Context(), nil) }, "no queue")
}

// http.TimeoutHandler answers in the place of an operation that is too slow.
func TestAnOperationThatIsTooLateQueuesNothing(t *testing.T) {
	app, w := newWorld()
	app.Tasks(noted)
	release, ended := make(chan struct{}), make(chan struct{})
	app.Use(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/" {
				next.ServeHTTP(rw, r)
				return
			}
			http.TimeoutHandler(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				defer close(ended)
				next.ServeHTTP(rw, r)
			}), 1, "too late").ServeHTTP(rw, r)
		})
	})
	wake.Post(app, "/", func(_ context.Context, _ *none, c wake.Call[*world]) (none, error) {
		c.Queue.Add(noted.With("late"))
		<-release
		return none{}, nil
	})
	client := waketest.Start(t, app, waketest.Store(memory.New(memory.Config{})))
	expectStatus(t, client.Post("/", nil), http.StatusServiceUnavailable)
	close(release)
	<-ended
	client.RunQueue()
	w.expect(t)
}

func TestRowsAndTasksOfOneTransaction(t *testing.T) {
	app, w := newWorld()
	app.Tasks(noted)
	wake.Post(app, "/intx/{name}", func(ctx context.Context, in *struct {
		Name string `path:"name"`
	}, c wake.Call[*world]) (none, error) {
		return none{}, c.Queue.InTx(ctx, func(ctx context.Context, tx *durable.SQLTx) error {
			if _, err := tx.ExecContext(ctx, "insert into person (name) values (?)", in.Name); err != nil {
				return wake.Errorf(http.StatusConflict, "%s is taken", in.Name)
			}
			tx.Add(noted.With(in.Name))
			return nil
		})
	})
	wake.Post(app, "/addtx/{name}", func(ctx context.Context, in *struct {
		Name string `path:"name"`
	}, c wake.Call[*world]) (none, error) {
		tx, err := wake.DB(ctx).BeginTx(ctx, nil)
		if err != nil {
			return none{}, err
		}
		defer tx.Rollback()
		if _, err := c.Queue.AddTx(ctx, tx, noted.With(in.Name)); err != nil {
			return none{}, err
		}
		if _, err := tx.ExecContext(ctx, "insert into person (name) values (?)", in.Name); err != nil {
			return none{}, wake.Errorf(http.StatusConflict, "%s is taken", in.Name)
		}
		return none{}, tx.Commit()
	})
	life := func(ctx context.Context, yield func(*world) error) error {
		if _, err := wake.DB(ctx).ExecContext(ctx, "create table person (name text primary key)"); err != nil {
			return err
		}
		return yield(w)
	}
	client := waketest.StartWith(t, app, life, waketest.With(wake.OpenStore(newSQLite(t))))
	expectStatus(t, client.Post("/intx/Ada", nil, "X-Request-Id", "r-7"), http.StatusNoContent)
	expectStatus(t, client.Post("/intx/Ada", nil), http.StatusConflict)
	expectStatus(t, client.Post("/addtx/Bob", nil), http.StatusNoContent)
	expectStatus(t, client.Post("/addtx/Ada", nil), http.StatusConflict)
	tasks, err := client.Queue().List(t.Context(), durable.Filter{}, durable.Page{})
	if err != nil || len(tasks) != 2 || tasks[0].Meta.RequestID != "r-7" && tasks[1].Meta.RequestID != "r-7" {
		t.Errorf("%+v, %v", tasks, err)
	}
	client.RunQueue()
	got := w.all()
	slices.Sort(got)
	if !slices.Equal(got, []string{"Ada", "Bob"}) {
		t.Errorf("ran: %q", got)
	}
}

func TestTheLifespanHasTheQueueFromItsFirstLineToItsLast(t *testing.T) {
	app, w := newWorld()
	app.Tasks(noted)
	var db *sql.DB
	life := func(ctx context.Context, yield func(*world) error) error {
		db = wake.DB(ctx)
		if _, err := wake.QueueFrom(ctx).Add(ctx, noted.With("set-up")); err != nil {
			return err
		}
		err := yield(w)
		if _, adding := durable.QueueFrom(ctx).Add(ctx, noted.With("clean-up")); adding != nil {
			err = errors.Join(err, adding)
		}
		return errors.Join(err, db.PingContext(ctx))
	}
	open := newSQLite(t)
	client := waketest.StartWith(t, app, life, waketest.With(wake.OpenStore(open)))
	client.RunQueue()
	w.expect(t, "set-up")
	if err := client.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := db.Ping(); err == nil {
		t.Error("the store is open after the application's end")
	}
	client = waketest.Start(t, app, waketest.With(wake.OpenStore(open)))
	client.RunQueue()
	w.expect(t, "set-up", "clean-up")
}

func TestAJobsTraceAndRequestGoWithIt(t *testing.T) {
	app, w := newWorld()
	told := wake.Define("told", func(ctx context.Context, w *world, _ string) error {
		info, _ := durable.InfoFrom(ctx)
		b, err := json.Marshal(info.Meta)
		w.note(string(b))
		return err
	})
	app.Tasks(told)
	wake.Post(app, "/", func(_ context.Context, _ *none, c wake.Call[*world]) (none, error) {
		c.Queue.Add(told.With("a").Owner("Ada"))
		return none{}, nil
	})
	client := waketest.Start(t, app, waketest.Store(memory.New(memory.Config{})))
	const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	client.Post("/", nil, "X-Request-Id", "r-1", "Traceparent", trace)
	client.Post("/", nil, "X-Request-Id", "r-2", "Traceparent", strings.ToUpper(trace))
	client.RunQueue()
	got := w.all()
	slices.Sort(got)
	want := []string{`{"request_id":"r-1","traceparent":"` + trace + `","owner":"Ada"}`, `{"request_id":"r-2","owner":"Ada"}`}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestAStreamQueuesAtOnce(t *testing.T) {
	app, w := newWorld()
	app.Tasks(noted)
	wake.Stream(app, "/events", func(ctx context.Context, _ *none, c wake.StreamCall[*world]) error {
		if _, err := c.Queue.Add(ctx, noted.With("from a stream")); err != nil {
			return err
		}
		return errors.New("the stream fails")
	})
	client := waketest.Start(t, app, waketest.Store(memory.New(memory.Config{})))
	expectStatus(t, client.Get("/events"), http.StatusInternalServerError)
	client.RunQueue()
	w.expect(t, "from a stream")
}
