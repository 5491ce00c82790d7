package crm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"
)

const (
	maxContacts  = 1000    // remembered; the oldest goes when another arrives
	maxBody      = 4 << 10 // of a request
	stubTimeout  = 5 * time.Second
	closeTimeout = 5 * time.Second
)

// Stub is a CRM on a free loopback port that remembers the newest contacts, each Idempotency-Key once.
type Stub struct {
	listener net.Listener
	server   *http.Server
	served   chan error

	mu       sync.Mutex
	contacts []Contact // oldest first
	keys     []string  // of contacts
}

// StartStub starts a stub. The context bounds the start only. What goes wrong on single connections later is written to
// the logger.
func StartStub(ctx context.Context, logger *slog.Logger) (*Stub, error) {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("start the CRM stub: %w", err)
	}
	s := &Stub{listener: listener, served: make(chan error, 1)}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /contacts", s.add)
	mux.HandleFunc("GET /contacts", s.list)
	s.server = &http.Server{
		Handler:           http.MaxBytesHandler(mux, maxBody),
		ReadHeaderTimeout: stubTimeout,
		ReadTimeout:       stubTimeout,
		WriteTimeout:      stubTimeout,
		IdleTimeout:       keepAliveFor * 2, // longer than the client's, which then never meets a closed connection
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(logger.Handler(), slog.LevelWarn),
	}
	go func() { s.served <- s.server.Serve(listener) }()
	return s, nil
}

// URL returns the base URL for [NewClient].
func (s *Stub) URL() string { return "http://" + s.listener.Addr().String() }

// Contacts returns the contacts remembered, newest first.
func (s *Stub) Contacts() []Contact {
	s.mu.Lock()
	defer s.mu.Unlock()
	contacts := append(make([]Contact, 0, len(s.contacts)), s.contacts...) // an empty list in JSON, not null
	slices.Reverse(contacts)
	return contacts
}

// Close waits for the calls that are being answered, for a bounded time, and for the server's goroutine.
func (s *Stub) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	err := s.server.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, s.server.Close())
	}
	if serveErr := <-s.served; !errors.Is(serveErr, http.ErrServerClosed) {
		err = errors.Join(err, serveErr)
	}
	if err != nil {
		return fmt.Errorf("close the CRM stub: %w", err)
	}
	return nil
}

func (s *Stub) add(w http.ResponseWriter, r *http.Request) {
	key := r.Header.Get("Idempotency-Key")
	if key == "" {
		http.Error(w, "the Idempotency-Key header is missing", http.StatusBadRequest)
		return
	}
	var contact Contact
	if err := json.NewDecoder(r.Body).Decode(&contact); err != nil || contact.Username == "" {
		http.Error(w, "the body must be a contact with a username, as JSON", http.StatusBadRequest)
		return
	}
	status := http.StatusOK // known already
	if s.remember(key, contact) {
		status = http.StatusCreated
	}
	writeJSON(w, status, contact)
}

func (s *Stub) list(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, s.Contacts())
}

// remember reports whether the contact is new.
func (s *Stub) remember(key string, contact Contact) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if slices.Contains(s.keys, key) {
		return false
	}
	if len(s.contacts) == maxContacts {
		s.contacts = slices.Delete(s.contacts, 0, 1)
		s.keys = slices.Delete(s.keys, 0, 1)
	}
	s.contacts = append(s.contacts, contact)
	s.keys = append(s.keys, key)
	return true
}

func writeJSON(w http.ResponseWriter, status int, value any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(value) // an error here means that the client is gone
}
