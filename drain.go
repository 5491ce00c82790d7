package wake

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/wake-go/wake/lifespan"
)

// drain ends the HTTP side: readiness, streams, listeners, requests, then the
// tasks of the requests. It returns what it could not finish.
func (s *server) drain(ctx context.Context, listeners []net.Listener, accepted <-chan struct{}) error {
	cut := lifespan.Drain(ctx)
	delay := time.NewTimer(s.in.cfg.drainDelay)
	defer delay.Stop()
	select {
	case <-delay.C:
	case <-cut.Done():
	}
	closeAll(listeners)
	select {
	case <-accepted:
	case <-cut.Done():
	}

	var requests, tasks error
	if s.requestsEnd(cut) {
		tasks = s.in.bg.Drain(cut)
	} else {
		// Side by side: serve has but twice the grace, and must report in it.
		// What a request adds meanwhile is refused, and it is told.
		var cutting sync.WaitGroup
		cutting.Go(func() { requests = s.cutShort(context.Cause(cut)) })
		cutting.Go(func() { tasks = s.in.bg.Drain(cut) })
		cutting.Wait()
	}
	s.in.checks.wait(s.in.cfg.grace / 2)
	if err := errors.Join(requests, tasks); err != nil {
		return &lifespan.Error{Phase: lifespan.Draining, Err: err}
	}
	return nil
}

// requestsEnd waits for requests in progress, those on hijacked connections
// included, and for their answers to be sent. It reports false when the drain
// is cut before.
func (s *server) requestsEnd(cut context.Context) bool {
	gone := s.conns.wait(cut, lingerTime, restTime)
	// Shutdown closes connections whose clients have not been told so, and may
	// be asking again: hence after they have gone, or when all is cut anyway.
	_ = s.http.Shutdown(cut)
	return gone && s.in.waitIdle(cut)
}

// cutShort cancels the contexts of requests, waits a little longer for their
// answers and returns what it has cut.
func (s *server) cutShort(cause error) error {
	unfinished, unsent := s.in.inflight.Load(), s.conns.busy()
	s.cutRequests(ErrDraining)
	grace, cancel := context.WithTimeout(context.Background(), s.in.cfg.grace)
	defer cancel()
	ended := s.in.waitIdle(grace)
	s.conns.wait(grace, 0, 0)
	_ = s.http.Close() // what is left gets no answer
	switch {
	case !ended:
		return fmt.Errorf("%d requests were cut short: %w; %d ignore their context:\n%s",
			unfinished, cause, s.in.inflight.Load(), handlerStacks())
	case unfinished > 0:
		return fmt.Errorf("%d requests were cut short: %w", unfinished, cause)
	case unsent > 0:
		return fmt.Errorf("%d answers were cut short, for their clients did not read them: %w", unsent, cause)
	}
	return nil
}

// waitIdle waits until no request is in progress and reports whether it has
// come to that.
func (in *instance) waitIdle(ctx context.Context) bool {
	for in.inflight.Load() > 0 {
		select {
		case <-in.idle:
		case <-ctx.Done():
			return in.inflight.Load() == 0
		}
	}
	return true
}

// handlerStacks are the stacks of goroutines that handle requests, for the
// report of those that do not end.
func handlerStacks() string {
	const most, mostBytes = 10, 16 << 20
	buf := make([]byte, mostBytes)
	buf = buf[:runtime.Stack(buf, true)]
	var stacks []string
	for s := range strings.SplitSeq(string(buf), "\n\n") {
		if strings.Contains(s, "wake.(*host).ServeHTTP(") && len(stacks) < most {
			stacks = append(stacks, s)
		}
	}
	return strings.Join(stacks, "\n\n")
}
