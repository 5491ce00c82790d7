package wake

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/wake-go/wake/durable"
)

// checkTimeout bounds a readiness check, so that a probe always gets an answer.
const checkTimeout = 2 * time.Second

// checks are the readiness checks of a running application.
type checks struct {
	mu      sync.Mutex
	byName  map[string]*check
	running sync.WaitGroup
}

// A check runs at most once at a time: probes that arrive meanwhile share the
// result, and a check that hangs holds one goroutine, not one a probe.
type check struct {
	run     func(context.Context) error
	mu      sync.Mutex
	running chan struct{} // closed when the run in progress has ended
	err     error
}

// Check adds a readiness check, usually from the lifespan function with its
// ctx: /readyz answers 503 while it fails or takes longer than 2 seconds. The
// error is logged, the answer has the name only. Adding a name again replaces
// its check.
//
// It panics if ctx does not come from an application.
func Check(ctx context.Context, name string, run func(context.Context) error) {
	in := applicationOf(ctx)
	if in == nil {
		panic(fmt.Sprintf("wake: Check(%q) needs the context of a lifespan function", name))
	}
	in.checks.add(name, run)
}

func (c *checks) add(name string, run func(context.Context) error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.byName == nil {
		c.byName = map[string]*check{}
	}
	c.byName[name] = &check{run: run}
}

// failing runs all checks side by side and returns the errors of those that fail.
func (c *checks) failing(ctx context.Context) map[string]error {
	c.mu.Lock()
	all := maps.Clone(c.byName)
	c.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	ends := map[string]<-chan struct{}{}
	for name, check := range all {
		ends[name] = check.start(ctx, &c.running)
	}
	failing := map[string]error{}
	for name, end := range ends {
		select {
		case <-end:
			if err := all[name].result(); err != nil {
				failing[name] = err
			}
		case <-ctx.Done():
			failing[name] = fmt.Errorf("the check has %v and has not ended: %w", checkTimeout, context.Cause(ctx))
		}
	}
	return failing
}

func (c *check) start(ctx context.Context, running *sync.WaitGroup) <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.running != nil {
		return c.running
	}
	end := make(chan struct{})
	c.running = end
	// The run belongs to every probe that waits for it, not to the first.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), checkTimeout)
	running.Go(func() {
		err := errors.New("the check ended its goroutine")
		defer func() {
			if v := recover(); v != nil {
				err = fmt.Errorf("the check panicked: %v", v)
			}
			cancel()
			c.mu.Lock()
			c.err, c.running = err, nil
			c.mu.Unlock()
			close(end)
		}()
		err = c.run(ctx)
	})
	return end
}

// wait waits until no check runs, but not for ever: a check that ignores its
// context is left behind.
func (c *checks) wait(most time.Duration) {
	ended := make(chan struct{})
	go func() {
		c.running.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(most):
	}
}

func (c *check) result() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// serveLive answers whether the process is alive: as long as it answers at all,
// and the loop that claims queued tasks comes round. A store that is away is no
// reason to restart the process.
func (h *host) serveLive(w http.ResponseWriter, _ *http.Request) {
	if in := h.live.Load(); in != nil {
		if e := in.engine.Load(); e != nil {
			if err := e.Healthy(); err != nil && !errors.Is(err, durable.ErrUnavailable) {
				in.cfg.log().Error("not alive", "error", err)
				writeHealth(w, http.StatusServiceUnavailable, health{Status: "failing", Failing: []string{"workers"}})
				return
			}
		}
	}
	writeHealth(w, http.StatusOK, health{Status: "ok"})
}

type health struct {
	Status  string   `json:"status"`
	Failing []string `json:"failing,omitempty"`
}

// serveReady answers whether requests should be sent here.
func (h *host) serveReady(w http.ResponseWriter, r *http.Request) {
	in := h.live.Load()
	switch {
	case in == nil:
		writeHealth(w, http.StatusServiceUnavailable, health{Status: "starting"})
		return
	case in.drain.Err() != nil:
		writeHealth(w, http.StatusServiceUnavailable, health{Status: "draining"})
		return
	}
	failing := in.checks.failing(r.Context())
	answer, code := health{Status: "ok"}, http.StatusOK
	for _, name := range slices.Sorted(maps.Keys(failing)) {
		err := failing[name]
		in.cfg.log().Warn("readiness check failed", "check", name, "error", err)
		answer.Failing = append(answer.Failing, name)
		answer.Status, code = "failing", http.StatusServiceUnavailable
	}
	writeHealth(w, code, answer)
}

func writeHealth(w http.ResponseWriter, code int, answer health) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(answer) // the prober may have gone
}
