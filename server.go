package wake

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"

	"github.com/wake-go/wake/lifespan"
)

// A server is one run of an application's HTTP side, between set-up and
// clean-up.
type server struct {
	in    *instance
	http  *http.Server
	conns conns

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

	if err := s.in.startEngine(ctx); err != nil {
		closeAll(listeners)
		if admin != nil {
			admin.Close()
		}
		return err
	}
	s.http = s.newHTTPServer()
	withTLS := s.http.TLSConfig != nil // net/http sets one for itself later
	failed := make(chan error, len(listeners)+1)
	accepted := make(chan struct{}) // closed when all listeners are
	var serving, accepting sync.WaitGroup
	defer serving.Wait()
	for _, l := range listeners {
		accepting.Add(1)
		serving.Go(func() {
			defer accepting.Done()
			failed <- serveOn(s.http, l, withTLS)
		})
	}
	serving.Go(func() {
		accepting.Wait()
		close(accepted)
	})
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
		<-ctx.Done() // the drain has begun, for everybody
	}
	s.notify("STOPPING=1")
	return s.drain(ctx, listeners, accepted)
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
	s.conns.watch(srv)
	s.in.bg.Configure(srv)
	return srv
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
	l, err := listenGently(ctx, addr)
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
