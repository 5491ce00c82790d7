//go:build unix

package wake_test

import (
	"bufio"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptrace"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/wake-go/wake/lifespan"
)

var (
	stopRuns = flag.Int("stop.runs", 20, "how often to stop a program under load")
	stopSeed = flag.Uint64("stop.seed", 0, "seed of the first stop under load; 0: a random one")
)

func TestAStopUnderLoadCutsNoRequestAndDropsNoTask(t *testing.T) {
	seed := *stopSeed
	if seed == 0 {
		seed = rand.Uint64N(1 << 32)
	}
	for i := range *stopRuns {
		seed := seed + uint64(i)
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			t.Parallel()
			stopUnderLoad(t, seed, "busy shop", mixed, syscall.SIGTERM, lifespan.ExitOK)
		})
	}
}

func TestAPartThatDiesUnderLoadCutsNoRequestAndDropsNoTask(t *testing.T) {
	t.Parallel()
	stopUnderLoad(t, rand.Uint64N(1<<32), "busy shop", mixed, syscall.SIGUSR1, lifespan.ExitServe)
}

func TestAStopUnderLoadOverTLSCutsNoRequestAndDropsNoTask(t *testing.T) {
	for name, clients := range map[string][]clients{
		"HTTP/1.1": {{24, secure}},
		"HTTP/2":   {{24, multiplexed}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			stopUnderLoad(t, rand.Uint64N(1<<32), "busy shop with TLS", clients, syscall.SIGTERM, lifespan.ExitOK)
		})
	}
}

// Clients are one way to ask, and how many do so side by side.
type clients struct {
	many int
	loop func(l *load, order int)
}

var mixed = []clients{{24, keepAlive}, {24, pooled}, {12, thoughtful}, {8, fresh}}

func stopUnderLoad(t *testing.T, seed uint64, program string, kinds []clients, reason syscall.Signal, code int) {
	t.Helper()
	random := rand.New(rand.NewPCG(seed, 0))
	p := start(t, program, invocation{})
	_, addr, _ := strings.Cut(p.url(), "://")
	l := newLoad(addr, 100+random.IntN(1500))
	var clients sync.WaitGroup
	for i, c := range kinds {
		for j := range c.many {
			clients.Go(func() { c.loop(l, (i*100+j)*1_000_000) })
		}
	}
	receive(t, l.reached, "the load")
	l.stopping.Store(true)
	began := time.Now()
	p.signal(reason)
	p.wantExit(code)
	took := time.Since(began)
	clients.Wait()

	p.wantCleanedUpLast()
	l.check(t, p.out.all())
	if most := 5 * time.Second; took > most {
		t.Errorf("it has taken %v to stop; short requests and tasks should take less than %v", took, most)
	}
	t.Logf("seed %d: %d requests answered; stopped after %v", seed, l.answered.Load(), took.Round(time.Millisecond))
}

// A load is what many clients have seen of one program.
type load struct {
	addr     string
	target   atomic.Int64 // of answers
	answered atomic.Int64
	reached  chan struct{} // told when there are so many
	stopping atomic.Bool   // connections may be refused
	ending   atomic.Bool   // the clients are to end

	mu     sync.Mutex
	orders map[int]string // answered, with their method
	faults []string
}

func newLoad(addr string, target int) *load {
	l := &load{addr: addr, reached: make(chan struct{}, 1), orders: map[int]string{}}
	l.target.Store(int64(target))
	return l
}

// again sets the target to so many more answers.
func (l *load) again(more int) { l.target.Store(l.answered.Load() + int64(more)) }

func (l *load) done(method string, order int) {
	l.mu.Lock()
	l.orders[order] = method
	l.mu.Unlock()
	if l.answered.Add(1) == l.target.Load() {
		l.reached <- struct{}{}
	}
}

func (l *load) fault(format string, args ...any) {
	l.mu.Lock()
	l.faults = append(l.faults, fmt.Sprintf(format, args...))
	l.mu.Unlock()
}

// refused notes a connection that was not made: fine once the stop has begun.
func (l *load) refused(err error) {
	if !l.stopping.Load() {
		l.fault("no connection before the stop: %v", err)
	}
}

// check compares the answers with the tasks that have run.
func (l *load) check(t *testing.T, printed []string) {
	t.Helper()
	for i, f := range l.faults {
		if i == 10 {
			t.Errorf("and %d more", len(l.faults)-i)
			break
		}
		t.Error(f)
	}
	ran := map[string]int{}
	for _, line := range printed {
		ran[line]++
		if strings.HasPrefix(line, "used after") {
			t.Error(line)
		}
	}
	for order, method := range l.orders {
		tasks := []string{"bill", "ship"}
		if method == http.MethodGet {
			tasks = []string{"view"}
		}
		for _, task := range tasks {
			if n := ran[task+" "+strconv.Itoa(order)]; n != 1 {
				t.Errorf("order %d was answered, and its task %q has run %d times", order, task, n)
			}
		}
	}
}

// order n is a POST, and every third a GET.
func orderMethod(n int) string {
	if n%3 == 2 {
		return http.MethodGet
	}
	return http.MethodPost
}

const orderBody = `{"item":"lamp"}`

func keepAlive(l *load, n int) { l.talk(n, 0) }

// thoughtful is a client that takes a moment before it asks again.
func thoughtful(l *load, n int) { l.talk(n, 100*time.Millisecond) }

// talk asks again on the same connection until it is told to close it, so that
// whatever the server cuts shows. Before that it pauses, shorter than most.
func (l *load) talk(n int, most time.Duration) {
	for !l.ending.Load() {
		conn, err := net.DialTimeout("tcp", l.addr, patience)
		if err != nil {
			l.refused(err)
			return
		}
		for from := bufio.NewReader(conn); ; {
			n++
			closing, ok := l.exchange(conn, from, n)
			if !ok {
				conn.Close()
				return
			}
			if closing || l.ending.Load() {
				break
			}
			if most > 0 {
				time.Sleep(rand.N(most))
			}
		}
		conn.Close()
	}
}

// fresh makes a connection for each request.
func fresh(l *load, n int) {
	for !l.ending.Load() {
		conn, err := net.DialTimeout("tcp", l.addr, patience)
		if err != nil {
			l.refused(err)
			return
		}
		n++
		_, ok := l.exchange(conn, bufio.NewReader(conn), n)
		conn.Close()
		if !ok {
			return
		}
	}
}

// exchange sends order n and reads the answer, which there must be: the
// connection stands and nobody has said that it will be closed.
func (l *load) exchange(conn net.Conn, from *bufio.Reader, n int) (closing, ok bool) {
	method, body := orderMethod(n), ""
	if method == http.MethodPost {
		body = orderBody
	}
	_ = conn.SetDeadline(time.Now().Add(patience)) // it is a TCP connection
	request := fmt.Sprintf("%s /orders/%d HTTP/1.1\r\nHost: shop\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", method, n, len(body), body)
	if _, err := io.WriteString(conn, request); err != nil {
		l.fault("order %d was cut while it was sent: %v", n, err)
		return false, false
	}
	res, err := http.ReadResponse(from, &http.Request{Method: method})
	if err != nil {
		l.fault("order %d was cut: %v", n, err)
		return false, false
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		l.fault("the answer to order %d was cut: %v", n, err)
		return false, false
	}
	if res.StatusCode != http.StatusOK {
		l.fault("order %d was answered %d", n, res.StatusCode)
		return false, false
	}
	l.done(method, n)
	return res.Close, true
}

// pooled is a client of net/http. It repeats some requests by itself when a
// connection dies under them; that counts as a cut.
func pooled(l *load, n int) {
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	l.ask("http", transport, n, 1)
}

func secure(l *load, n int) {
	transport := &http.Transport{TLSClientConfig: anyCertificate()}
	defer transport.CloseIdleConnections()
	l.ask("https", transport, n, 1)
}

// multiplexed is a client that sends its requests over one connection. When
// the server says which of them it will not answer, it repeats those.
func multiplexed(l *load, n int) {
	transport := &http.Transport{TLSClientConfig: anyCertificate(), ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	var loops sync.WaitGroup
	for i := range 4 {
		loops.Go(func() { l.ask("https", transport, n+i*100_000, 10) })
	}
	loops.Wait()
}

func anyCertificate() *tls.Config { return &tls.Config{InsecureSkipVerify: true} }

// ask asks until it is refused, with at most so many connections for a request.
func (l *load) ask(scheme string, transport *http.Transport, n, most int) {
	client := &http.Client{Transport: transport, Timeout: patience}
	for !l.ending.Load() {
		n++
		conns := 0
		trace := &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { conns++ }}
		req, err := http.NewRequest(orderMethod(n), fmt.Sprintf("%s://%s/orders/%d", scheme, l.addr, n), nil)
		if err != nil {
			l.fault("%v", err)
			return
		}
		if req.Method == http.MethodPost {
			body := func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(orderBody)), nil }
			req.Body, _ = body()
			req.GetBody, req.ContentLength = body, int64(len(orderBody))
			req.Header.Set("Content-Type", "application/json")
		}
		res, err := client.Do(req.WithContext(httptrace.WithClientTrace(req.Context(), trace)))
		switch {
		case err != nil && (conns == 0 || conns < most && errors.Is(err, syscall.ECONNREFUSED)):
			l.refused(err)
			return
		case err != nil:
			l.fault("order %d was cut: %v", n, err)
			return
		case conns > most:
			l.fault("order %d was cut and repeated", n)
		}
		_, err = io.Copy(io.Discard, res.Body)
		res.Body.Close()
		if err != nil || res.StatusCode != http.StatusOK {
			l.fault("order %d was answered %d, error %v", n, res.StatusCode, err)
			return
		}
		l.done(req.Method, n)
	}
}
