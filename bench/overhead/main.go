// The program overhead measures what a request costs on Wake, on what it is
// built on and on its neighbours: each server is a process on a core of its
// own, loaded from the other cores in rounds that take turns.
package main

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/wake-go/wake/bench/load"
	"github.com/wake-go/wake/bench/proc"
	"github.com/wake-go/wake/bench/report"
)

type options struct {
	rounds   int
	duration time.Duration
	conns    int
}

func main() {
	short := flag.Bool("short", false, "a quick run, whose figures are rough")
	write := flag.Bool("write", false, "write the tables into docs/benchmarks.md")
	doc := flag.String("doc", "../docs/benchmarks.md", "the document that -write changes")
	o := options{rounds: 7, duration: 2 * time.Second}
	flag.IntVar(&o.rounds, "rounds", o.rounds, "rounds, of which the median counts")
	flag.DurationVar(&o.duration, "duration", o.duration, "time for each server in a round")
	flag.IntVar(&o.conns, "conns", 32, "connections")
	flag.Parse()
	if *short {
		o.rounds, o.duration = 3, 300*time.Millisecond
	}
	if err := run(o, *write, *doc); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(o options, write bool, doc string) error {
	dir, err := os.MkdirTemp("", "overhead")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := build(dir); err != nil {
		return err
	}
	proc.KeepOff(serverCore, runtime.NumCPU())

	var text strings.Builder
	command := "cd bench && go run ./overhead"
	if args := strings.Join(os.Args[1:], " "); args != "" {
		command += " " + args
	}
	text.WriteString(report.Origin(command))
	for _, route := range []struct {
		title   string
		request []byte
	}{
		{"GET /hello/{name}", load.Get("/hello/alice")},
		{"POST /users, JSON with validation", load.Post("/users", `{"username":"alice","email":"alice@example.test","age":42}`)},
	} {
		table, err := measure(o, dir, route.request)
		if err != nil {
			return fmt.Errorf("%s: %w", route.title, err)
		}
		fmt.Fprintf(&text, "**%s**, %d connections, median of %d rounds of %v:\n\n%s\n", route.title, o.conns, o.rounds, o.duration, table)
	}
	programs, err := programTable(o, dir)
	if err != nil {
		return err
	}
	fmt.Fprintf(&text, "**The programs**:\n\n%s", programs)
	fmt.Print(text.String())
	if write {
		return report.Write(doc, "overhead", text.String())
	}
	return nil
}
