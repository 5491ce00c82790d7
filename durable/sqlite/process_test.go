package sqlite_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/wake-go/wake/durable"
	"github.com/wake-go/wake/durable/sqlite"
)

// patience is how long a test waits for what should come soon.
const patience = 30 * time.Second

// TestMain is also the other process of tests that need one.
func TestMain(m *testing.M) {
	if role := os.Getenv("WAKE_TEST_ROLE"); role != "" {
		if err := roles()[role](os.Getenv("WAKE_TEST_PATH")); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

var job = durable.Declare[int]("job", durable.WithBackoff(durable.Constant(0)))

func roles() map[string]func(path string) error {
	return map[string]func(string) error{
		"add":    addForever,
		"hold":   func(path string) error { return runEngine(path, hold, 30*time.Second) },
		"zombie": func(path string) error { return runEngine(path, zombie, 2*time.Second) },
		"work":   func(path string) error { return runEngine(path, note, 30*time.Second) },
		"die":    func(path string) error { return runEngine(path, die, 30*time.Second) },
	}
}

// addForever adds tasks from several goroutines and says which have been
// acknowledged.
func addForever(path string) error {
	s, err := sqlite.Open(context.Background(), sqlite.Config{Path: path})
	if err != nil {
		return err
	}
	q := durable.NewQueue(s)
	fmt.Println("ready")
	var n atomic.Int64
	failed := make(chan error)
	for range 8 {
		go func() {
			for {
				id, err := q.Add(context.Background(), job.With(int(n.Add(1))))
				if err != nil {
					failed <- err
					return
				}
				fmt.Println("added", id)
			}
		}()
	}
	return <-failed
}

func runEngine(path string, handler func(context.Context, int) error, lease time.Duration) error {
	s, err := sqlite.Open(context.Background(), sqlite.Config{Path: path})
	if err != nil {
		return err
	}
	q := durable.NewQueue(s)
	e, err := durable.EngineConfig{Lease: lease, OnEvent: func(ev durable.Event) {
		if lost, ok := ev.(durable.LeaseLost); ok {
			fmt.Printf("lease lost %+v\n", lost)
		}
	}}.NewEngine(q, job.Run(handler))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() { // ends with its parent
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	fmt.Println("ready")
	return e.Run(ctx)
}

func hold(ctx context.Context, n int) error {
	fmt.Println("holds", n)
	<-ctx.Done()
	return context.Cause(ctx)
}

func zombie(ctx context.Context, n int) error {
	fmt.Println("holds", n)
	<-ctx.Done()
	durable.Progress(ctx, 1, 2, "from the grave")
	if context.Cause(ctx) == durable.ErrCancelled {
		return ctx.Err()
	}
	fmt.Println("told", context.Cause(ctx))
	return nil // as if it had not noticed
}

func note(_ context.Context, n int) error {
	fmt.Println("ran", n)
	return nil
}

func die(_ context.Context, n int) error {
	fmt.Println("dies of", n)
	if n == 13 {
		os.Exit(9)
	}
	return nil
}

// A process is another one on the same file.
type process struct {
	t     *testing.T
	cmd   *exec.Cmd
	stdin io.Closer
	lines chan string
}

func start(t *testing.T, role, path string) *process {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "WAKE_TEST_ROLE="+role, "WAKE_TEST_PATH="+path)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, cmd: cmd, stdin: in, lines: make(chan string, 1<<16)}
	read := make(chan struct{})
	go func() {
		defer close(read)
		defer close(p.lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			p.lines <- s.Text()
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-read
		_ = cmd.Wait() // it was killed
		_ = in.Close()
	})
	p.until("ready")
	return p
}

// until returns the rest of the first line that begins with a word.
func (p *process) until(word string) string {
	p.t.Helper()
	deadline := time.After(patience)
	var seen []string
	for {
		select {
		case line, ok := <-p.lines:
			if !ok {
				p.t.Fatalf("the process ended before it said %q; it said %q", word, seen)
			}
			if rest, ok := strings.CutPrefix(line, word); ok {
				return strings.TrimSpace(rest)
			}
			seen = append(seen, line)
		case <-deadline:
			p.t.Fatalf("the process has not said %q; it said %q", word, seen)
		}
	}
}

func (p *process) signal(sig syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		p.t.Fatal(err)
	}
}

// rest returns what the process said until it ended.
func (p *process) rest() (lines []string) {
	for line := range p.lines {
		lines = append(lines, line)
	}
	return lines
}

// What has been acknowledged is there after a kill at any moment.
func TestAcknowledgedSurvivesKill(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.db")
	acknowledged := map[string]bool{}
	for range 5 {
		p := start(t, "add", path)
		for range 200 {
			acknowledged[p.until("added")] = true
		}
		p.signal(syscall.SIGKILL)
		for _, line := range p.rest() {
			if id, ok := strings.CutPrefix(line, "added "); ok && len(id) == 36 { // the last line may be cut
				acknowledged[id] = true
			}
		}
	}
	s := open(t, sqlite.Config{Path: path})
	for id := range acknowledged {
		parsed, err := durable.ParseID(id)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Get(t.Context(), parsed); err != nil {
			t.Errorf("%d acknowledged, but: %v", len(acknowledged), err)
		}
	}
	var check string
	if err := s.DB().QueryRow(`PRAGMA integrity_check`).Scan(&check); err != nil || check != "ok" {
		t.Errorf("integrity check: %s %v", check, err)
	}
}

// A process that starts after a kill has its predecessor's tasks at once, long
// before the lease ends, and so has one that was running beside it.
func TestTasksOfAKilledProcessRunAtOnce(t *testing.T) {
	for name, beside := range map[string]bool{"restarted": false, "beside": true} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "test.db")
			s := open(t, sqlite.Config{Path: path})
			q := durable.NewQueue(s)
			defer q.Close(t.Context())
			first := start(t, "hold", path)
			id, err := q.Add(t.Context(), job.With(1))
			if err != nil {
				t.Fatal(err)
			}
			first.until("holds")
			var second *process
			if beside {
				second = start(t, "work", path)
			}
			killed := time.Now()
			first.signal(syscall.SIGKILL)
			first.rest()
			if !beside {
				second = start(t, "work", path)
			}
			second.until("ran 1")
			t.Logf("runs again %v after the kill", time.Since(killed))
			done, err := q.WaitFor(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			if done.State != durable.Succeeded || done.Crashes != 1 || done.Attempt != 1 || len(done.Errors) != 1 || done.Errors[0].Cause != "crash" {
				t.Errorf("the task is %+v; want one crash, which is no attempt", done)
			}
		})
	}
}

// A task that kills its process is parked after the third time; others go on.
func TestPoisonIsParked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.db")
	s := open(t, sqlite.Config{Path: path})
	q := durable.NewQueue(s)
	defer q.Close(t.Context())
	poison, err := q.Add(t.Context(), job.With(13))
	if err != nil {
		t.Fatal(err)
	}
	good, err := q.Add(t.Context(), job.With(1))
	if err != nil {
		t.Fatal(err)
	}
	deaths := 0
	for range durable.MaxCrashes {
		p := start(t, "die", path)
		for range p.rest() {
		}
		if err := p.cmd.Wait(); err != nil {
			deaths++
		}
	}
	start(t, "die", path)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for id, want := range map[durable.ID]durable.State{poison: durable.Dead, good: durable.Succeeded} {
		task, err := q.WaitFor(ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		if task.State != want {
			t.Errorf("task %v is %v, want %v", task.ID, task.State, want)
		}
	}
	if task, err := q.Get(ctx, poison); err != nil || task.Crashes != durable.MaxCrashes || deaths != durable.MaxCrashes {
		t.Errorf("%d deaths, crashes %d: %v", deaths, task.Crashes, err)
	}
}

// Many processes that add, work and die lose nothing.
func TestProcessesShareAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.db")
	s := open(t, sqlite.Config{Path: path})
	q := durable.NewQueue(s)
	defer q.Close(t.Context())
	const tasks = 400
	workers := []*process{start(t, "work", path), start(t, "work", path)}
	for n := range tasks {
		if n == tasks/2 {
			workers[0].signal(syscall.SIGKILL)
		}
		if _, err := q.Add(t.Context(), job.With(n)); err != nil {
			t.Fatal(err)
		}
	}
	ran := map[int]int{}
	deadline := time.Now().Add(patience)
	for {
		counts, err := q.Counts(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(counts) == 1 && counts[0].State == durable.Succeeded && counts[0].N == tasks {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the tasks are %+v", counts)
		}
		workers[1].until("ran") // waits without polling
	}
	_ = workers[1].stdin.Close()
	for _, w := range workers {
		for _, line := range w.rest() {
			if n, err := strconv.Atoi(strings.TrimPrefix(line, "ran ")); err == nil {
				ran[n]++
			}
		}
	}
	for n, times := range ran {
		if times > 2 {
			t.Errorf("task %d ran %d times in one crash", n, times)
		}
	}
}

// The place of a dead worker that a process takes which runs no tasks proves
// the death all the same.
func TestTasksOfAKilledProcessWhosePlaceIsTaken(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.db")
	first := start(t, "hold", path)
	s := open(t, sqlite.Config{Path: path})
	q := durable.NewQueue(s)
	defer q.Close(t.Context())
	if _, err := q.Add(t.Context(), job.With(1)); err != nil {
		t.Fatal(err)
	}
	first.until("holds")
	first.signal(syscall.SIGKILL)
	first.rest()
	open(t, sqlite.Config{Path: path}) // takes the first place
	start(t, "work", path).until("ran 1")
}
