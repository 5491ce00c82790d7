package lifespan_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"syscall"

	"github.com/wake-go/wake/lifespan"
)

type greeter struct{ greeting string }

// A web server: its lifespan, a serve that drains, and the exit code.
func ExampleRun() {
	life := func(ctx context.Context, yield func(*greeter) error) error {
		fmt.Println("set up") // open the database with ctx
		defer fmt.Println("clean up")
		return yield(&greeter{"hello"})
	}

	serve := func(ctx context.Context, g *greeter) error {
		srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, g.greeting)
		})}
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err // a failed start-up, for MarkReady was not called yet
		}
		lifespan.Go(ctx, "http", func(context.Context) error {
			if err := srv.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
				return err // a dead listener stops the application
			}
			return nil
		})
		lifespan.MarkReady(ctx)

		visit("http://" + listener.Addr().String())
		lifespan.Stop(ctx, nil) // a signal does the same

		<-ctx.Done()
		return srv.Shutdown(lifespan.Drain(ctx))
	}

	err := lifespan.Run(context.Background(), life, serve, lifespan.Config{
		Signals: []os.Signal{os.Interrupt, syscall.SIGTERM},
		OnEvent: func(e lifespan.Event) {
			if p, ok := e.(lifespan.PhaseChanged); ok {
				fmt.Println("phase:", p.To)
			}
		},
	})
	fmt.Println("exit code:", lifespan.ExitCode(err))
	// Output:
	// phase: starting
	// set up
	// phase: ready
	// hello
	// phase: draining
	// phase: cleaning
	// clean up
	// phase: stopped
	// exit code: 0
}

func visit(url string) {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get(url)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	fmt.Println(string(body))
}

// The cache needs the database: it starts after it and ends before it.
func ExampleThen() {
	database := func(ctx context.Context, yield func(string) error) error {
		fmt.Println("open database")
		defer fmt.Println("close database")
		return yield("users")
	}
	cache := func(ctx context.Context, db string, yield func(string) error) error {
		fmt.Println("fill cache from", db)
		defer fmt.Println("flush cache")
		return yield("cache of " + db)
	}
	serve := func(ctx context.Context, state string) error {
		fmt.Println("serve with", state)
		return nil
	}
	err := lifespan.Run(context.Background(), lifespan.Then(database, cache), serve, lifespan.Config{})
	fmt.Println(err)
	// Output:
	// open database
	// fill cache from users
	// serve with cache of users
	// flush cache
	// close database
	// <nil>
}

// The database and the mail server do not need each other: they start at the
// same time. One that fails cleans up the other.
func ExampleBoth() {
	opened := make(chan struct{})
	database := func(ctx context.Context, yield func(string) error) error {
		defer fmt.Println("close database")
		close(opened)
		return yield("users")
	}
	mail := func(ctx context.Context, yield func(string) error) error {
		<-opened
		return errors.New("mail server refused the password")
	}
	serve := func(ctx context.Context, state lifespan.Pair[string, string]) error {
		fmt.Println("serve with", state.A, state.B)
		return nil
	}
	err := lifespan.Run(context.Background(), lifespan.Both(database, mail), serve, lifespan.Config{})
	fmt.Println(err)
	fmt.Println("exit code:", lifespan.ExitCode(err))
	// Output:
	// close database
	// start-up failed: mail server refused the password
	// exit code: 3
}

// Something that comes as a pair of functions.
func ExampleHooks() {
	life := lifespan.Hooks(
		func(ctx context.Context) (string, error) {
			fmt.Println("connect")
			return "connection", nil
		},
		func(ctx context.Context, c string) error {
			return fmt.Errorf("close %s: %w", c, io.ErrClosedPipe)
		})
	serve := func(ctx context.Context, c string) error {
		fmt.Println("serve with", c)
		return nil
	}
	err := lifespan.Run(context.Background(), life, serve, lifespan.Config{})
	fmt.Println(err)
	fmt.Println("exit code:", lifespan.ExitCode(err))
	// Output:
	// connect
	// serve with connection
	// clean-up failed: close connection: io: read/write on closed pipe
	// exit code: 4
}

// A part that fails while the application serves is never ignored: the
// application drains, cleans up and reports it.
func ExampleGo() {
	life := func(ctx context.Context, yield func(chan string) error) error {
		defer fmt.Println("close database") // after the part has ended
		rates := make(chan string)
		lifespan.Go(ctx, "refresh rates", func(ctx context.Context) error {
			select {
			case source := <-rates:
				return fmt.Errorf("%s does not answer", source)
			case <-ctx.Done():
				return ctx.Err()
			}
		})
		return yield(rates)
	}
	serve := func(ctx context.Context, rates chan string) error {
		lifespan.MarkReady(ctx)
		rates <- "the bank"
		<-ctx.Done()
		fmt.Println("drain:", context.Cause(ctx))
		return nil
	}
	err := lifespan.Run(context.Background(), life, serve, lifespan.Config{})
	fmt.Println(err)
	fmt.Println("exit code:", lifespan.ExitCode(err))
	// Output:
	// drain: part "refresh rates": the bank does not answer
	// close database
	// serving failed: part "refresh rates": the bank does not answer
	// exit code: 1
}

// A log needs one line: every event is a line of text.
func ExampleConfig_onEvent() {
	cfg := lifespan.Config{OnEvent: func(e lifespan.Event) { fmt.Println(e) }}
	serve := func(ctx context.Context, _ string) error {
		lifespan.MarkReady(ctx)
		return errors.New("port lost")
	}
	_ = lifespan.Run(context.Background(), lifespan.Fixed("state"), serve, cfg)
	// Output:
	// starting
	// ready
	// cleaning (serving failed: port lost)
	// stopped (serving failed: port lost)
}
