package wake

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"

	"github.com/wake-go/wake/background"
	"github.com/wake-go/wake/durable"
)

// listenAdmin opens the admin listener, if there is to be one.
func (s *server) listenAdmin(ctx context.Context) (net.Listener, error) {
	cfg := s.in.cfg
	if cfg.admin == "off" || len(cfg.listeners) > 0 && !cfg.adminChosen {
		return nil, nil
	}
	host, _, err := net.SplitHostPort(cfg.admin)
	if err != nil {
		return nil, fmt.Errorf("admin address %q: %w; it must be host:port, or off", cfg.admin, err)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return nil, fmt.Errorf("admin address %q is not a loopback address; what it shows has no password: use 127.0.0.1 or off", cfg.admin)
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", cfg.admin)
	if err != nil {
		if !cfg.adminChosen {
			cfg.log().Warn("running without the admin listener: its default address is taken", "error", err)
			return nil, nil
		}
		return nil, fmt.Errorf("listen on the admin address %q: %w; choose another with --admin or WAKE_ADMIN, or off", cfg.admin, err)
	}
	return l, nil
}

func (s *server) newAdminServer() *http.Server {
	cfg := s.in.cfg
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", s.in.host.serveLive)
	mux.HandleFunc("GET /readyz", s.in.host.serveReady)
	mux.HandleFunc("GET /status", s.in.serveStatus)
	return &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: cfg.headerTimeout,
		ReadTimeout:       cfg.bodyTimeout,
		WriteTimeout:      cfg.writeTimeout,
		IdleTimeout:       cfg.idleTimeout,
		MaxHeaderBytes:    cfg.headerLimit,
		ErrorLog:          slog.NewLogLogger(cfg.log().Handler(), slog.LevelWarn),
	}
}

// A status is what the admin listener shows of the application.
type status struct {
	Phase    string           `json:"phase"`
	Requests int64            `json:"requests"` // in progress
	Tasks    background.Stats `json:"tasks"`
	Queue    *queueStatus     `json:"queue,omitempty"`
}

type queueStatus struct {
	Refused int64          `json:"refused"` // tasks that were added when their operation had ended
	Workers *durable.Stats `json:"workers,omitempty"`
}

func (in *instance) serveStatus(w http.ResponseWriter, _ *http.Request) {
	s := status{Phase: "ready", Requests: in.inflight.Load(), Tasks: in.bg.Stats()}
	if in.drain.Err() != nil {
		s.Phase = "draining"
	}
	if in.queue != nil {
		s.Queue = &queueStatus{Refused: in.refused.Load()}
		if e := in.engine.Load(); e != nil {
			stats := e.Stats()
			s.Queue.Workers = &stats
		}
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_ = json.NewEncoder(w).Encode(s) // the reader may have gone
}
