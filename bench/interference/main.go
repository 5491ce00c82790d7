// The program interference measures what tasks that compute do to requests:
// the server is one process, the client, which sends requests at a fixed rate,
// is another, and both use all cores.
package main

import (
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/wake-go/wake/bench/load"
	"github.com/wake-go/wake/bench/proc"
	"github.com/wake-go/wake/bench/report"
)

// rates are in requests a second.
var rates = []int{300, 2000}

func main() {
	serve := flag.String("serve", "", "be the server, with this background")
	short := flag.Bool("short", false, "a quick run, whose figures are rough")
	write := flag.Bool("write", false, "write the table into docs/benchmarks.md")
	doc := flag.String("doc", "../docs/benchmarks.md", "the document that -write changes")
	rounds := flag.Int("rounds", 5, "rounds, of which the median counts")
	duration := flag.Duration("duration", 3*time.Second, "time for each background and rate in a round")
	flag.Parse()
	if *short {
		*rounds, *duration = 1, time.Second
	}
	var err error
	if *serve != "" {
		err = serveBackground(*serve)
	} else {
		err = run(*rounds, *duration, *write, *doc)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(rounds int, d time.Duration, write bool, doc string) error {
	all, err := measure(rounds, d)
	if err != nil {
		return err
	}
	var text strings.Builder
	command := "cd bench && go run ./interference"
	if args := strings.Join(os.Args[1:], " "); args != "" {
		command += " " + args
	}
	text.WriteString(report.Origin(command))
	for _, rate := range rates {
		t := report.NewTable("background", "p50", "to idle", "p90", "p99", "to idle", "tasks/s")
		idle := all[key{backgrounds[0].name, rate}]
		for _, b := range backgrounds {
			f := all[key{b.name, rate}]
			t.Row(b.title, ms(f.p50), times(f.p50, idle.p50), ms(f.p90), ms(f.p99), times(f.p99, idle.p99),
				fmt.Sprintf("%.0f", report.Median(f.tasks)))
		}
		fmt.Fprintf(&text, "**%s requests/s**, median of %d rounds of %v:\n\n%s\n", report.Thousands(float64(rate)), rounds, d, t)
	}
	section := strings.TrimSuffix(text.String(), "\n")
	fmt.Print(section)
	if write {
		return report.Write(doc, "interference", section)
	}
	return nil
}

type key struct {
	background string
	rate       int
}

// Figures are what the rounds have found of one background at one rate.
type figures struct{ p50, p90, p99, tasks []float64 }

func measure(rounds int, d time.Duration) (map[key]*figures, error) {
	all := map[key]*figures{}
	for range rounds {
		for _, b := range backgrounds {
			p, err := proc.Start(-1, os.Args[0], "-serve", b.name)
			if err != nil {
				return nil, err
			}
			for _, rate := range rates {
				f := all[key{b.name, rate}]
				if f == nil {
					f = &figures{}
					all[key{b.name, rate}] = f
				}
				if err := f.round(p.Addr, rate, d); err != nil {
					return nil, fmt.Errorf("%s: %w", b.title, err)
				}
			}
			if err := p.Stop(); err != nil {
				return nil, fmt.Errorf("%s: %w", b.title, err)
			}
		}
	}
	return all, nil
}

func (f *figures) round(addr string, rate int, d time.Duration) error {
	began := time.Now()
	before, err := finished(addr)
	if err != nil {
		return err
	}
	r, err := load.Open(addr, load.Get("/hello/alice"), rate, d)
	if err != nil {
		return err
	}
	after, err := finished(addr)
	if err != nil {
		return err
	}
	f.tasks = append(f.tasks, float64(after-before)/time.Since(began).Seconds())
	f.p50 = append(f.p50, float64(r.Latencies.At(0.50)))
	f.p90 = append(f.p90, float64(r.Latencies.At(0.90)))
	f.p99 = append(f.p99, float64(r.Latencies.At(0.99)))
	return nil
}

// finished asks a server how many tasks have ended.
func finished(addr string) (int, error) {
	c, err := load.Dial(addr, load.Get("/finished"))
	if err != nil {
		return 0, err
	}
	defer c.Close()
	if err := c.Do(); err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(c.Body())))
}

func ms(rounds []float64) string {
	return report.Milliseconds(time.Duration(report.Median(rounds)))
}

func times(rounds, idle []float64) string {
	return fmt.Sprintf("%.1f ×", report.Median(rounds)/report.Median(idle))
}
