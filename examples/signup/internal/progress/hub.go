// Package progress passes the news of tasks on to the pages that watch them.
//
// It lives in memory and is for the eye only: what is true is in the database. A [Hub] has no goroutine of its own.
package progress

import (
	"errors"
	"slices"
	"sync"
	"time"
)

// State is how far a step has come.
type State string

// The states of a step. One that is retrying runs again later; one that has failed does not.
const (
	Running  State = "running"
	Done     State = "done"
	Retrying State = "retrying"
	Failed   State = "failed"
)

// Event is a change of one step of one user's registration.
type Event struct {
	Username string    `json:"username"`
	Step     string    `json:"step"`
	State    State     `json:"state"`
	Detail   string    `json:"detail"`
	At       time.Time `json:"at"`
}

const (
	// replayed is how many of the latest events a new subscriber is given first.
	replayed = 200
	// buffered is how many events wait for a slow subscriber. When another arrives, the oldest goes: the newest state
	// of a step says more than the one before it.
	buffered = replayed + 56
	// maxSubscribers bounds the memory of all buffers together.
	maxSubscribers = 500
)

var (
	// ErrClosed says that the hub is closed.
	ErrClosed = errors.New("the progress hub is closed")
	// ErrTooMany says that no more subscribers are taken until one leaves.
	ErrTooMany = errors.New("too many pages watch the progress: close one, or try again later")
)

// Hub hands every published event to every subscriber.
type Hub struct {
	mu          sync.Mutex
	recent      []Event // oldest first
	subscribers map[*Subscription]struct{}
	closed      bool
}

// NewHub returns a hub without subscribers.
func NewHub() *Hub {
	return &Hub{subscribers: make(map[*Subscription]struct{})}
}

// Publish hands an event to every subscriber. It never waits for one. After Close it does nothing.
func (h *Hub) Publish(username, step string, state State, detail string, at time.Time) {
	event := Event{Username: username, Step: step, State: state, Detail: detail, At: at.UTC()}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return
	}
	if len(h.recent) == replayed {
		h.recent = slices.Delete(h.recent, 0, 1)
	}
	h.recent = append(h.recent, event)
	for s := range h.subscribers {
		s.put(event)
	}
}

// Subscribe starts with the latest events and goes on with what comes. The caller closes the subscription.
func (h *Hub) Subscribe() (*Subscription, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, ErrClosed
	}
	if len(h.subscribers) >= maxSubscribers {
		return nil, ErrTooMany
	}
	events := make(chan Event, buffered)
	s := &Subscription{Events: events, events: events, hub: h}
	for _, event := range h.recent {
		s.put(event)
	}
	h.subscribers[s] = struct{}{}
	return s, nil
}

// Close ends every subscription.
func (h *Hub) Close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	for s := range h.subscribers {
		h.remove(s)
	}
	return nil
}

// remove is called with the lock held, so that nobody sends on the closed channel.
func (h *Hub) remove(s *Subscription) {
	if _, subscribed := h.subscribers[s]; subscribed {
		delete(h.subscribers, s)
		close(s.events)
	}
}

// Subscription is one watcher's view of a hub.
type Subscription struct {
	// Events is closed together with the subscription or the hub.
	Events <-chan Event

	events chan Event
	hub    *Hub
}

// put is called with the hub's lock held: there is one sender, so the place it makes stays free.
func (s *Subscription) put(event Event) {
	select {
	case s.events <- event:
		return
	default:
	}
	select {
	case <-s.events:
	default: // the subscriber took one meanwhile
	}
	s.events <- event
}

// Close ends the subscription. It may be called more than once.
func (s *Subscription) Close() {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	s.hub.remove(s)
}
