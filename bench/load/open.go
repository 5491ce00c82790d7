package load

import (
	"sync"
	"time"
)

// Open sends requests at a fixed rate, whether the earlier ones have been
// answered or not. Latencies count from the moment a request was due, so a
// server that stalls does not hide it by being asked less.
func Open(addr string, request []byte, perSecond int, d time.Duration) (*Result, error) {
	o := &open{addr: addr, request: request}
	defer o.close()
	if err := o.warm(); err != nil {
		return nil, err
	}
	o.latencies = nil
	start := time.Now()
	interval := time.Second / time.Duration(perSecond)
	var all sync.WaitGroup
	for due := start; due.Sub(start) < d; due = due.Add(interval) {
		sleepUntil(due)
		all.Go(func() { o.send(due) })
	}
	all.Wait()
	if o.err != nil {
		return nil, o.err
	}
	o.latencies.sort()
	return &Result{Requests: len(o.latencies), Elapsed: time.Since(start), Latencies: o.latencies}, nil
}

type open struct {
	addr    string
	request []byte

	mu        sync.Mutex
	idle      []*Conn
	latencies Latencies
	err       error
}

// warm opens connections and uses each once, so that the first requests do not
// wait for that.
func (o *open) warm() error {
	var all sync.WaitGroup
	for range 64 {
		all.Go(func() { o.send(time.Now()) })
	}
	all.Wait()
	return o.err
}

func (o *open) send(due time.Time) {
	c, err := o.take()
	if err == nil {
		err = c.Do()
	}
	latency := time.Since(due)
	o.mu.Lock()
	defer o.mu.Unlock()
	if err != nil {
		o.err = err
		return
	}
	o.latencies = append(o.latencies, latency)
	o.idle = append(o.idle, c)
}

func (o *open) take() (*Conn, error) {
	o.mu.Lock()
	if n := len(o.idle); n > 0 {
		c := o.idle[n-1]
		o.idle = o.idle[:n-1]
		o.mu.Unlock()
		return c, nil
	}
	o.mu.Unlock()
	return Dial(o.addr, o.request)
}

func (o *open) close() {
	for _, c := range o.idle {
		c.Close()
	}
}
