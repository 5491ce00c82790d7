//go:build unix

package wake_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience bounds every wait for a process. Nothing that works comes near it.
const patience = 30 * time.Second

// A process is one of programs in a process of its own. What it prints is what
// it does, a line each; its log is JSON.
type process struct {
	t    *testing.T
	cmd  *exec.Cmd
	out  *lines
	log  *lines
	exit func() int
}

// An invocation is how a program is started.
type invocation struct {
	args  []string
	env   []string
	files []*os.File // from descriptor 3 on
	shell string     // a script that ends with exec "$@"
}

// start runs a program of programs.
func start(t *testing.T, program string, how invocation) *process {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	command := append([]string{self}, how.args...)
	if how.shell != "" {
		command = append([]string{"sh", "-c", how.shell, "sh"}, command...)
	}
	p := &process{t: t, cmd: exec.Command(command[0], command[1:]...), out: newLines(), log: newLines()}
	p.cmd.Env = append(slices.DeleteFunc(os.Environ(), ofWake), programVar+"="+program,
		"WAKE_ADDR=127.0.0.1:0", "WAKE_ADMIN=off", "WAKE_LOG_FORMAT=json")
	p.cmd.Env = append(p.cmd.Env, how.env...)
	p.cmd.ExtraFiles = how.files
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p.reap(stdout, stderr)
	return p
}

// ofWake tells the variables that a test must not inherit.
func ofWake(variable string) bool {
	return strings.HasPrefix(variable, "WAKE_") || strings.HasPrefix(variable, "LISTEN_") ||
		strings.HasPrefix(variable, "NOTIFY_SOCKET=") || strings.HasPrefix(variable, "WATCHDOG_")
}

// reap reads what the process writes, and waits for its end, in any case
// before the test ends.
func (p *process) reap(stdout, stderr io.Reader) {
	var reading sync.WaitGroup
	reading.Go(func() { p.out.read(stdout) })
	reading.Go(func() { p.log.read(stderr) })
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		reading.Wait()
		var exit *exec.ExitError
		if err := p.cmd.Wait(); err != nil && !errors.As(err, &exit) {
			p.t.Errorf("wait for the process: %v", err)
		}
	}()
	p.exit = func() int {
		p.t.Helper()
		select {
		case <-ended:
		case <-time.After(patience):
			_ = p.cmd.Process.Signal(syscall.SIGQUIT) // its stacks are in the log
			<-ended
			p.t.Fatalf("the process has not ended within %v%s", patience, p)
		}
		return p.cmd.ProcessState.ExitCode()
	}
	p.t.Cleanup(func() {
		_ = p.cmd.Process.Kill() // usually it has ended
		<-ended
		if p.t.Failed() {
			p.t.Logf("the process:%s", p)
		}
	})
}

func (p *process) String() string {
	return fmt.Sprintf("\nprinted:\n%s\nlogged:\n%s", p.out, p.log)
}

// url waits until the process is ready and returns where it serves.
func (p *process) url() string { return p.ready("url") }

// admin is the same for the admin listener.
func (p *process) admin() string { return p.ready("admin") }

func (p *process) ready(key string) string {
	p.t.Helper()
	url, ok := p.logged("ready")[key].(string)
	if !ok {
		p.t.Fatalf("the ready line has no %s%s", key, p)
	}
	return url
}

func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

// printed waits for a line of output that begins with prefix.
func (p *process) printed(prefix string) string {
	p.t.Helper()
	line, ok := p.out.wait(func(line string) bool { return strings.HasPrefix(line, prefix) })
	if !ok {
		p.t.Fatalf("it never prints %q%s", prefix, p)
	}
	return line
}

// printedTimes waits until a line has been printed so many times.
func (p *process) printedTimes(line string, times int) {
	p.t.Helper()
	if _, ok := p.out.wait(func(l string) bool {
		if l == line {
			times--
		}
		return times == 0
	}); !ok {
		p.t.Fatalf("it does not print %q often enough%s", line, p)
	}
}

// logged waits for a line of the log with the message, and returns it.
func (p *process) logged(message string) map[string]any {
	p.t.Helper()
	var found map[string]any
	_, ok := p.log.wait(func(line string) bool {
		var entry map[string]any
		if json.Unmarshal([]byte(line), &entry) != nil || !strings.HasPrefix(fmt.Sprint(entry["msg"]), message) {
			return false
		}
		found = entry
		return true
	})
	if !ok {
		p.t.Fatalf("it never logs %q%s", message, p)
	}
	return found
}

// wantExit waits for the end of the process and checks its code and that
// clean-up has run, after everything else.
func (p *process) wantExit(code int) {
	p.t.Helper()
	if got := p.exit(); got != code {
		p.t.Errorf("the exit code is %d, want %d%s", got, code, p)
	}
}

func (p *process) wantCleanedUpLast() {
	p.t.Helper()
	all := p.out.all()
	if len(all) == 0 || all[len(all)-1] != "clean up" || slices.Index(all, "clean up") != len(all)-1 {
		p.t.Errorf("clean-up has not run once, after everything else%s", p)
	}
}

// wantPrinted checks, after the end, that the lines were printed in this order.
func (p *process) wantPrinted(want ...string) {
	p.t.Helper()
	rest := p.out.all()
	for _, line := range want {
		at := slices.Index(rest, line)
		if at < 0 {
			p.t.Errorf("it has not printed %q, or not in the order %q%s", line, want, p)
			return
		}
		rest = rest[at+1:]
	}
}

// lines are what a process has written to one of its outputs.
type lines struct {
	mu    sync.Mutex
	seen  []string
	ended bool
	more  chan struct{} // closed when there is news
}

func newLines() *lines { return &lines{more: make(chan struct{})} }

func (l *lines) read(from io.Reader) {
	scanner := bufio.NewScanner(from)
	scanner.Buffer(nil, 4<<20)
	for scanner.Scan() {
		l.news(func() { l.seen = append(l.seen, scanner.Text()) })
	}
	l.news(func() { l.ended = true })
}

func (l *lines) news(change func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change()
	close(l.more)
	l.more = make(chan struct{})
}

// wait waits for a line that matches; not beyond the end of the process.
func (l *lines) wait(match func(string) bool) (string, bool) {
	timeout := time.After(patience)
	for from := 0; ; {
		l.mu.Lock()
		seen, ended, more := l.seen, l.ended, l.more
		l.mu.Unlock()
		for ; from < len(seen); from++ {
			if match(seen[from]) {
				return seen[from], true
			}
		}
		if ended {
			return "", false
		}
		select {
		case <-more:
		case <-timeout:
			return "", false
		}
	}
}

func (l *lines) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.seen)
}

func (l *lines) String() string { return "\t" + strings.Join(l.all(), "\n\t") }

// A visitor is a client whose connections end with the test.
func newVisitor(t *testing.T) *http.Client {
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: patience}
}

// An answer is what a request came to.
type answer struct {
	status int
	header http.Header
	body   string
	closed bool // it says that the connection ends
	err    error
}

func ask(client *http.Client, method, url string, body io.Reader) answer {
	req, err := http.NewRequest(method, url, body)
	if err != nil {
		return answer{err: err}
	}
	res, err := client.Do(req)
	if err != nil {
		return answer{err: err}
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	return answer{res.StatusCode, res.Header, string(text), res.Close, err}
}

// asking asks meanwhile.
func asking(client *http.Client, method, url string) <-chan answer {
	answers := make(chan answer, 1)
	go func() { answers <- ask(client, method, url, nil) }()
	return answers
}

func want(t *testing.T, got answer, status int) {
	t.Helper()
	if got.err != nil || got.status != status {
		t.Errorf("it was answered %d %q, error %v; want %d", got.status, got.body, got.err, status)
	}
}

func receive[T any](t *testing.T, from <-chan T, what string) (v T) {
	t.Helper()
	select {
	case v = <-from:
	case <-time.After(patience):
		t.Fatalf("%s does not come", what)
	}
	return v
}
