//go:build unix

package wake_test

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/wake-go/wake"
	"github.com/wake-go/wake/lifespan"
)

var packed = wake.Define("packed", func(ctx context.Context, _ *shop, what string) error {
	say("packed " + what + " as " + string(wake.Role(ctx)))
	return nil
})

var packing = wake.Declare[string]("packing")

// queueShop has a queue, which the command line gives it.
func queueShop() *wake.App[*shop] {
	app := wake.New("Queue shop", "1", func(ctx context.Context, yield func(*shop) error) error {
		say("set up as " + string(wake.Role(ctx)))
		return shopLife(ctx, yield)
	})
	// It can be waited for, and is not over before a signal.
	slow := wake.Bind(packing, func(ctx context.Context, _ *shop, what string) error {
		say("packing " + what)
		<-ctx.Done()
		say("interrupted " + what)
		return ctx.Err()
	})
	app.Tasks(packed, slow, wake.Define("in_memory_only", func(context.Context, *shop, chan int) error { return nil }))
	wake.Post(app, "/pack/{what}", func(_ context.Context, in *struct {
		What string `path:"what"`
	}, c wake.Call[*shop]) (string, error) {
		if strings.HasPrefix(in.What, "slow") {
			return c.Queue.Add(packing.With(in.What)).String(), nil
		}
		return c.Queue.Add(packed.With(in.What)).String(), nil
	})
	return app
}

func queueFile(t *testing.T) string {
	return "WAKE_QUEUE=sqlite:" + filepath.Join(t.TempDir(), "queue.db")
}

func TestServeRunsQueuedTasksToo(t *testing.T) {
	t.Parallel()
	p := start(t, "queue shop", invocation{env: []string{queueFile(t)}})
	want(t, ask(newVisitor(t), "POST", p.url()+"/pack/tea", nil), 200)
	p.printed("packed tea as serve")
	p.signal(syscall.SIGTERM)
	p.wantExit(lifespan.ExitOK)
}

// Two processes on one file: one serves, the other works.
func TestServeWithoutWorkersAndAWorker(t *testing.T) {
	t.Parallel()
	for _, how := range []invocation{{args: []string{"serve", "--no-workers"}}, {env: []string{"WAKE_WORKERS=off"}}} {
		t.Run(fmt.Sprint(how), func(t *testing.T) {
			t.Parallel()
			file := queueFile(t)
			how.env = append(how.env, file)
			web := start(t, "queue shop", how)
			want(t, ask(newVisitor(t), "POST", web.url()+"/pack/tea", nil), 200)
			worker := start(t, "queue shop", invocation{args: []string{"worker"}, env: []string{file, "WAKE_LEASE=2s"}})
			worker.printed("packed tea as worker")
			want(t, ask(newVisitor(t), "POST", web.url()+"/pack/milk", nil), 200)
			worker.printed("packed milk as worker")
			for _, p := range []*process{web, worker} {
				p.signal(syscall.SIGTERM)
				p.wantExit(lifespan.ExitOK)
			}
			if strings.Contains(web.stdout(), "packed") || !strings.Contains(web.stdout(), "set up as web") {
				t.Errorf("the process without workers has printed:\n%s", web.stdout())
			}
		})
	}
}

// A worker that is stopped gives back what it cannot finish: the next one has
// it at once, and it has cost no attempt.
func TestAQueuedTaskThatTheDrainCutsShortRunsElsewhere(t *testing.T) {
	t.Parallel()
	file := queueFile(t)
	p := start(t, "queue shop", invocation{env: []string{file, "WAKE_DRAIN=300ms"}})
	want(t, ask(newVisitor(t), "POST", p.url()+"/pack/slow", nil), 200)
	p.printed("packing slow")
	p.signal(syscall.SIGTERM)
	p.wantExit(lifespan.ExitOK)
	p.wantPrinted("interrupted slow")
	again := start(t, "queue shop", invocation{env: []string{file, "WAKE_DRAIN=300ms"}})
	again.printed("packing slow")
	again.signal(syscall.SIGTERM)
	again.wantExit(lifespan.ExitOK)
}

func TestAWorkerWithoutAQueueDoesNotStart(t *testing.T) {
	t.Parallel()
	p := start(t, "queue shop", invocation{args: []string{"worker"}})
	p.wantExit(lifespan.ExitStart)
	if text := fmt.Sprint(p.logged("stopped")["error"]); !strings.Contains(text, "wake.Queue(") {
		t.Errorf("it says %q", text)
	}
}

func TestAQueueThatCannotBeOpenedIsExplained(t *testing.T) {
	t.Parallel()
	p := start(t, "queue shop", invocation{env: []string{"WAKE_QUEUE=postgres://me:secret@db/app"}})
	p.wantExit(lifespan.ExitStart)
	text := fmt.Sprint(p.logged("stopped")["error"])
	if !strings.Contains(text, "PostgreSQL is not supported in this version") || strings.Contains(p.log.String(), "secret") {
		t.Errorf("it says %q", text)
	}
	if strings.Contains(p.stdout(), "set up") {
		t.Error("set-up has run without its queue")
	}
}

func TestCheckTellsOfTasksThatCannotBeQueued(t *testing.T) {
	t.Parallel()
	p := start(t, "queue shop", invocation{args: []string{"check"}, env: []string{queueFile(t)}})
	p.wantExit(lifespan.ExitOK)
	note := p.logged("this task runs in memory only")
	if note["task"] != "in_memory_only" || !strings.Contains(fmt.Sprint(note["reason"]), "chan int") {
		t.Errorf("it says %v", note)
	}
	if n := strings.Count(p.log.String(), "in memory only"); n != 1 {
		t.Errorf("it complains of %d tasks, want one:\n%s", n, p.log)
	}
}
