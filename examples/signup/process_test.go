package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/wake-go/wake/durable"
	"github.com/wake-go/wake/durable/sqlite"
	"github.com/wake-go/wake/examples/signup/internal/users"
	"github.com/wake-go/wake/lifespan"
)

// A process is the example as people run it.
type process struct {
	cmd   *exec.Cmd
	dir   string
	url   string
	log   bytes.Buffer
	ended chan error
}

// program starts the example in an empty directory.
func program(t *testing.T, env ...string) *process {
	t.Helper()
	return programIn(t, t.TempDir(), nil, env...)
}

// programIn starts the example in a directory, and waits until it is ready or has ended.
func programIn(t *testing.T, dir string, args []string, env ...string) *process {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{dir: dir, ended: make(chan error, 1)}
	p.cmd = exec.Command(self, args...)
	p.cmd.Dir = p.dir
	p.cmd.Env = append([]string{asProgram + "=1", "WAKE_ADDR=127.0.0.1:0", "WAKE_ADMIN=off", "HOME=" + p.dir}, env...)
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	url := make(chan string, 1)
	read := make(chan struct{})
	go func() {
		defer close(read)
		lines := bufio.NewScanner(stderr)
		for lines.Scan() {
			p.log.Write(append(lines.Bytes(), '\n'))
			var line struct{ Msg, URL string }
			if json.Unmarshal(lines.Bytes(), &line) == nil && line.Msg == "ready" {
				url <- line.URL
			}
		}
	}()
	go func() {
		<-read // Wait closes the pipe
		p.ended <- p.cmd.Wait()
		close(url)
	}()
	kill := time.AfterFunc(time.Minute, func() { _ = p.cmd.Process.Kill() }) // the test then says what is missing
	t.Cleanup(func() {
		kill.Stop()
		_ = p.cmd.Process.Kill() // does nothing to a process that has ended
		for range url {
		}
		if t.Failed() {
			t.Logf("the process wrote:\n%s", p.log.String())
		}
	})
	p.url = <-url // empty if it ended first
	return p
}

// exitCode waits for the process to end.
func (p *process) exitCode(t *testing.T) int {
	t.Helper()
	err := <-p.ended
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		return exit.ExitCode()
	case err != nil:
		t.Fatal(err)
	}
	return 0
}

// kill ends the process as a power cut would.
func (p *process) kill(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	p.exitCode(t)
}

// stop ends the process as an operator does.
func (p *process) stop(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := p.exitCode(t); code != lifespan.ExitOK {
		t.Errorf("exit code %d", code)
	}
}

// register returns the answer's status, 0 if there is none.
func (p *process) register(username string) int {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	res, err := client.Post(p.url+"/register/"+username, "", nil)
	if err != nil {
		return 0
	}
	res.Body.Close()
	return res.StatusCode
}

func (p *process) mustRegister(t *testing.T, username string) {
	t.Helper()
	if status := p.register(username); status != http.StatusOK {
		t.Fatalf("the registration of %s is answered %d", username, status)
	}
}

// users asks the running process.
func (p *process) users(t *testing.T) []users.User {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	res, err := client.Get(p.url + "/data")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var data struct{ Users []users.User }
	if err := json.NewDecoder(res.Body).Decode(&data); err != nil {
		t.Fatal(err)
	}
	return data.Users
}

// untilServed waits until what servers elsewhere are told of all users is done.
func (p *process) untilServed(t *testing.T) []users.User {
	t.Helper()
	deadline := time.After(2 * patience)
	for {
		all := p.users(t)
		if !slices.ContainsFunc(all, func(u users.User) bool { return !u.Emailed || !u.CRM }) {
			return all
		}
		select {
		case <-deadline:
			t.Fatalf("not all is done after %v: %+v", 2*patience, all)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// openUsers looks into the database of a process that has ended.
func openUsers(t *testing.T, dir string) (*users.Store, *durable.Queue) {
	t.Helper()
	file, err := sqlite.Open(t.Context(), sqlite.Config{Path: filepath.Join(dir, "signup.db")}) // the default
	if err != nil {
		t.Fatal(err)
	}
	queue := durable.NewQueue(file)
	t.Cleanup(func() {
		if err := errors.Join(queue.Close(context.Background()), file.Close()); err != nil {
			t.Error(err)
		}
	})
	store, err := users.New(t.Context(), file.DB())
	if err != nil {
		t.Fatal(err)
	}
	return store, queue
}

// A CRM that answers when it is told to shows that the process waits for the task that calls it. What had not begun
// may stay in the queue.
func TestSIGTERMWaitsForTheTasks(t *testing.T) {
	t.Parallel()
	called, answer := make(chan struct{}), make(chan struct{})
	crmServer := newCRM(t, func(http.ResponseWriter, *http.Request) {
		close(called)
		<-answer
	})
	let := sync.OnceFunc(func() { close(answer) })
	t.Cleanup(let) // before the server closes, which waits

	p := program(t, "SIGNUP_CRM="+crmServer)
	p.mustRegister(t, "Ada")
	<-called
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	waitUntilNobodyListens(t, strings.TrimPrefix(p.url, "http://"))
	let()
	if code := p.exitCode(t); code != lifespan.ExitOK {
		t.Errorf("exit code %d", code)
	}

	store, queue := openUsers(t, p.dir)
	all, err := store.All(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != 1 || !all[0].CRM {
		t.Errorf("after the end: %+v", all)
	}
	expectDoneOrQueued(t, all, queue)
}

func waitUntilNobodyListens(t *testing.T, addr string) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for time.Now().Before(deadline) {
		conn, err := net.DialTimeout("tcp", addr, patience)
		if err != nil {
			return
		}
		// The other end closes it when it closes the listener.
		_ = conn.SetDeadline(deadline)
		_, _ = conn.Read(make([]byte, 1))
		conn.Close()
	}
	t.Fatal("the listener stays open")
}

func TestPostgresIsRefusedAtStart(t *testing.T) {
	t.Parallel()
	p := program(t, "WAKE_QUEUE=postgres://ada:secret@localhost/signup")
	if code := p.exitCode(t); code != lifespan.ExitStart {
		t.Errorf("exit code %d, want %d", code, lifespan.ExitStart)
	}
	if log := p.log.String(); !strings.Contains(log, "PostgreSQL is not supported") || strings.Contains(log, "secret") {
		t.Errorf("log:\n%s", log)
	}
}
