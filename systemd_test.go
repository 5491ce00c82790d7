//go:build unix

package wake_test

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/wake-go/wake/lifespan"
)

// A manager is systemd's side of the notification socket.
type manager struct {
	t      *testing.T
	socket *net.UnixConn
	path   string
}

func newManager(t *testing.T) *manager {
	t.Helper()
	dir, err := os.MkdirTemp("", "wake") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "notify")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { socket.Close() })
	return &manager{t, socket, path}
}

// next returns the next message.
func (m *manager) next() string {
	m.t.Helper()
	buf := make([]byte, 4096)
	_ = m.socket.SetReadDeadline(time.Now().Add(patience)) // it is a socket
	n, err := m.socket.Read(buf)
	if err != nil {
		m.t.Fatalf("systemd is not told: %v", err)
	}
	return string(buf[:n])
}

// until returns the message, and how many of another one come before it.
func (m *manager) until(message, other string) (others int) {
	m.t.Helper()
	for got := m.next(); got != message; got = m.next() {
		if got != other {
			m.t.Fatalf("systemd is told %q, want %q", got, message)
		}
		others++
	}
	return others
}

func TestSystemdIsToldThatTheProgramIsReadyAndStops(t *testing.T) {
	t.Parallel()
	m := newManager(t)
	p := start(t, "stubborn shop", invocation{env: []string{"NOTIFY_SOCKET=" + m.path, "WAKE_DRAIN=1h"}})
	if got := m.next(); got != "READY=1" {
		t.Errorf("the first message is %q", got)
	}
	want(t, ask(newVisitor(t), "GET", p.url()+"/ping", nil), 200)
	waiting := asking(newVisitor(t), "GET", p.url()+"/closed")
	p.printed("waiting request begins")
	p.signal(syscall.SIGTERM)
	if got := m.next(); got != "STOPPING=1" { // while the request still runs
		t.Errorf("the second message is %q", got)
	}
	p.signal(syscall.SIGUSR1)
	want(t, receive(t, waiting, "the answer"), 200)
	p.wantExit(lifespan.ExitOK)
}

func TestSystemdsWatchdogIsFedTwiceInItsIntervalAlsoWhileDraining(t *testing.T) {
	t.Parallel()
	const interval = 200 * time.Millisecond
	m := newManager(t)
	p := start(t, "stubborn shop", invocation{
		env:   []string{"NOTIFY_SOCKET=" + m.path, "WATCHDOG_USEC=200000", "WAKE_DRAIN=1h"},
		shell: `WATCHDOG_PID=$$ exec "$@"`,
	})
	m.until("READY=1", "")
	fed := func() {
		t.Helper()
		const times = 6
		began := time.Now()
		for range times {
			if got := m.next(); got != "WATCHDOG=1" {
				t.Fatalf("systemd is told %q", got)
			}
		}
		// The first one may have been waiting already.
		took := time.Since(began)
		if least, most := (times-2)*interval/2, times*interval; took < least*9/10 || took > most {
			t.Errorf("it is fed %d times in %v, with an interval of %v; want half of it between two", times, took, interval)
		}
	}
	fed()
	asking(newVisitor(t), "GET", p.url()+"/closed")
	p.printed("waiting request begins")
	p.signal(syscall.SIGTERM)
	m.until("STOPPING=1", "WATCHDOG=1")
	fed()
	p.signal(syscall.SIGUSR1)
	p.wantExit(lifespan.ExitOK)
}

func TestTheWatchdogOfAnotherProcessIsNotFed(t *testing.T) {
	t.Parallel()
	m := newManager(t)
	p := start(t, "stubborn shop", invocation{
		env: []string{"NOTIFY_SOCKET=" + m.path, "WATCHDOG_USEC=1000", "WATCHDOG_PID=1"},
	})
	m.until("READY=1", "")
	want(t, ask(newVisitor(t), "GET", p.url()+"/ping", nil), 200)
	p.signal(syscall.SIGTERM)
	m.until("STOPPING=1", "")
	p.wantExit(lifespan.ExitOK)
}

func TestAProgramRunsWhereSystemdDoesNotListen(t *testing.T) {
	t.Parallel()
	p := start(t, "stubborn shop", invocation{env: []string{"NOTIFY_SOCKET=/nonexistent/socket"}})
	p.logged("systemd was not told")
	want(t, ask(newVisitor(t), "GET", p.url()+"/ping", nil), 200)
	p.signal(syscall.SIGTERM)
	p.wantExit(lifespan.ExitOK)
}

// activated opens a socket as systemd does, and returns how to start a program
// with it.
func activated(t *testing.T) (addr string, how invocation) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	socket, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { socket.Close() })
	return l.Addr().String(), invocation{
		env:   []string{"LISTEN_FDS=1", "WAKE_ADDR=192.0.2.1:1"}, // which nobody can listen on
		files: []*os.File{socket},
		shell: `LISTEN_PID=$$ exec "$@"`,
	}
}

func TestASocketOfSystemdIsTakenOver(t *testing.T) {
	t.Parallel()
	addr, how := activated(t)
	p := start(t, "stubborn shop", how)
	if url := p.url(); url != "http://"+addr {
		t.Errorf("it serves on %s, want %s", url, addr)
	}
	want(t, ask(newVisitor(t), "GET", "http://"+addr+"/ping", nil), 200)
	p.signal(syscall.SIGTERM)
	p.wantExit(lifespan.ExitOK)
	p.wantCleanedUpLast()
}

func TestASocketThatIsForAnotherProcessIsLeftAlone(t *testing.T) {
	t.Parallel()
	addr, how := activated(t)
	how.env = []string{"LISTEN_FDS=1"}
	how.shell = `LISTEN_PID=1 exec "$@"`
	p := start(t, "stubborn shop", how)
	if url := p.url(); strings.HasSuffix(url, addr) {
		t.Errorf("it serves on %s, which is not its own", url)
	}
	p.signal(syscall.SIGTERM)
	p.wantExit(lifespan.ExitOK)
}

func TestARestartOnASocketOfSystemdRefusesAndCutsNothing(t *testing.T) {
	t.Parallel()
	addr, how := activated(t)
	l := newLoad(addr, 500)
	var clients sync.WaitGroup
	for i, loop := range []func(*load, int){keepAlive, pooled, fresh, keepAlive, pooled, fresh} {
		clients.Go(func() { loop(l, i*1_000_000) })
	}
	var printed []string
	for range 3 {
		p := start(t, "busy shop", how)
		receive(t, l.reached, "the load")
		l.again(500)
		p.signal(syscall.SIGTERM)
		p.wantExit(lifespan.ExitOK)
		p.wantCleanedUpLast()
		printed = append(printed, p.out.all()...)
	}
	// The last one answers those that are still waiting.
	p := start(t, "busy shop", how)
	l.ending.Store(true)
	clients.Wait()
	p.signal(syscall.SIGTERM)
	p.wantExit(lifespan.ExitOK)
	l.check(t, append(printed, p.out.all()...))
	t.Logf("%d requests answered by four processes", l.answered.Load())
}
