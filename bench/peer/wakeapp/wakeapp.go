// Package wakeapp is Wake, at its default settings.
package wakeapp

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"os"

	"github.com/wake-go/wake"
	"github.com/wake-go/wake/bench/peer"
	"github.com/wake-go/wake/lifespan"
)

type state struct{}

type helloInput struct {
	Name string `path:"name" maxLength:"32"`
}

type userInput struct{ Body peer.User }

var task = wake.Define("count", func(_ context.Context, _ *state, name string) error {
	peer.Task(name)
	return nil
})

// Start starts the server.
func Start(l net.Listener, o peer.Options) (*peer.Running, error) {
	app := wake.New("bench", "1", lifespan.Fixed(&state{}))
	register(app, o.Tasks)
	return run(app, l)
}

func register(app *wake.App[*state], tasks int) {
	app.Tasks(task)
	wake.Get(app, "/hello/{name}", func(_ context.Context, in *helloInput, c wake.Call[*state]) (peer.Message, error) {
		for range tasks {
			c.Tasks.Add(task.With(in.Name))
		}
		return peer.Greet(in.Name), nil
	})
	wake.Post(app, "/users", func(_ context.Context, in *userInput, c wake.Call[*state]) (peer.Created, error) {
		for range tasks {
			c.Tasks.Add(task.With(in.Body.Username))
		}
		return peer.Created{ID: 1, Username: in.Body.Username}, nil
	})
}

// run returns when the application serves.
func run(app *wake.App[*state], l net.Listener) (*peer.Running, error) {
	ctx, stop := context.WithCancel(context.Background())
	running := &peer.Running{Handler: app}
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- app.Run(ctx, wake.Listener(l), wake.AdminAddr("off"),
			wake.Logger(slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))),
			wake.HTTPServer(func(srv *http.Server) { running.Context = srv.BaseContext(l) }),
			wake.OnEvent(func(e lifespan.Event) {
				if p, ok := e.(lifespan.PhaseChanged); ok && p.To == lifespan.Ready {
					close(ready)
				}
			}))
	}()
	running.Stop = func() error {
		stop()
		return <-ended
	}
	select {
	case err := <-ended:
		stop()
		return nil, err
	case <-ready:
		return running, nil
	}
}
