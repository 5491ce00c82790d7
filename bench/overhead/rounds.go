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
	process  *proc.Process
	rate     []float64 // requests a second
	cpu      []float64 // microseconds for a request
	ratio    []float64 // of requests for the same processor time, to the first server's of the same round
	share    []float64 // of the core that the server had
	p50, p99 []float64 // nanoseconds
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
			f.ratio = append(f.ratio, last(all[0].cpu)/last(f.cpu))
		}
	}
	t := report.NewTable("server", "requests/s", "core had", "CPU µs/request", "spread", "to net/http", "p50", "p99")
	for i, f := range all {
		t.Row(servers[i].title, report.Thousands(report.Median(f.rate)), fmt.Sprintf("%.0f %%", 100*report.Median(f.share)),
			fmt.Sprintf("%.1f", report.Median(f.cpu)), report.Spread(f.cpu), fmt.Sprintf("%.2f", report.Median(f.ratio)),
			latency(f.p50), latency(f.p99))
	}
	return t, nil
}

// A server that is asked as fast as it answers uses its core fully, unless
// something else does. Rounds with less than fullCore of it are done again, up
// to maxTries times; then the best one counts.
const (
	fullCore = 0.95
	maxTries = 4
)

func (f *figures) round(o options, request []byte) error {
	var best *load.Result
	var used time.Duration
	share := -1.0
	for range maxTries {
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
		if s := float64(after-before) / float64(r.Elapsed); s > share {
			best, used, share = r, after-before, s
		}
		if share >= fullCore {
			break
		}
	}
	f.add(best, used, share)
	return nil
}

func (f *figures) add(r *load.Result, used time.Duration, share float64) {
	f.share = append(f.share, share)
	f.rate = append(f.rate, r.Rate())
	f.cpu = append(f.cpu, float64(used.Nanoseconds())/1e3/float64(r.Requests))
	f.p50 = append(f.p50, float64(r.Latencies.At(0.50)))
	f.p99 = append(f.p99, float64(r.Latencies.At(0.99)))
}

func last(values []float64) float64 { return values[len(values)-1] }

func latency(rounds []float64) string {
	return report.Milliseconds(time.Duration(report.Median(rounds)))
}
