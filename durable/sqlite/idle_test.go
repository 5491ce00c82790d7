package sqlite_test

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/wake-go/wake/durable"
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
	expectQuiet(t, s)
}

// expectQuiet counts how often the file changes for a while.
func expectQuiet(t *testing.T, s *sqlite.Store) {
	t.Helper()
	conn, err := s.DB().Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	const while, most = 2 * time.Second, 20
	var before, after int64
	changes := -1 // the first look finds one
	for end := time.Now().Add(while); time.Now().Before(end); {
		if err := conn.QueryRowContext(t.Context(), `PRAGMA data_version`).Scan(&after); err != nil {
			t.Fatal(err)
		}
		if after != before {
			changes++
			before = after
		}
		time.Sleep(time.Millisecond)
	}
	if changes > most {
		t.Errorf("the file changed %d times in %v, in which nothing happened", changes, while)
	}
}

// A cancelled task that takes its time to end is no reason to write, either.
func TestATaskThatIsToEndIsNoNews(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.db")
	s := open(t, sqlite.Config{Path: path})
	open(t, sqlite.Config{Path: path}) // so that what others do is looked at
	q := durable.NewQueue(s)
	defer q.Close(context.Background())
	cancelled, released := make(chan struct{}), make(chan struct{})
	e := durable.NewEngine(q, job.Run(func(ctx context.Context, _ int) error {
		<-ctx.Done()
		close(cancelled)
		<-released
		return nil
	}))
	if err := e.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	id, err := q.Add(t.Context(), job.With(1))
	if err != nil {
		t.Fatal(err)
	}
	for state := durable.Ready; state != durable.Running; {
		task, err := q.Get(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		state = task.State
	}
	if _, err := q.Cancel(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	<-cancelled
	expectQuiet(t, s)
	close(released)
	if err := e.Drain(t.Context()); err != nil {
		t.Error(err)
	}
}
