package load

import (
	"time"
)

// A Result is what a load has found.
type Result struct {
	Requests  int
	Elapsed   time.Duration
	Latencies Latencies // sorted
}

// Rate returns the requests a second.
func (r *Result) Rate() float64 { return float64(r.Requests) / r.Elapsed.Seconds() }

// Closed sends requests on some connections at once, each of which waits for
// its answer before it sends the next.
//
// It never sleeps: a client that does is woken by the server's writes, and
// what that costs, which is more than most of what is compared, would count as
// the server's; the more the slower the server is.
func Closed(addr string, request []byte, conns int, d time.Duration) (*Result, error) {
	clients := make([]*polled, conns)
	for i := range clients {
		c, err := dialPolled(addr, request)
		if err != nil {
			return nil, err
		}
		defer c.conn.Close()
		clients[i] = c
	}
	r := &Result{}
	start := time.Now()
	for _, c := range clients {
		if err := c.send(); err != nil {
			return nil, err
		}
	}
	for now := start; now.Sub(start) < d; {
		for _, c := range clients {
			answered, err := c.poll()
			if err != nil {
				return nil, err
			}
			now = time.Now()
			if !answered {
				continue
			}
			r.Latencies = append(r.Latencies, now.Sub(c.sent))
			if err := c.send(); err != nil {
				return nil, err
			}
		}
	}
	r.Elapsed = time.Since(start)
	r.Requests = len(r.Latencies)
	r.Latencies.sort()
	return r, nil
}
