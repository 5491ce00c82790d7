//go:build unix

package wake_test

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/wake-go/wake/lifespan"
)

const (
	shortDrain = 400 * time.Millisecond
	longDrain  = time.Hour
)

func startStubborn(t *testing.T, drain time.Duration) *process {
	t.Helper()
	return start(t, "stubborn shop", invocation{env: []string{"WAKE_DRAIN=" + drain.String()}})
}

// wantExitBy checks that the process ends when the drain's limit and twice the
// grace have passed, and a moment for what a busy machine needs.
func (p *process) wantExitBy(began time.Time, code int, drain time.Duration) {
	p.t.Helper()
	p.wantExit(code)
	const moment = 2 * time.Second
	if took, most := time.Since(began), drain+2*stubbornGrace+moment; took > most {
		p.t.Errorf("it has taken %v to stop, with a limit of %v", took, most)
	}
}

// stopped is the error with which the process says that it has ended.
func (p *process) stopped() string {
	p.t.Helper()
	text, _ := p.logged("stopped")["error"].(string)
	return text
}

func (p *process) wantStopped(parts ...string) {
	p.t.Helper()
	text := p.stopped()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			p.t.Errorf("it ends with %q, which does not say %q", text, part)
		}
	}
}

func TestARequestThatHonoursItsContextIsCutAtTheDrainLimit(t *testing.T) {
	t.Parallel()
	p := startStubborn(t, shortDrain)
	polite := asking(newVisitor(t), "GET", p.url()+"/polite")
	waiting := asking(newVisitor(t), "GET", p.url()+"/closed")
	p.printed("polite request begins")
	p.printed("waiting request begins")
	began := time.Now()
	p.signal(syscall.SIGTERM)
	p.logged("draining")
	p.signal(syscall.SIGUSR1)
	want(t, receive(t, waiting, "the answer of the other request"), 200)
	cut := receive(t, polite, "the answer of the request that is cut")
	if cut.err != nil || cut.status != 503 && cut.status != 200 {
		t.Errorf("a request that is cut and returns in time is answered %d, error %v; want its own answer", cut.status, cut.err)
	}
	p.wantExitBy(began, lifespan.ExitAbandoned, shortDrain)
	p.wantPrinted("waiting request ends", "polite request ends: wake: the application is about to stop", "clean up")
	p.wantCleanedUpLast()
	p.wantStopped("work abandoned: 1 requests were cut short")
}

func TestARequestThatIgnoresItsContextIsReportedWithItsStack(t *testing.T) {
	t.Parallel()
	p := startStubborn(t, shortDrain)
	deaf := asking(newVisitor(t), "GET", p.url()+"/deaf")
	p.printed("deaf request begins")
	began := time.Now()
	p.signal(syscall.SIGTERM)
	p.wantExitBy(began, lifespan.ExitAbandoned, shortDrain)
	if got := receive(t, deaf, "the end of the request"); got.err == nil {
		t.Errorf("it was answered %d", got.status)
	}
	p.wantCleanedUpLast()
	p.wantStopped("1 requests were cut short", "1 ignore their context", "wake_test.stubbornShop.func")
}

func TestAnAnswerThatNobodyReadsIsCutAtTheDrainLimit(t *testing.T) {
	t.Parallel()
	p := startStubborn(t, shortDrain)
	dial(t, strings.TrimPrefix(p.url(), "http://"), "GET /large HTTP/1.1\r\nHost: shop\r\n\r\n")
	p.printed("large answer begins")
	began := time.Now()
	p.signal(syscall.SIGTERM)
	p.wantExitBy(began, lifespan.ExitAbandoned, shortDrain)
	p.wantStopped("were cut short", "passed Config.DrainTimeout")
	p.wantCleanedUpLast()
}

func TestATaskThatHonoursItsContextIsReportedByNameRequestAndAge(t *testing.T) {
	t.Parallel()
	p := startStubborn(t, shortDrain)
	want(t, ask(newVisitor(t), "GET", p.url()+"/tasks/polite", nil), 200)
	p.printed("polite task begins")
	began := time.Now()
	p.signal(syscall.SIGTERM)
	p.wantExitBy(began, lifespan.ExitAbandoned, shortDrain)
	p.wantPrinted("polite task begins", "polite task ends", "clean up")
	p.wantCleanedUpLast()
	p.wantStopped(`1 tasks abandoned`, `"polite task"`, "cut short")
	entry := p.logged("task abandoned")
	if entry["task"] != "polite task" || entry["request"] == "" || entry["stack"] != nil {
		t.Errorf("the report is %v", entry)
	}
	text, _ := entry["age"].(string)
	if age, err := time.ParseDuration(text); err != nil || age < shortDrain {
		t.Errorf("its age is %v, want at least the drain's limit %v", entry["age"], shortDrain)
	}
}

func TestATaskThatIgnoresItsContextIsReportedWithItsStack(t *testing.T) {
	t.Parallel()
	p := startStubborn(t, shortDrain)
	want(t, ask(newVisitor(t), "GET", p.url()+"/tasks/deaf", nil), 200)
	p.printed("deaf task begins")
	began := time.Now()
	p.signal(syscall.SIGTERM)
	p.wantExitBy(began, lifespan.ExitAbandoned, shortDrain)
	p.wantCleanedUpLast()
	p.wantStopped(`"deaf task"`, "ignores its context")
	if stack := fmt.Sprint(p.logged("task abandoned")["stack"]); !strings.Contains(stack, "wake_test.addStubbornTasks.func") {
		t.Errorf("its stack is %q", stack)
	}
}

func TestADeafRequestAndADeafTaskAreBothReported(t *testing.T) {
	t.Parallel()
	p := startStubborn(t, shortDrain)
	want(t, ask(newVisitor(t), "GET", p.url()+"/tasks/deaf", nil), 200)
	p.printed("deaf task begins")
	asking(newVisitor(t), "GET", p.url()+"/deaf")
	p.printed("deaf request begins")
	began := time.Now()
	p.signal(syscall.SIGTERM)
	p.wantExitBy(began, lifespan.ExitAbandoned, shortDrain)
	p.wantCleanedUpLast()
	p.wantStopped("1 requests were cut short", `"deaf task"`, "ignores its context")
}

func TestAStreamEndsItselfWhenTheDrainBegins(t *testing.T) {
	t.Parallel()
	p := startStubborn(t, longDrain)
	res, err := newVisitor(t).Get(p.url() + "/events")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	events := bufio.NewReader(res.Body)
	if line, err := events.ReadString('\n'); err != nil || !strings.Contains(line, "hello") {
		t.Fatalf("the first event is %q, error %v", line, err)
	}
	began := time.Now()
	p.signal(syscall.SIGTERM)
	rest, err := io.ReadAll(events)
	if err != nil || !strings.Contains(string(rest), "event: bye") {
		t.Errorf("the stream ends with %q, error %v; want the event bye and an orderly end", rest, err)
	}
	p.wantExitBy(began, lifespan.ExitOK, 0)
	p.wantPrinted("stream ends", "task after stream", "clean up")
	p.wantCleanedUpLast()
}

func TestAConnectionTakenOverIsToldAndWaitedFor(t *testing.T) {
	t.Parallel()
	p := startStubborn(t, longDrain)
	addr := strings.TrimPrefix(p.url(), "http://")
	conn := dial(t, addr, "GET /socket HTTP/1.1\r\nHost: shop\r\nConnection: Upgrade\r\nUpgrade: talk\r\n\r\n")
	from := bufio.NewReader(conn)
	for line := ""; line != "hello\n"; {
		var err error
		if line, err = from.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
	p.signal(syscall.SIGTERM)
	if bye, err := from.ReadString('\n'); err != nil || bye != "bye\n" {
		t.Errorf("at the stop it is told %q, error %v", bye, err)
	}
	waitRefused(t, addr) // a program that did not wait would be gone now
	began := time.Now()
	if _, err := io.WriteString(conn, "bye\n"); err != nil {
		t.Error(err)
	}
	p.wantExitBy(began, lifespan.ExitOK, 0)
	p.wantPrinted("socket ends", "task after socket", "clean up")
	p.wantCleanedUpLast()
}

func TestASecondSignalCutsTheDrainAndCleanUpStillRuns(t *testing.T) {
	for _, signals := range [][2]syscall.Signal{
		{syscall.SIGTERM, syscall.SIGTERM},
		{syscall.SIGTERM, syscall.SIGINT},
		{syscall.SIGINT, syscall.SIGINT},
		{syscall.SIGINT, syscall.SIGTERM},
	} {
		t.Run(fmt.Sprint(signals), func(t *testing.T) {
			t.Parallel()
			p := startStubborn(t, longDrain)
			want(t, ask(newVisitor(t), "GET", p.url()+"/tasks/polite", nil), 200)
			p.printed("polite task begins")
			var polite []<-chan answer
			for i := range 30 {
				polite = append(polite, asking(newVisitor(t), "GET", p.url()+"/polite"))
				p.printedTimes("polite request begins", i+1)
			}
			p.signal(signals[0])
			p.logged("draining")
			began := time.Now()
			p.signal(signals[1])
			p.wantExitBy(began, lifespan.ExitAbandoned, 0)
			for _, p := range polite {
				if got := receive(t, p, "the answer"); got.err != nil {
					t.Errorf("a request that was cut has no answer: %v", got.err)
				}
			}
			p.wantPrinted("polite request ends: wake: the application is about to stop", "clean up")
			p.wantPrinted("polite task ends", "clean up")
			p.wantCleanedUpLast()
		})
	}
}

func TestAThirdSignalExitsAtOnce(t *testing.T) {
	t.Parallel()
	p := start(t, "very stubborn shop", invocation{env: []string{"WAKE_DRAIN=1h"}})
	asking(newVisitor(t), "GET", p.url()+"/deaf")
	p.printed("deaf request begins")
	p.signal(syscall.SIGTERM)
	p.logged("draining")
	p.signal(syscall.SIGTERM)
	p.logged("drain cut short")
	p.signal(syscall.SIGTERM)
	p.wantExit(lifespan.ExitAbandoned)
	if all := p.out.all(); all[len(all)-1] == "clean up" {
		t.Error("clean-up has run, so it has not exited at once")
	}
}
