//go:build unix

package sqlite_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/wake-go/wake/durable"
	"github.com/wake-go/wake/durable/sqlite"
)

// A worker that was stopped for longer than its lease changes nothing when it
// goes on, and its task is told why.
func TestZombieIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.db")
	s := open(t, sqlite.Config{Path: path})
	q := durable.NewQueue(s)
	defer q.Close(t.Context())
	first := start(t, "zombie", path)
	id := stoppedWith(t, first, s, q)
	second := start(t, "hold", path)
	second.until("holds 7") // when the lease has ended
	before, err := q.Get(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	first.signal(syscall.SIGCONT)
	if why := first.until("told"); why != durable.ErrLeaseLost.Error() {
		t.Errorf("the zombie's task was told %q", why)
	}
	// Its outcome has been refused when it has registered anew and taken another task.
	next, err := q.Add(t.Context(), job.With(8))
	if err != nil {
		t.Fatal(err)
	}
	first.untilEither(second, "holds 8")
	if _, err := q.Cancel(t.Context(), next); err != nil {
		t.Fatal(err)
	}
	if _, err := q.WaitFor(t.Context(), next); err != nil {
		t.Fatal(err)
	}
	task, err := q.Get(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	if before.State != durable.Running || before.Fence != 2 || !reflect.DeepEqual(task, before) {
		t.Errorf("the task was %+v and is %+v; want it running with the second worker, untouched by the first", before, task)
	}
}

// stoppedWith stops the process while it runs a task. Each time that it has to
// be let go on its lease gets shorter, until it has lost it and ended the task.
func stoppedWith(t *testing.T, p *process, s *sqlite.Store, q *durable.Queue) durable.ID {
	t.Helper()
	for range 20 {
		id, err := q.Add(t.Context(), job.With(7))
		if err != nil {
			t.Fatal(err)
		}
		p.until("holds")
		p.stop(s)
		task, err := q.Get(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if task.State == durable.Running && task.Fence == 1 {
			return id
		}
		p.signal(syscall.SIGCONT)
	}
	t.Fatal("the process had always ended its task when it was stopped")
	return durable.ID{}
}

// untilEither waits until one of two processes says a word.
func (p *process) untilEither(other *process, word string) {
	p.t.Helper()
	deadline := time.After(patience)
	for {
		var line string
		select {
		case line = <-p.lines:
		case line = <-other.lines:
		case <-deadline:
			p.t.Fatalf("no process has said %q", word)
		}
		if strings.HasPrefix(line, word) {
			return
		}
	}
}

// stop stops a process outside of its transactions: one that is stopped in the
// middle of one keeps the file locked for everybody, until it goes on.
func (p *process) stop(s *sqlite.Store) {
	p.t.Helper()
	for range 100 {
		p.signal(syscall.SIGSTOP)
		for !p.stopped() {
			runtime.Gosched()
		}
		ctx, cancel := context.WithTimeout(p.t.Context(), 200*time.Millisecond)
		_, err := s.Commit(ctx, &durable.Batch{})
		cancel()
		if err == nil {
			return
		}
		p.signal(syscall.SIGCONT)
	}
	p.t.Fatal("the process was in a transaction whenever it was stopped")
}

// stopped reports whether all threads of the process have stopped.
func (p *process) stopped() bool {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", p.cmd.Process.Pid))
	if err != nil || len(threads) == 0 {
		p.t.Skip("there is no /proc to see from whether a process has stopped")
	}
	for _, path := range threads {
		stat, err := os.ReadFile(path)
		if err != nil {
			return false
		}
		if _, after, _ := strings.Cut(string(stat), ") "); !strings.HasPrefix(after, "T") {
			return false
		}
	}
	return true
}
