// Package proc runs servers as processes of their own.
package proc

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// A Process is a server that has printed its address.
type Process struct {
	Addr  string
	cmd   *exec.Cmd
	stdin io.Closer
}

// Start runs a command that prints its address first and ends when its
// standard input does. With a core of 0 or more it runs on that one alone, as
// far as the system has a way to say so.
func Start(core int, name string, args ...string) (*Process, error) {
	cmd := exec.Command(name, args...)
	if core >= 0 {
		cmd = pinned(core, name, args)
	}
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &Process{cmd: cmd, stdin: stdin}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		return nil, fmt.Errorf("%s printed no address: %w; %w", name, err, p.Stop())
	}
	p.Addr = strings.TrimSpace(line)
	return p, nil
}

func pinned(core int, name string, args []string) *exec.Cmd {
	if taskset, err := exec.LookPath("taskset"); err == nil {
		return exec.Command(taskset, append([]string{"-c", strconv.Itoa(core), name}, args...)...)
	}
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
	return cmd
}

// KeepOff keeps this process off a core, so that it is left to a server.
func KeepOff(core, cores int) {
	taskset, err := exec.LookPath("taskset")
	if err != nil || cores < 2 {
		return
	}
	var others []string
	for i := range cores {
		if i != core {
			others = append(others, strconv.Itoa(i))
		}
	}
	_ = exec.Command(taskset, "-a", "-c", "-p", strings.Join(others, ","), strconv.Itoa(os.Getpid())).Run()
}

// Stop ends the process and waits for it.
func (p *Process) Stop() error {
	p.stdin.Close()
	return p.cmd.Wait()
}

// Used returns the processor time that the process has used, to 10 ms.
func (p *Process) Used() (time.Duration, error) {
	const tick = time.Second / 100 // in /proc, on every system that Go runs on
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	user, err := strconv.Atoi(fields[11])
	if err != nil {
		return 0, err
	}
	system, err := strconv.Atoi(fields[12])
	return time.Duration(user+system) * tick, err
}

// Resident returns the memory that the process occupies, in bytes.
func (p *Process) Resident() (int64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(status), "VmRSS:")
	var kilobytes int64
	_, err = fmt.Sscan(rest, &kilobytes)
	return kilobytes << 10, err
}
