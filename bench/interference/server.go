package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"sync/atomic"

	"github.com/wake-go/wake/background"
	"github.com/wake-go/wake/bench/peer"
)

// tasksAtOnce is how many tasks run or wait at any time.
const tasksAtOnce = 64

// A backgroundKind is what a server computes beside its requests. The others
// are compared with the first.
type backgroundKind struct {
	name, title string
	start       func(*background.Runner)
	cpu         background.Lane
}

var backgrounds = []backgroundKind{
	{name: "idle", title: "none", start: func(*background.Runner) {}},
	{name: "goroutines", title: "64 bare goroutines", start: startGoroutines},
	{name: "fewer", title: "64 tasks in a lane of processors − 1", start: startTasks, cpu: background.Lane{Running: max(1, runtime.NumCPU()-1)}},
	{name: "cpu", title: "64 tasks in Wake's lane `cpu`", start: startTasks},
}

// ended counts the tasks that have.
var ended atomic.Int64

// compute keeps a processor busy for about 20 ms. Go may interrupt it anywhere.
func compute() {
	x := uint64(ended.Load())
	for range 20_000_000 {
		x = x*6364136223846793005 + 1442695040888963407
	}
	if x != 1 { // it is always true, and the compiler does not know
		ended.Add(1)
	}
}

func startGoroutines(*background.Runner) {
	for range tasksAtOnce {
		go func() {
			for {
				compute()
			}
		}()
	}
}

// startTasks adds tasks that each add the next.
func startTasks(r *background.Runner) {
	var add func() error
	add = func() error {
		return r.Add(context.Background(), background.Task{Name: "compute", Lane: background.CPULane, Run: func(context.Context) error {
			compute()
			return add()
		}})
	}
	for range tasksAtOnce {
		if err := add(); err != nil {
			panic(err) // the lane has room for them
		}
	}
}

// serveBackground is the server: it prints its address and serves until its
// standard input ends.
func serveBackground(name string) error {
	for _, b := range backgrounds {
		if b.name == name {
			return b.serve()
		}
	}
	return fmt.Errorf("there is no background %q", name)
}

func (b *backgroundKind) serve() error {
	runner, err := background.New(background.Config{Lanes: map[string]background.Lane{background.CPULane: b.cpu}})
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /hello/{name}", func(w http.ResponseWriter, r *http.Request) {
		peer.Encode(w, peer.Greet(r.PathValue("name")))
	})
	mux.HandleFunc("GET /finished", func(w http.ResponseWriter, _ *http.Request) { peer.Encode(w, ended.Load()) })
	srv := &http.Server{Handler: runner.Middleware(mux)}
	runner.Configure(srv)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	b.start(runner)
	go srv.Serve(l)
	fmt.Println(l.Addr())
	_, _ = io.Copy(io.Discard, os.Stdin)
	return nil // what still computes ends with the process
}
