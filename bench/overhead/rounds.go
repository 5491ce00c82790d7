package main

import (
	"fmt"
	"time"

	"github.com/wake-go/wake/bench/load"
	"github.com/wake-go/wake/bench/proc"
	"github.com/wake-go/wake/bench/report"
)

// Figures are what the rounds have found of one server.
type figures struct {
	process         *proc.Process
	rate, ratio     []float64 // requests a second; compared with the first server's of the same round
	cpu             []float64 // microseconds for a request
	p50, p99        []float64 // nanoseconds
	rateInThisRound float64
}

// measure loads all servers in turns.
func measure(o options, dir string, request []byte) (*report.Table, error) {
	all := make([]*figures, len(servers))
	for i, s := range servers {
		p, err := s.start(dir)
		if err != nil {
			return nil, err
		}
		defer p.Stop()
		all[i] = &figures{process: p}
		if _, err := load.Closed(p.Addr, request, o.conns, o.duration/4); err != nil { // warm up
			return nil, fmt.Errorf("%s: %w", s.title, err)
		}
	}
	for range o.rounds {
		for i, f := range all {
			if err := f.round(o, request); err != nil {
				return nil, fmt.Errorf("%s: %w", servers[i].title, err)
			}
			f.ratio = append(f.ratio, f.rateInThisRound/all[0].rateInThisRound)
		}
	}
	t := report.NewTable("server", "requests/s", "spread", "to net/http", "CPU µs/request", "p50", "p99")
	for i, f := range all {
		t.Row(servers[i].title, report.Thousands(report.Median(f.rate)), report.Spread(f.rate),
			fmt.Sprintf("%.2f", report.Median(f.ratio)), fmt.Sprintf("%.1f", report.Median(f.cpu)),
			latency(f.p50), latency(f.p99))
	}
	return t, nil
}

func (f *figures) round(o options, request []byte) error {
	before, err := f.process.Used()
	if err != nil {
		return err
	}
	r, err := load.Closed(f.process.Addr, request, o.conns, o.duration)
	if err != nil {
		return err
	}
	after, err := f.process.Used()
	if err != nil {
		return err
	}
	f.rateInThisRound = r.Rate()
	f.rate = append(f.rate, r.Rate())
	f.cpu = append(f.cpu, float64((after-before).Microseconds())/float64(r.Requests))
	f.p50 = append(f.p50, float64(r.Latencies.At(0.50)))
	f.p99 = append(f.p99, float64(r.Latencies.At(0.99)))
	return nil
}

func latency(rounds []float64) string {
	return report.Milliseconds(time.Duration(report.Median(rounds)))
}
