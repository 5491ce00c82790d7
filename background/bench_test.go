package background_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wake-go/wake/background"
)

// benchmarked are requests with and without tasks.
var benchmarked = []struct {
	name  string
	bare  bool
	tasks int
}{{"bare", true, 0}, {"no_tasks", false, 0}, {"one", false, 1}, {"two", false, 2}}

var hello = []byte("hello")

func benchHandler(r *background.Runner, bare bool, tasks int) http.Handler {
	h := http.Handler(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		for range tasks {
			background.From(req.Context()).Add("task", nothing)
		}
		w.Write(hello)
	}))
	if bare {
		return h
	}
	return r.Middleware(h)
}

// BenchmarkRequest measures what the tasks of a request cost it, in process
// with a writer that does nothing, the tasks' running included. What any
// middleware costs that passes on a value is there to compare.
func BenchmarkRequest(b *testing.B) {
	b.Run("context_value", func(b *testing.B) {
		h := benchHandler(nil, true, 0)
		serveNothing(b, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			h.ServeHTTP(w, req.WithContext(context.WithValue(req.Context(), key("a"), 1)))
		}))
	})
	for _, c := range benchmarked {
		b.Run(c.name, func(b *testing.B) {
			r := benchRunner(b, background.Config{Lanes: roomy})
			serveNothing(b, benchHandler(r, c.bare, c.tasks))
		})
	}
}

func serveNothing(b *testing.B, h http.Handler) {
	req := httptest.NewRequest("GET", "/", nil)
	w := &discard{header: http.Header{}}
	b.ReportAllocs()
	for b.Loop() {
		h.ServeHTTP(w, req)
	}
}

// roomy is a default lane that no benchmark fills.
var roomy = map[string]background.Lane{background.DefaultLane: {Waiting: 1 << 30}}

func benchRunner(b *testing.B, cfg background.Config) *background.Runner {
	b.Helper()
	r, err := background.New(cfg)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := r.Drain(context.Background()); err != nil {
			b.Error(err)
		}
	})
	return r
}

type discard struct{ header http.Header }

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) Write(b []byte) (int, error) { return len(b), nil }
func (d *discard) WriteHeader(int)             {}

// BenchmarkConnection measures the same on a keep-alive connection over the
// loopback device, client included.
func BenchmarkConnection(b *testing.B) {
	for _, c := range benchmarked {
		b.Run(c.name, func(b *testing.B) {
			r := benchRunner(b, background.Config{Lanes: roomy})
			srv := httptest.NewUnstartedServer(benchHandler(r, c.bare, c.tasks))
			if !c.bare {
				r.Configure(srv.Config)
			}
			srv.Start()
			defer srv.Close()
			conn, err := net.Dial("tcp", srv.Listener.Addr().String())
			if err != nil {
				b.Fatal(err)
			}
			defer conn.Close()
			buf := bufio.NewReader(conn)
			answer := make([]byte, answerLength(b, conn, buf))
			b.ReportAllocs()
			for b.Loop() {
				io.WriteString(conn, benchRequest)
				if _, err := io.ReadFull(buf, answer); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

const benchRequest = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"

// answerLength returns the length of an answer, which is always the same.
func answerLength(b *testing.B, conn net.Conn, buf *bufio.Reader) (n int) {
	b.Helper()
	io.WriteString(conn, benchRequest)
	for line := ""; line != "\r\n"; n += len(line) {
		var err error
		if line, err = buf.ReadString('\n'); err != nil {
			b.Fatal(err)
		}
	}
	k, err := buf.Discard(len("hello"))
	if err != nil {
		b.Fatal(err)
	}
	return n + k
}

// BenchmarkWaiting measures the memory that a waiting task takes, closure
// included.
func BenchmarkWaiting(b *testing.B) {
	const tasks = 100_000
	for _, how := range []string{"request", "add"} {
		b.Run(how, func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				r, err := background.New(background.Config{Lanes: map[string]background.Lane{"held": {Running: 1, Waiting: tasks}}})
				if err != nil {
					b.Fatal(err)
				}
				gate := make(chan struct{})
				r.Add(context.Background(), background.Task{Name: "holds", Lane: "held", Run: func(context.Context) error { <-gate; return nil }})
				var n atomic.Int64
				before := heap()
				b.StartTimer()
				wait1(b, r, how, tasks, &n)
				b.StopTimer()
				b.ReportMetric(float64(heap()-before)/tasks, "bytes/task")
				close(gate)
				if err := r.Drain(context.Background()); err != nil || n.Load() != tasks {
					b.Fatal(n.Load(), err)
				}
				b.StartTimer()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/tasks, "ns/task")
		})
	}
}

// wait1 leaves tasks waiting, each with an argument of its own.
func wait1(b *testing.B, r *background.Runner, how string, tasks int, n *atomic.Int64) {
	b.Helper()
	w := &discard{header: http.Header{}}
	for i := range tasks {
		task := background.Task{Name: "waits", Lane: "held", Run: func(context.Context) error {
			if i >= 0 {
				n.Add(1)
			}
			return nil
		}}
		if how == "add" {
			if err := r.Add(context.Background(), task); err != nil {
				b.Fatal(err)
			}
			continue
		}
		r.Middleware(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			background.From(req.Context()).AddTask(task)
		})).ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	}
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// BenchmarkInterference measures what tasks that compute do to requests that
// arrive 300 times a second, whether the last has been answered or not.
// Latency is counted from the moment a request was due. Each task computes for
// about 20 ms, and 64 are always there. The server is a process of its own.
//
//	go test -run - -bench Interference -benchtime 1x ./background
func BenchmarkInterference(b *testing.B) {
	for _, mode := range []string{"idle", "bare_goroutines", "lane_of_processors-1", "cpu_lane"} {
		b.Run(mode, func(b *testing.B) {
			for b.Loop() {
				interfere(b, mode)
			}
		})
	}
}

// interferenceVar makes the test binary the server of BenchmarkInterference.
const interferenceVar = "BACKGROUND_TEST_INTERFERENCE"

// interfere measures the requests and the work of one mode.
func interfere(b *testing.B, mode string) {
	const rate, length = 300, 4 * time.Second
	server := exec.Command(os.Args[0])
	server.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d", interferenceVar, mode, computation()))
	stop, err1 := server.StdinPipe()
	out, err2 := server.StdoutPipe()
	if err := errors.Join(err1, err2, server.Start()); err != nil {
		b.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	lines.Scan()
	latencies := openLoop(b, lines.Text(), rate, length)
	stop.Close()
	lines.Scan()
	var tasks float64
	fmt.Sscan(lines.Text(), &tasks)
	if err := server.Wait(); err != nil {
		b.Fatal(err)
	}
	slices.Sort(latencies)
	at := func(p int) float64 { return latencies[len(latencies)*p/100].Seconds() * 1000 }
	b.ReportMetric(at(50), "p50-ms")
	b.ReportMetric(at(99), "p99-ms")
	b.ReportMetric(tasks, "tasks/s")
}

// serveInterference serves requests while it does a mode's work: it prints its
// address and, when its input ends, the tasks that it has done in a second.
func serveInterference(how string) {
	var mode string
	var rounds int
	fmt.Sscan(how, &mode, &rounds)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) { w.Write(hello) }))
	fmt.Println(srv.Listener.Addr())
	var done atomic.Int64
	started := time.Now()
	go work(mode, func() {
		sink.Add(rounds1(rounds))
		done.Add(1)
	})
	io.Copy(io.Discard, os.Stdin)
	fmt.Println(float64(done.Load()) / time.Since(started).Seconds())
}

func work(mode string, compute func()) {
	const tasks = 64
	lane, cfg := background.CPULane, background.Config{}
	switch mode {
	case "idle":
		return
	case "bare_goroutines":
		for range tasks {
			go func() {
				for {
					compute()
				}
			}()
		}
		return
	case "lane_of_processors-1":
		lane = "lane"
		cfg.Lanes = map[string]background.Lane{lane: {Running: max(1, runtime.GOMAXPROCS(0)-1)}}
	}
	r, err := background.New(cfg)
	if err != nil {
		panic(err)
	}
	var task background.Task
	task = background.Task{Name: "computes", Lane: lane, Run: func(context.Context) error {
		compute()
		return r.Add(context.Background(), task)
	}}
	for range tasks {
		if err := r.Add(context.Background(), task); err != nil {
			panic(err)
		}
	}
}

var sink atomic.Uint64

// computation is how many rounds take about 20 ms of a processor that has
// nothing else to do.
var computation = sync.OnceValue(func() int {
	const rounds = 2_000_000
	best := time.Hour
	for range 10 {
		started := time.Now()
		sink.Add(rounds1(rounds))
		best = min(best, time.Since(started))
	}
	return int(20 * time.Millisecond * rounds / best)
})

func rounds1(n int) (x uint64) {
	x = 88172645463325252
	for range n {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
	}
	return x
}

// openLoop sends requests when they are due, over 512 connections.
func openLoop(b *testing.B, addr string, rate int, length time.Duration) []time.Duration {
	b.Helper()
	n := rate * int(length/time.Second)
	latencies := make([]time.Duration, n)
	due := make(chan int, n)
	var clients sync.WaitGroup
	started := time.Now()
	for range 512 {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			b.Fatal(err)
		}
		clients.Go(func() {
			defer conn.Close()
			buf := bufio.NewReader(conn)
			for i := range due {
				io.WriteString(conn, benchRequest)
				resp, err := http.ReadResponse(buf, nil)
				if err != nil {
					b.Error(err)
					return
				}
				io.Copy(io.Discard, resp.Body)
				latencies[i] = time.Since(started) - time.Duration(i)*time.Second/time.Duration(rate)
			}
		})
	}
	for i := range n {
		time.Sleep(time.Until(started.Add(time.Duration(i) * time.Second / time.Duration(rate))))
		due <- i
	}
	close(due)
	clients.Wait()
	return latencies
}
