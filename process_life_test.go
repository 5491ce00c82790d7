//go:build unix

package wake_test

import (
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/wake-go/wake/lifespan"
)

// taken returns an address that somebody else serves on.
func taken(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}

func TestASetUpThatDoesNotSucceedExitsWith3AndOpensNoPort(t *testing.T) {
	for _, test := range []struct {
		program string
		signals []syscall.Signal
		says    []string
	}{
		{"set-up fails", nil, []string{"start-up failed: the database is not there"}},
		{"set-up panics", nil, []string{"start-up failed: panic: the set-up is broken", "process_program_test.go"}},
		{"set-up waits", []syscall.Signal{syscall.SIGTERM}, []string{"start-up failed: signal: terminated"}},
		{"set-up waits", []syscall.Signal{syscall.SIGINT}, []string{"start-up failed: signal: interrupt"}},
		{"set-up hangs", nil, []string{"set-up passed", "is abandoned", "process_program_test.go"}},
		{"set-up hangs", []syscall.Signal{syscall.SIGTERM}, []string{"signal: terminated", "is abandoned"}},
	} {
		name := test.program
		for _, s := range test.signals {
			name += " " + s.String()
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			// Opening the port would be an error, and a different one.
			p := start(t, test.program, invocation{env: []string{"WAKE_ADDR=" + taken(t)}})
			for _, s := range test.signals {
				p.printed("set up")
				p.signal(s)
			}
			p.wantExit(lifespan.ExitStart)
			p.wantStopped(test.says...)
			if text := p.stopped(); strings.Contains(text, "listen") {
				t.Errorf("it has tried to open the port: %s", text)
			}
			if test.program == "set-up waits" {
				p.wantCleanedUpLast()
			}
		})
	}
}

func TestAPortInUseExitsWith3AndSetUpIsCleanedUp(t *testing.T) {
	t.Parallel()
	addr := taken(t)
	p := start(t, "stubborn shop", invocation{env: []string{"WAKE_ADDR=" + addr}})
	p.wantExit(lifespan.ExitStart)
	p.wantCleanedUpLast()
	p.wantStopped("start-up failed", addr, "address already in use", "--addr or WAKE_ADDR")
}

func TestAnAdminPortThatWasChosenAndIsTakenExitsWith3(t *testing.T) {
	t.Parallel()
	addr := taken(t)
	p := start(t, "stubborn shop", invocation{env: []string{"WAKE_ADMIN=" + addr}})
	p.wantExit(lifespan.ExitStart)
	p.wantCleanedUpLast()
	p.wantStopped("start-up failed", addr, "--admin or WAKE_ADMIN")
}

func TestTheDefaultAdminPortMayBeTaken(t *testing.T) {
	t.Parallel()
	// Whoever else has it will do as well.
	if l, err := net.Listen("tcp", "127.0.0.1:8001"); err == nil {
		defer l.Close()
	}
	p := start(t, "stubborn shop", invocation{env: []string{"WAKE_ADMIN="}})
	p.logged("running without the admin listener")
	want(t, ask(newVisitor(t), "GET", p.url()+"/ping", nil), 200)
	p.signal(syscall.SIGTERM)
	p.wantExit(lifespan.ExitOK)
}

func TestAnAdminAddressThatOthersCanReachIsRefused(t *testing.T) {
	for _, addr := range []string{"0.0.0.0:0", ":0", "192.0.2.1:8001", "[::]:0", "example.com:80"} {
		t.Run(addr, func(t *testing.T) {
			t.Parallel()
			p := start(t, "stubborn shop", invocation{args: []string{"--admin", addr}})
			p.wantExit(lifespan.ExitStart)
			p.wantStopped(addr, "is not a loopback address", "use 127.0.0.1 or off")
			p.wantCleanedUpLast()
		})
	}
}

func TestAListenerThatDiesStopsTheProgramInGoodOrder(t *testing.T) {
	t.Parallel()
	p := start(t, "shop with a listener of its own", invocation{})
	waiting := asking(newVisitor(t), "GET", p.url()+"/closed")
	p.printed("waiting request begins")
	p.signal(syscall.SIGUSR2)
	p.logged("draining")
	p.signal(syscall.SIGUSR1)
	want(t, receive(t, waiting, "the answer"), 200)
	p.wantExit(lifespan.ExitServe)
	p.wantPrinted("waiting request ends", "clean up")
	p.wantCleanedUpLast()
	p.wantStopped("serving failed", "a listener died")
}

func TestAPartThatDiesStopsTheProgramAfterItsTasks(t *testing.T) {
	t.Parallel()
	p := start(t, "busy shop", invocation{})
	p.url()
	p.signal(syscall.SIGUSR1)
	p.wantExit(lifespan.ExitServe)
	p.wantCleanedUpLast()
	p.wantStopped(`serving failed: part "pulse": no pulse`)
}

func TestACleanUpThatFailsOrHangsExitsWith4(t *testing.T) {
	for program, says := range map[string]string{
		"clean-up fails": "clean-up failed: the database does not close",
		"clean-up hangs": "clean-up is abandoned",
	} {
		t.Run(program, func(t *testing.T) {
			t.Parallel()
			p := start(t, program, invocation{})
			want(t, ask(newVisitor(t), "GET", p.url()+"/ping", nil), 200)
			began := time.Now()
			p.signal(syscall.SIGTERM)
			p.wantExitBy(began, lifespan.ExitCleanup, 300*time.Millisecond)
			p.wantStopped(says)
		})
	}
}

func TestAnIdleProgramStopsSoonWithCode0(t *testing.T) {
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(s.String(), func(t *testing.T) {
			t.Parallel()
			p := startStubborn(t, longDrain)
			idle := newVisitor(t)
			want(t, ask(idle, "GET", p.url()+"/ping", nil), 200)
			began := time.Now()
			p.signal(s)
			p.wantExitBy(began, lifespan.ExitOK, 0)
			p.wantCleanedUpLast()
		})
	}
}
