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

// drain ends everything between set-up and clean-up. Workers stop claiming at
// once, and what waits in memory moves to the queue, while the HTTP side ends:
// readiness, streams, listeners, requests. Then the requests' tasks end. It
// returns what it could not finish.
func (s *server) drain(ctx context.Context, listeners []net.Listener, accepted <-chan struct{}) error {
	cut := lifespan.Drain(ctx)
	return s.in.drainWork(cut, func() bool {
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
		return s.requestsEnd(cut)
	}, s.cutShort)
}

// drainWork ends tasks: those of the queue from now on, those in memory when
// requests have ended.
func (in *instance) drainWork(cut context.Context, requestsEnd func() bool, cutRequests func(error) error) error {
	var queued, requests, tasks error
	var beside sync.WaitGroup
	beside.Go(func() { queued = in.drainEngine(cut) })
	var spilling sync.WaitGroup
	spilling.Go(func() { in.spill(cut) })
	ended := requestsEnd()
	spilling.Wait()
	if !ended {
		// Side by side: serve has but twice the grace, and must report in it.
		// What a request adds meanwhile is refused, and it is told.
		beside.Go(func() { requests = cutRequests(context.Cause(cut)) })
	} else {
		in.spill(cut) // what requests have added since, if it still waits
	}
	tasks = in.bg.Drain(cut)
	beside.Wait()
	in.engine.Store(nil)
	tasks = in.rescue(tasks)
	in.checks.wait(in.cfg.grace / 4)
	if err := errors.Join(requests, tasks, queued); err != nil {
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
