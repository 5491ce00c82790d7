package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/wake-go/wake/bench/load"
	"github.com/wake-go/wake/bench/proc"
	"github.com/wake-go/wake/bench/report"
)

// serverCore is where the servers run; the client has the others.
const serverCore = 0

// A server is a program with a number of tasks after each response.
type server struct {
	title   string
	program string
	flags   []string
}

// servers are measured in this order; the others are compared with the first.
var servers = []server{
	{"net/http", "bare", nil},
	{"net/http, time limits", "bare", []string{"-limits"}},
	{"net/http, two `go func()`", "bare", []string{"-tasks=2"}},
	{"chi", "chi", nil},
	{"Huma", "huma", nil},
	{"Wake", "wake", nil},
	{"Wake, one task", "wake", []string{"-tasks=1"}},
	{"Wake, two tasks", "wake", []string{"-tasks=2"}},
}

// build compiles the programs, stripped as for production.
func build(dir string) error {
	cmd := exec.Command("go", "build", "-ldflags", "-s -w", "-o", dir+string(filepath.Separator), "./serve/...")
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("build the servers: %w; run this in the folder bench", err)
	}
	return nil
}

func (s server) start(dir string) (*proc.Process, error) {
	return proc.Start(serverCore, filepath.Join(dir, s.program), s.flags...)
}

// programTable measures what does not depend on load, and memory after it.
func programTable(o options, dir string) (*report.Table, error) {
	t := report.NewTable("program", "binary", "start to first answer", "resident after load")
	for _, s := range servers {
		if len(s.flags) > 0 {
			continue // the same program
		}
		file, err := os.Stat(filepath.Join(dir, s.program))
		if err != nil {
			return nil, err
		}
		started, resident, err := s.life(o, dir)
		if err != nil {
			return nil, err
		}
		t.Row(s.title, fmt.Sprintf("%.1f MB", float64(file.Size())/1e6), report.Milliseconds(started), fmt.Sprintf("%.1f MB", float64(resident)/1e6))
	}
	return t, nil
}

// life starts a server some times; the last one is loaded.
func (s server) life(o options, dir string) (started time.Duration, resident int64, err error) {
	request := load.Get("/hello/alice")
	var times []float64
	for range o.rounds {
		begin := time.Now()
		p, err := s.start(dir)
		if err != nil {
			return 0, 0, err
		}
		c, err := load.Dial(p.Addr, request)
		if err == nil {
			err = c.Do()
		}
		if err != nil {
			return 0, 0, err
		}
		times = append(times, float64(time.Since(begin)))
		c.Close()
		if len(times) == o.rounds {
			if _, err := load.Closed(p.Addr, request, o.conns, o.duration); err != nil {
				return 0, 0, err
			}
			if resident, err = p.Resident(); err != nil {
				return 0, 0, err
			}
		}
		if err := p.Stop(); err != nil {
			return 0, 0, err
		}
	}
	return time.Duration(report.Median(times)), resident, nil
}
