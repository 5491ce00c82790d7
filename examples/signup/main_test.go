package main

import (
	"context"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/wake-go/wake"
	"github.com/wake-go/wake/lifespan"
	"github.com/wake-go/wake/waketest"
)

// asProgram in the environment makes the test's binary behave as the example's.
const asProgram = "SIGNUP_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main() // does not return
	}
	slog.SetDefault(slog.New(slog.NewTextHandler(io.Discard, nil))) // what concerns a test is in the test's log
	goleak.VerifyTestMain(m)
}

// queueIn has the database in a file of a test.
func queueIn(dir string) wake.Option {
	return wake.Queue("sqlite:" + filepath.Join(dir, "signup.db"))
}

// start runs the service without a port. Queued tasks wait for RunQueue. The state is for looking behind it.
func start(t *testing.T, cfg config, opts ...waketest.Option) (*waketest.Client, *State) {
	t.Helper()
	life, state := watched(cfg)
	client := waketest.StartWith(t, newApp(cfg), life, opts...)
	return client, <-state
}

// watched is the service's own lifespan, with the state passed on.
func watched(cfg config) (lifespan.Func[*State], <-chan *State) {
	state := make(chan *State, 1)
	return func(ctx context.Context, yield func(*State) error) error {
		return cfg.life(ctx, func(s *State) error {
			state <- s
			return yield(s)
		})
	}, state
}

// serve runs the service, its workers too, on a port of its own and returns the port's address.
func serve(t *testing.T, cfg config, opts ...wake.Option) (addr string, state *State) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ready, ended := make(chan struct{}), make(chan error, 1)
	ctx, stop := context.WithCancel(context.Background())
	life, yielded := watched(cfg)
	opts = append([]wake.Option{queueIn(t.TempDir())}, opts...)
	opts = append(opts,
		wake.Listener(listener),
		wake.Logger(slog.New(slog.NewTextHandler(t.Output(), nil))),
		wake.OnEvent(func(e lifespan.Event) {
			if p, ok := e.(lifespan.PhaseChanged); ok && p.To == lifespan.Ready {
				close(ready)
			}
		}))
	go func() { ended <- newApp(cfg).WithLifespan(life).Run(ctx, opts...) }()
	select {
	case <-ready:
	case err := <-ended:
		stop()
		t.Fatalf("the service did not start: %v", err)
	case <-time.After(10 * time.Second):
		stop()
		t.Fatalf("the service is not ready after 10 s; it ended with: %v", <-ended)
	}
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("the service ended with: %v", err)
		}
	})
	return listener.Addr().String(), <-yielded
}
