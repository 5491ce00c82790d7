package postgres_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/wake-go/wake/durable"
	"github.com/wake-go/wake/durable/postgres"
)

// childEnv makes the test's program a worker; it names the schema.
const childEnv = "WAKE_TEST_POSTGRES_CHILD"

// child is a worker process. It prints the number of each task that it begins,
// and does not end the negative ones.
func child() error {
	ctx := context.Background()
	store, err := postgres.Open(ctx, postgres.Config{URL: os.Getenv(childEnv + "_URL"), Schema: os.Getenv(childEnv), DeathDelay: time.Second})
	if err != nil {
		return err
	}
	e := durable.NewEngine(durable.NewQueue(store), work.Run(func(ctx context.Context, i int) error {
		fmt.Println(i)
		if i < 0 {
			<-ctx.Done()
		}
		return ctx.Err()
	}))
	if err := e.Start(ctx); err != nil {
		return err
	}
	_, _ = os.Stdin.Read(make([]byte, 1)) // until the test ends
	return nil
}

// A process is a worker of its own.
type process struct {
	cmd   *exec.Cmd
	began chan int
}

func startProcess(t *testing.T, url, schema string) *process {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{cmd: exec.Command(program, "-test.run=^$"), began: make(chan int, 10_000)}
	p.cmd.Env = append(os.Environ(), childEnv+"="+schema, childEnv+"_URL="+url)
	p.cmd.Stderr = os.Stderr
	stdin, err := p.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var reading sync.WaitGroup
	reading.Go(func() {
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			if i, err := strconv.Atoi(lines.Text()); err == nil {
				p.began <- i
			}
		}
		close(p.began)
	})
	t.Cleanup(func() {
		stdin.Close()
		_ = p.cmd.Process.Kill() // it may have been killed
		reading.Wait()
		_ = p.cmd.Wait()
	})
	return p
}

func (p *process) kill(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
}

// Three worker processes share the work, each task once; what one of them runs
// when it is killed goes on in another one, long before the lease would end.
func TestAWorkerIsKilled(t *testing.T) {
	url := serverURL(t)
	schema := newSchema(t, url)
	s := open(t, postgres.Config{URL: url, Schema: schema})
	q := durable.NewQueue(s)
	defer q.Close(context.Background())
	const n = 600
	var jobs []durable.Queueable
	for i := range n {
		jobs = append(jobs, work.With(i))
	}
	workers := []*process{startProcess(t, url, schema), startProcess(t, url, schema), startProcess(t, url, schema)}
	if _, err := q.AddAll(t.Context(), jobs...); err != nil {
		t.Fatal(err)
	}
	runs := map[int]int{}
	for len(runs) < n {
		select {
		case i := <-workers[0].began:
			runs[i]++
		case i := <-workers[1].began:
			runs[i]++
		case i := <-workers[2].began:
			runs[i]++
		case <-time.After(20 * time.Second):
			t.Fatalf("%d of %d tasks ran", len(runs), n)
		}
	}
	for i, times := range runs {
		if times != 1 {
			t.Errorf("task %d ran %d times", i, times)
		}
	}
	if _, err := q.Add(t.Context(), work.With(-1)); err != nil {
		t.Fatal(err)
	}
	holder := -1
	eventually(t, "somebody runs it", func() bool {
		for i, p := range workers {
			select {
			case <-p.began:
				holder = i
			default:
			}
		}
		return holder >= 0
	})
	// A boot takes its lock a moment after it has begun.
	eventually(t, "all have their locks", func() bool {
		return value(t, s.DB(), `SELECT count(lock_key) FROM `+table(schema, "node")) == "3"
	})
	workers[holder].kill(t)
	start := time.Now()
	others := [2]*process{workers[(holder+1)%3], workers[(holder+2)%3]}
	select {
	case <-others[0].began:
	case <-others[1].began:
	case <-time.After(15 * time.Second):
		t.Fatal("nobody goes on with it")
	}
	t.Logf("another worker went on after %v", time.Since(start))
}

// While all sessions are ended again and again, what is acknowledged is run,
// and nothing is run twice.
func TestSessionsEndWhileAFleetWorks(t *testing.T) {
	server := serverURL(t)
	schema := newSchema(t, server)
	admin := open(t, postgres.Config{URL: server, Schema: schema})
	cfg := postgres.Config{URL: server + "&application_name=" + schema, Schema: schema}
	var mu sync.Mutex
	runs := map[int]int{}
	fleet(t, 2, cfg, func(_ context.Context, i int) error {
		mu.Lock()
		defer mu.Unlock()
		runs[i]++
		return nil
	})
	q := durable.NewQueue(open(t, cfg))
	defer q.Close(context.Background())
	acknowledged := map[int]bool{}
	for round := range 8 {
		var adding sync.WaitGroup
		for w := range 50 {
			adding.Go(func() {
				i := round*50 + w
				_, err := q.Add(context.Background(), work.With(i))
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil:
					acknowledged[i] = true
				case !errors.Is(err, durable.ErrUnavailable) && !errors.Is(err, durable.ErrUnknown):
					t.Errorf("adding: %v", err)
				}
			})
		}
		terminate(t, admin, schema)
		adding.Wait()
	}
	eventually(t, "all that was acknowledged has run", func() bool {
		mu.Lock()
		defer mu.Unlock()
		for i := range acknowledged {
			if runs[i] == 0 {
				return false
			}
		}
		return true
	})
	mu.Lock()
	defer mu.Unlock()
	t.Logf("%d of 400 were acknowledged", len(acknowledged))
	for i, n := range runs {
		if n > 1 {
			t.Errorf("task %d ran %d times", i, n)
		}
	}
}
