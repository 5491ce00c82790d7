package wake

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/wake-go/wake/lifespan"
)

// lingerTime is how long connections that have no request in progress stay
// open after the listeners have closed. A client may have sent a request on
// one just before it learnt of anything: it is answered, with Connection:
// close. Closing such connections at once cuts requests on every deployment.
const lingerTime = 250 * time.Millisecond

// A server is one run of an application's HTTP side, between set-up and
// clean-up.
type server struct {
	in    *instance
	http  *http.Server
	conns sync.Map // net.Conn → struct{}: those without a request in progress

	requests    context.Context // what all request contexts come from
	cutRequests context.CancelCauseFunc
}

// serve opens the listeners, serves until ctx ends, and drains.
func (s *server) serve(ctx context.Context) error {
	// Requests outlive the beginning of the drain, and end when it is cut.
	s.requests, s.cutRequests = context.WithCancelCause(context.WithValue(context.WithoutCancel(ctx), instanceKey{}, s.in))
	defer s.cutRequests(nil)

	h := s.in.host
	listeners, err := s.listen(ctx)
	if err != nil {
		return err
	}
	admin, err := s.listenAdmin(ctx)
	if err != nil {
		closeAll(listeners)
		return err
	}
	if !h.live.CompareAndSwap(nil, s.in) {
		closeAll(listeners)
		if admin != nil {
			admin.Close()
		}
		return errRunning
	}
	defer h.live.Store(nil)

	s.http = s.newHTTPServer()
	withTLS := s.http.TLSConfig != nil // net/http sets one for itself later
	failed := make(chan error, len(listeners)+1)
	var serving sync.WaitGroup
	defer serving.Wait()
	for _, l := range listeners {
		serving.Go(func() { failed <- serveOn(s.http, l, withTLS) })
	}
	if admin != nil {
		server := s.newAdminServer()
		defer server.Close()
		serving.Go(func() { failed <- serveOn(server, admin, false) })
	}
	lifespan.MarkReady(ctx)
	s.announce(listeners, admin, withTLS)
	stopWatchdog := s.startWatchdog()
	defer stopWatchdog()

	select {
	case <-ctx.Done():
	case err := <-failed:
		lifespan.Stop(ctx, fmt.Errorf("a listener died: %w", err))
	}
	s.notify("STOPPING=1")
	return s.drain(ctx, listeners)
}

func closeAll(listeners []net.Listener) {
	for _, l := range listeners {
		l.Close()
	}
}

// serveOn serves until the listener closes.
func serveOn(srv *http.Server, l net.Listener, withTLS bool) error {
	if withTLS {
		return srv.ServeTLS(l, "", "")
	}
	return srv.Serve(l)
}

func (s *server) newHTTPServer() *http.Server {
	cfg := s.in.cfg
	srv := &http.Server{
		Handler:           s.in.host,
		ReadHeaderTimeout: cfg.headerTimeout,
		WriteTimeout:      cfg.writeTimeout,
		IdleTimeout:       cfg.idleTimeout,
		MaxHeaderBytes:    cfg.headerLimit,
		BaseContext:       func(net.Listener) context.Context { return s.requests },
		ErrorLog:          slog.NewLogLogger(cfg.log().Handler(), slog.LevelWarn),
	}
	for _, change := range cfg.servers {
		change(srv)
	}
	s.trackConns(srv)
	s.in.bg.Configure(srv)
	return srv
}

// trackConns knows the connections that have no request in progress.
func (s *server) trackConns(srv *http.Server) {
	next := srv.ConnState
	srv.ConnState = func(c net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew, http.StateIdle:
			s.conns.Store(c, struct{}{})
		default:
			s.conns.Delete(c)
		}
		if next != nil {
			next(c, state)
		}
	}
}

// listen opens the configured address, or takes over what systemd has opened.
func (s *server) listen(ctx context.Context) ([]net.Listener, error) {
	if given := s.in.cfg.listeners; len(given) > 0 {
		return given, nil
	}
	inherited, err := inheritedListeners()
	if err != nil || len(inherited) > 0 {
		return inherited, err
	}
	addr := s.in.cfg.addr
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen on %q: %w; choose another address with --addr or WAKE_ADDR", addr, err)
	}
	return []net.Listener{l}, nil
}

func (s *server) announce(listeners []net.Listener, admin net.Listener, withTLS bool) {
	url := urlOf(listeners[0], withTLS)
	attrs := []any{"url", url, "docs", url + "/docs"}
	if admin != nil {
		attrs = append(attrs, "admin", urlOf(admin, false))
	}
	s.in.cfg.log().Info("ready", attrs...)
	s.notify("READY=1")
}

func urlOf(l net.Listener, withTLS bool) string {
	addr := l.Addr().String()
	if host, port, err := net.SplitHostPort(addr); err == nil {
		if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
			addr = net.JoinHostPort("localhost", port)
		}
	}
	if withTLS {
		return "https://" + addr
	}
	return "http://" + addr
}

// drain ends the HTTP side: readiness, streams, listeners, requests, then the
// tasks of the requests. It returns what it could not finish.
func (s *server) drain(ctx context.Context, listeners []net.Listener) error {
	cut := lifespan.Drain(ctx)
	s.in.stopDrain(ErrDraining)
	delay := time.NewTimer(s.in.cfg.drainDelay)
	defer delay.Stop()
	select {
	case <-delay.C:
	case <-cut.Done():
	}
	closeAll(listeners)

	requests := s.drainRequests(cut)
	tasks := s.in.bg.Drain(cut)
	s.in.checks.wait(s.in.cfg.grace)
	if err := errors.Join(requests, tasks); err != nil {
		return &lifespan.Error{Phase: lifespan.Draining, Err: err}
	}
	return nil
}

// drainRequests waits for requests in progress, those on hijacked connections
// included. When the drain is cut it cancels their contexts and waits a little
// longer.
func (s *server) drainRequests(cut context.Context) error {
	var unfinished int64
	cutNow := sync.OnceFunc(func() {
		unfinished = s.in.inflight.Load()
		s.cutRequests(ErrDraining)
	})
	stop := context.AfterFunc(cut, cutNow)
	defer stop()

	s.linger(cut)
	_ = s.http.Shutdown(cut) // its error is cut's own
	if s.in.waitIdle(cut) {
		return nil
	}
	cutNow()
	if unfinished == 0 {
		return nil
	}
	grace, cancel := context.WithTimeout(context.Background(), s.in.cfg.grace)
	defer cancel()
	ended := s.in.waitIdle(grace)
	_ = s.http.Close() // what is left gets no answer
	if ended {
		return fmt.Errorf("%d requests were cut short: %w", unfinished, context.Cause(cut))
	}
	return fmt.Errorf("%d requests were cut short: %w; %d ignore their context:\n%s",
		unfinished, context.Cause(cut), s.in.inflight.Load(), handlerStacks())
}

// linger waits until no connection is left that could carry another request,
// at most lingerTime, and then closes those that net/http would wait for
// because they have not sent anything yet.
func (s *server) linger(cut context.Context) {
	ctx, cancel := context.WithTimeout(cut, lingerTime)
	defer cancel()
	poll := time.NewTicker(lingerTime / 50)
	defer poll.Stop()
	for s.quiet() > 0 && ctx.Err() == nil {
		select {
		case <-poll.C:
		case <-ctx.Done():
		}
	}
	s.conns.Range(func(c, _ any) bool {
		c.(net.Conn).Close()
		return true
	})
}

// quiet counts the connections without a request in progress.
func (s *server) quiet() (n int) {
	s.conns.Range(func(any, any) bool { n++; return true })
	return n
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
	const most, mostBytes = 10, 1 << 20
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
