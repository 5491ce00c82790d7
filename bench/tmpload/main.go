package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/wake-go/wake/bench/load"
	"github.com/wake-go/wake/bench/proc"
)

func main() {
	proc.KeepOff(0, 2)
	req := load.Get("/hello/alice")
	if os.Getenv("POST") != "" {
		req = load.Post("/users", `{"username":"alice","email":"alice@example.test","age":42}`)
	}
	var ps []*proc.Process
	cpu := make([][]float64, len(os.Args)-1)
	rate := make([][]float64, len(os.Args)-1)
	for _, c := range os.Args[1:] {
		p, err := proc.Start(0, "env", strings.Fields(c)...)
		if err != nil {
			panic(err)
		}
		ps = append(ps, p)
		load.Closed(p.Addr, req, 32, time.Second/4)
	}
	for range 15 {
		for i, p := range ps {
			a, _ := p.Used()
			r, err := load.Closed(p.Addr, req, 32, 600*time.Millisecond)
			if err != nil {
				panic(err)
			}
			b, _ := p.Used()
			cpu[i] = append(cpu[i], float64((b-a).Microseconds())/float64(r.Requests))
			rate[i] = append(rate[i], r.Rate())
		}
	}
	for i, p := range ps {
		slices.Sort(cpu[i])
		slices.Sort(rate[i])
		fmt.Printf("%-40s cpu min %.1f q1 %.1f med %.1f   rate max %.0f q3 %.0f\n", os.Args[i+1], cpu[i][0], cpu[i][4], cpu[i][7], rate[i][14], rate[i][10])
		p.Stop()
	}
}
