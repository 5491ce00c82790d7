package lifespan_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/wake-go/wake/lifespan"
)

// A testProgram is an application for a process of its own. It prints what
// happens to it, a line each.
type testProgram struct {
	life  lifespan.Func[int]
	serve func(context.Context, int) error
	cfg   lifespan.Config
}

func cleaningUp(ctx context.Context, yield func(int) error) error {
	err := yield(1)
	fmt.Println("clean up")
	return err
}

func hang(context.Context) error { select {} }

func programs() map[string]testProgram {
	return map[string]testProgram{
		"ordinary":    {life: cleaningUp, serve: serveUntilStopped[int]},
		"serve fails": {life: cleaningUp, serve: func(ctx context.Context, _ int) error { lifespan.MarkReady(ctx); return errBoom }},
		"set-up fails": {
			life:  func(context.Context, func(int) error) error { return errBoom },
			serve: serveUntilStopped[int],
		},
		"clean-up fails": {
			life:  func(_ context.Context, yield func(int) error) error { return errors.Join(yield(1), errClean) },
			serve: serveUntilStopped[int],
		},
		"set-up waits": {
			life: func(ctx context.Context, _ func(int) error) error {
				fmt.Println("set up")
				<-ctx.Done()
				return context.Cause(ctx)
			},
			serve: serveUntilStopped[int],
		},
		"set-up hangs": {
			life:  func(ctx context.Context, _ func(int) error) error { fmt.Println("set up"); return hang(ctx) },
			serve: serveUntilStopped[int],
			cfg:   lifespan.Config{Grace: time.Hour},
		},
		"set-up hangs a little": {
			life:  func(ctx context.Context, _ func(int) error) error { fmt.Println("set up"); return hang(ctx) },
			serve: serveUntilStopped[int],
			cfg:   lifespan.Config{Grace: time.Millisecond},
		},
		"serve drains": {
			life: cleaningUp,
			serve: func(ctx context.Context, _ int) error {
				lifespan.MarkReady(ctx)
				<-lifespan.Drain(ctx).Done()
				return lifespan.Drain(ctx).Err()
			},
			cfg: lifespan.Config{DrainTimeout: -1},
		},
		"serve hangs": {
			life:  cleaningUp,
			serve: func(ctx context.Context, _ int) error { lifespan.MarkReady(ctx); return hang(ctx) },
			cfg:   lifespan.Config{DrainTimeout: time.Millisecond, Grace: time.Millisecond},
		},
		"drain hangs": {
			life:  cleaningUp,
			serve: func(ctx context.Context, _ int) error { lifespan.MarkReady(ctx); return hang(ctx) },
			cfg:   lifespan.Config{DrainTimeout: -1, Grace: time.Hour},
		},
		"event handler hangs": {
			life:  cleaningUp,
			serve: serveUntilStopped[int],
			cfg: lifespan.Config{OnEvent: func(e lifespan.Event) {
				if p, ok := e.(lifespan.PhaseChanged); ok && p.To == lifespan.Draining {
					select {}
				}
			}},
		},
	}
}

// runProgram is the test binary's main when it is one of programs.
func runProgram(name string) {
	p := programs()[name]
	cfg := p.cfg
	cfg.Signals = []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP}
	cfg.OnEvent = func(e lifespan.Event) {
		fmt.Println(e)
		if p.cfg.OnEvent != nil {
			p.cfg.OnEvent(e)
		}
	}
	err := lifespan.Run(context.Background(), p.life, p.serve, cfg)
	if err != nil {
		fmt.Println(err)
	}
	os.Exit(lifespan.ExitCode(err))
}

func TestExitCodesOfRealProcesses(t *testing.T) {
	term, intr := syscall.SIGTERM, syscall.SIGINT
	type sent struct {
		after string // the beginning of a line of output; empty: at once

		signal os.Signal
	}
	for _, test := range []struct {
		program string
		signals []sent
		code    int
		says    []string
	}{
		{"ordinary", []sent{{"ready", term}}, lifespan.ExitOK, []string{"draining (signal: terminated)", "clean up", "stopped"}},
		{"ordinary", []sent{{"ready", intr}}, lifespan.ExitOK, []string{"clean up", "stopped"}},
		{"serve fails", nil, lifespan.ExitServe, []string{"clean up", "serving failed: boom"}},
		{"set-up fails", nil, lifespan.ExitStart, []string{"start-up failed: boom"}},
		{"clean-up fails", []sent{{"ready", term}}, lifespan.ExitCleanup, []string{"clean-up failed: clean-up boom"}},
		{"set-up waits", []sent{{"set up", term}}, lifespan.ExitStart, []string{"start-up failed: signal: terminated"}},
		{"set-up hangs", []sent{{"set up", term}, {"signal 1", intr}}, lifespan.ExitStart, []string{"set-up is abandoned", "start-up failed: signal: terminated; set-up is abandoned"}},
		{"set-up hangs a little", []sent{{"set up", term}}, lifespan.ExitStart, []string{"set-up is abandoned", "start-up failed: signal: terminated; set-up is abandoned"}},
		{"serve drains", []sent{{"ready", term}, {"draining", term}}, lifespan.ExitAbandoned, []string{"drain cut short: signal: terminated", "clean up", "work abandoned: signal: terminated"}},
		{"serve hangs", []sent{{"ready", term}}, lifespan.ExitAbandoned, []string{"clean up", "work abandoned: drain passed Config.DrainTimeout; serve is abandoned"}},
		{"drain hangs", []sent{{"ready", term}, {"draining", intr}, {"drain cut", term}}, lifespan.ExitAbandoned, []string{"signal 3"}},
		{"event handler hangs", []sent{{"ready", term}, {"draining", intr}, {"", syscall.SIGHUP}}, lifespan.ExitAbandoned, nil},
	} {
		t.Run(fmt.Sprintf("%s %v", test.program, test.signals), func(t *testing.T) {
			t.Parallel()
			p := startProcess(t, test.program)
			for _, s := range test.signals {
				p.waitFor(s.after)
				if err := p.cmd.Process.Signal(s.signal); err != nil {
					t.Fatal(err)
				}
			}
			code, output := p.wait()
			if code != test.code {
				t.Errorf("the exit code is %d, want %d", code, test.code)
			}
			for _, want := range test.says {
				if !strings.Contains(output, "\n"+want) {
					t.Errorf("it does not say %q", want)
				}
			}
			if t.Failed() {
				t.Logf("output:\n%s", output)
			}
		})
	}
}

// A process is one of programs in a process of its own.
type process struct {
	t      *testing.T
	cmd    *exec.Cmd
	lines  *bufio.Scanner
	output strings.Builder
}

func startProcess(t *testing.T, name string) *process {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append(os.Environ(), program+"="+name)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return &process{t: t, cmd: cmd, lines: bufio.NewScanner(out)}
}

// waitFor reads until a line that begins with prefix.
func (p *process) waitFor(prefix string) {
	p.t.Helper()
	if prefix == "" {
		return
	}
	for p.next() {
		if strings.HasPrefix(p.lines.Text(), prefix) {
			return
		}
	}
	p.t.Fatalf("it never says %q:%s", prefix, p.output.String())
}

func (p *process) next() bool {
	ok := p.lines.Scan()
	if ok {
		p.output.WriteString("\n" + p.lines.Text())
	}
	return ok
}

func (p *process) wait() (code int, output string) {
	for p.next() {
	}
	err := p.cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		p.t.Fatal(err)
	}
	return p.cmd.ProcessState.ExitCode(), p.output.String()
}
