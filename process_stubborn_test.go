//go:build unix

package wake_test

import (
	"bufio"
	"context"
	"errors"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/wake-go/wake"
)

const stubbornGrace = 300 * time.Millisecond

type noInput struct{}

// stubbornShop has operations and tasks that do not end by themselves. It says
// when each begins.
func stubbornShop(opts ...wake.Option) *wake.App[*shop] {
	app := wake.New("Stubborn shop", "1", shopLife, append([]wake.Option{wake.Grace(stubbornGrace)}, opts...)...)
	wake.Get(app, "/ping", func(context.Context, *noInput, wake.Call[*shop]) (string, error) { return "pong", nil })
	wake.Get(app, "/polite", func(ctx context.Context, _ *noInput, c wake.Call[*shop]) (string, error) {
		say("polite request begins")
		<-ctx.Done()
		return "", c.State.use("polite request ends: %v", context.Cause(ctx))
	})
	wake.Get(app, "/deaf", func(context.Context, *noInput, wake.Call[*shop]) (string, error) {
		say("deaf request begins")
		select {}
	})
	wake.Get(app, "/large", func(context.Context, *noInput, wake.Call[*shop]) ([]byte, error) {
		say("large answer begins")
		return make([]byte, 64<<20), nil // more than the system takes for a client
	})
	addGate(app)
	addStubbornTasks(app)
	addStreams(app)
	return app
}

// addGate adds a request that waits for SIGUSR1.
func addGate(app *wake.App[*shop]) {
	gate := opensAt(syscall.SIGUSR1)
	wake.Get(app, "/closed", func(ctx context.Context, _ *noInput, c wake.Call[*shop]) (string, error) {
		say("waiting request begins")
		select {
		case <-gate:
			return "let in", c.State.use("waiting request ends")
		case <-ctx.Done():
			return "", context.Cause(ctx)
		}
	})
}

// opensAt returns a channel that is closed at the first signal.
func opensAt(s syscall.Signal) <-chan noInput {
	signals, gate := make(chan os.Signal, 1), make(chan noInput)
	signal.Notify(signals, s)
	go func() {
		<-signals
		close(gate)
	}()
	return gate
}

func addStubbornTasks(app *wake.App[*shop]) {
	add := func(path string, task *wake.Task0[*shop]) {
		app.Tasks(task)
		wake.Get(app, path, func(_ context.Context, _ *noInput, c wake.Call[*shop]) (string, error) {
			c.Tasks.Add(task.With())
			return "later", nil
		})
	}
	add("/tasks/polite", wake.Define0("polite task", func(ctx context.Context, s *shop) error {
		say("polite task begins")
		<-ctx.Done()
		return errors.Join(ctx.Err(), s.use("polite task ends"))
	}))
	add("/tasks/deaf", wake.Define0("deaf task", func(context.Context, *shop) error {
		say("deaf task begins")
		select {}
	}))
	gate := opensAt(syscall.SIGUSR2)
	add("/tasks/closed", wake.Define0("waiting task", func(ctx context.Context, s *shop) error {
		say("waiting task begins")
		select {
		case <-gate:
		case <-ctx.Done():
		}
		return s.use("waiting task ends")
	}))
}

// addStreams adds an event stream and a connection of a protocol of its own.
func addStreams(app *wake.App[*shop]) {
	after := wake.Define("after", func(_ context.Context, s *shop, what string) error { return s.use("task after %s", what) })
	app.Tasks(after)
	wake.Stream(app, "/events", func(ctx context.Context, _ *noInput, c wake.StreamCall[*shop]) error {
		c.Tasks.Add(after.With("stream"))
		if err := c.Send("hello"); err != nil {
			return err
		}
		<-ctx.Done()
		say("stream ends")
		return c.Send(wake.Event{Name: "bye"})
	})
	app.Handle("GET /socket", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		wake.From[*shop](r.Context()).Tasks.Add(after.With("socket"))
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			say("hijack: %v", err)
			return
		}
		defer conn.Close()
		talk(rw, wake.Draining(r.Context()))
		say("socket ends")
	}))
}

// talk says bye when the program stops, and waits for the same.
func talk(rw *bufio.ReadWriter, draining <-chan struct{}) {
	_, _ = rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: talk\r\n\r\nhello\n")
	_ = rw.Flush() // a client that has gone does not read the rest
	<-draining
	_, _ = rw.WriteString("bye\n")
	_ = rw.Flush()
	_, _ = rw.ReadString('\n')
}
