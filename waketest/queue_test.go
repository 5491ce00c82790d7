package waketest_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wake-go/wake"
	"github.com/wake-go/wake/durable"
	"github.com/wake-go/wake/lifespan"
	"github.com/wake-go/wake/waketest"
)

type nothing struct{}

// queueApp adds tasks to its queue: "echo" notes its argument and fails with
// "disk".
func queueApp(opts ...wake.Option) (app *wake.App[*[]string], echo *wake.Task[*[]string, string]) {
	echo = wake.Define("echo", func(_ context.Context, seen *[]string, what string) error {
		*seen = append(*seen, what)
		if what == "disk" {
			return errors.New("the disk is gone")
		}
		return nil
	})
	app = wake.New("App", "1.0", lifespan.Fixed(&[]string{}), opts...)
	app.Tasks(echo)
	wake.Post(app, "/{what}", func(_ context.Context, in *struct {
		What string `path:"what"`
	}, c wake.Call[*[]string]) (nothing, error) {
		c.Queue.Add(echo.With(in.What))
		c.Queue.Add(echo.With(in.What + " tomorrow").In(24 * time.Hour))
		return nothing{}, nil
	})
	return app, echo
}

// An application whose queue is a file gets another one in a test.
func TestTheApplicationsOwnFileIsNotTouched(t *testing.T) {
	t.Chdir(t.TempDir())
	app, echo := queueApp(wake.Queue("sqlite:/proc/no/such/folder/app.db"))
	client := waketest.Start(t, app)
	client.Post("/hello", nil)
	client.RunQueue()
	if got := waketest.Queued(client, echo); len(got) != 2 || !slices.Contains(got, "hello") {
		t.Errorf("queued: %q", got)
	}
	if name := client.Queue().Store().Traits().Name; name != "sqlite" {
		t.Errorf("the store is of %s", name)
	}
}

func TestATaskWaitsForItsTimeInABubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		app, _ := queueApp(wake.Queue("sqlite:app.db"))
		seen := &[]string{}
		client := waketest.StartWith(t, app, lifespan.Fixed(seen))
		client.Post("/hello", nil)
		client.RunQueue()
		if !slices.Equal(*seen, []string{"hello"}) {
			t.Errorf("before its time: %q", *seen)
		}
		client.Advance(24 * time.Hour)
		client.RunQueue()
		if !slices.Equal(*seen, []string{"hello", "hello tomorrow"}) {
			t.Errorf("in its time: %q", *seen)
		}
	})
}

func TestWorkersRunTasksByThemselves(t *testing.T) {
	app, _ := queueApp(wake.Queue("sqlite:app.db"))
	done := make(chan durable.Event, 16)
	client := waketest.Start(t, app, waketest.Workers(), waketest.With(wake.OnQueueEvent(func(e durable.Event) { done <- e })))
	client.Post("/hello", nil)
	client.RunQueue() // waits for the workers
	for {
		select {
		case e := <-done:
			if f, ok := e.(durable.TaskFinished); ok && f.Move == durable.MoveSucceed {
				return
			}
		default:
			t.Fatal("nothing has finished")
		}
	}
}

func TestAQueuedTaskThatFailsFailsTheTest(t *testing.T) {
	app, _ := queueApp(wake.Queue("sqlite:app.db"))
	run := func(opts ...waketest.Option) string {
		return record(t, func(t testing.TB) {
			client := waketest.Start(t, app, opts...)
			client.Post("/disk", nil)
			client.RunQueue()
		})
	}
	if got := run(); !strings.Contains(got, `queued task "echo" failed in attempt 1 of 15: the disk is gone`) {
		t.Errorf("the test failed with %q", got)
	}
	if got := run(waketest.AllowTaskErrors()); got != "" {
		t.Errorf("the test failed with %q", got)
	}
}

func TestWithoutAQueueTheClientSaysSo(t *testing.T) {
	app, echo := queueApp()
	for name, use := range map[string]func(*waketest.Client){
		"RunQueue": func(c *waketest.Client) { c.RunQueue() },
		"Advance":  func(c *waketest.Client) { c.Advance(time.Hour) },
		"Queued":   func(c *waketest.Client) { waketest.Queued(c, echo) },
	} {
		got := record(t, func(t testing.TB) { use(waketest.Start(t, app)) })
		if !strings.Contains(got, "no queue") {
			t.Errorf("%s: the test failed with %q", name, got)
		}
	}
}
